"""``doctor`` and ``why`` on the command line."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from app.cli.pidfile import PidFile, Running
from app.cli.ready import free_port, problem_of
from app.embedded.lock import FolderLock, owner_of
from app.embedded.stack import EmbeddedStack
from app.services.health import Check
from app.settings import Settings
from app.version import software_version
from tests.api.plane import build, served
from tests.cli.fakes import Call
from tests.cli.test_run import HEAD

FAILS = f"""{HEAD}workload: {{n: 7}}
workflow:
  - step: start
    tool: {{kind: shell, cmd: "echo got {{{{ workload.n }}}}; exit 3"}}
"""


@pytest.fixture
def at_api(call: Call, api: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line, pointed at the API."""
    monkeypatch.setenv("NOETL_SERVER_URL", api)
    return call


@pytest.fixture
def nobody(call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line where no API answers."""
    monkeypatch.setenv("PORT", str(free_port()))
    return call


# ---------------------------------------------------------------------- doctor
def test_all_is_well(call: Call) -> None:
    plane = build()
    with served(plane.app) as url:
        answer = call("doctor", "--server-url", url)
        found = json.loads(call("doctor", "--server-url", url, "--json").stdout)
    assert answer.exit_code == 0, answer.output
    head, _, *checks, _, end = answer.stdout.splitlines()
    assert head == f"Callboard {software_version()} at {url}"
    assert checks[0] == "  ok     postgres"
    assert end == "All is well."
    assert (found["status"], found["version"], found["url"]) == ("well", software_version(), url)


def test_what_is_wrong_has_its_remedy_and_exit_code_1(call: Call) -> None:
    plane = build()
    plane.health.failing = [
        Check("queues", ok=False, message="3 steps wait", remedy="start one", severity="warning"),
        Check("postgres", ok=False, message="full", remedy="free space"),
    ]
    with served(plane.app) as url:
        answer = call("doctor", "--server-url", url)
        found = call("doctor", "--server-url", url, "--json")
    assert (answer.exit_code, found.exit_code) == (1, 1)
    assert answer.stderr == "error: 2 things are wrong\n"
    assert "  look   queues      3 steps wait\n" in answer.stdout
    assert "  wrong  postgres    full\n                     → free space\n" in answer.stdout
    assert json.loads(found.stdout)["status"] == "trouble"


def test_a_command_line_of_another_version_is_told(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.api.health.software_version", lambda: "9.9")
    with served(build().app) as url:
        answer = call("doctor", "--server-url", url)
    assert answer.exit_code == 1
    assert f"this command line is version {software_version()}, the server 9.9" in answer.stdout
    assert "pip install callboard==9.9" in answer.stdout


def test_a_wrong_token_is_told(call: Call) -> None:
    with served(build(api_token="sesame").app) as url:
        answer = call("doctor", "--server-url", url, "--token", "s3cretguess")
    assert answer.exit_code == 1
    assert "  wrong  api  the token is not known" in answer.stdout
    assert "s3cretguess" not in answer.output


def test_without_an_api_it_looks_from_here(nobody: Call, home: Path) -> None:
    answer = nobody("doctor")
    assert answer.exit_code == 1
    assert answer.stdout.startswith("From here:\n")
    assert "wrong  api   no Callboard API at http://127.0.0.1:" in answer.stdout
    assert f"{home} is not there yet" in answer.stdout
    assert "is free" in answer.stdout


def test_another_program_on_our_port(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        monkeypatch.setattr("app.cli.doctor.PATIENCE", 0.2)
        answer = call("doctor")
    assert f"port {port} on 127.0.0.1 cannot be used" in answer.stdout
    assert "did not answer in time" in answer.stdout


def test_a_house_that_runs_without_an_api(nobody: Call, home: Path, settings: Settings) -> None:
    PidFile.of(settings, "up").write(Running.of(os.getpid()))
    answer = nobody("doctor")
    assert f"'callboard up' of {home} runs (process {os.getpid()})" in answer.stdout


def test_a_server_that_outlived_its_house(nobody: Call, home: Path) -> None:
    folder = home / "nats"
    folder.mkdir(parents=True)
    lock = FolderLock(folder)
    lock.acquire()
    try:
        assert owner_of(folder) == os.getpid()
        assert f"{folder} is in use by process {os.getpid()}" in nobody("doctor").stdout
    finally:
        lock.release()
    assert owner_of(folder) is None
    assert "is in use" not in nobody("doctor").stdout


def test_servers_are_asked_from_here(
    nobody: Call, database: str, nats: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NATS is there; Postgres is, and then is not."""
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("NATS_URL", nats)
    found = json.loads(nobody("doctor", "--json").stdout)
    checks = {check["name"]: check["ok"] for check in found["checks"]}
    assert checks["postgres"] is checks["migrations"] is checks["nats"] is True
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:s3cretword@127.0.0.1:{free_port()}/d")
    answer = nobody("doctor")
    assert "wrong  postgres" in answer.stdout
    assert "is Postgres running? see DATABASE_URL" in answer.stdout
    assert "s3cretword" not in answer.output


def test_the_stack_of_a_home_is_found(
    nobody: Call, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("stack")
    monkeypatch.setenv("CALLBOARD_HOME", str(folder))
    with EmbeddedStack(folder):
        found = json.loads(nobody("doctor", "--json").stdout)
    checks = {check["name"]: check for check in found["checks"]}
    assert checks["migrations"]["remedy"] == "run 'callboard db upgrade'"
    assert checks["nats"]["ok"]


# ---------------------------------------------------------------------- readiness
def test_to_begin_with_nats_must_be_there() -> None:
    plane = build()
    with served(plane.app) as url:
        assert problem_of(url) is None
        plane.health.failing = [Check("disk", ok=False, message="full", severity="warning")]
        assert problem_of(url) is None
        plane.health.failing = [Check("nats", ok=False, message="away", severity="warning")]
        assert problem_of(url) == "nats: away"


# ---------------------------------------------------------------------- why
def test_why_a_step_failed(at_api: Call, tmp_path: Path) -> None:
    file = tmp_path / "fails.yaml"
    file.write_text(FAILS.replace("test/t", "trouble/fails"))
    assert at_api("register", "-f", str(file)).exit_code == 0
    started = at_api("execute", "trouble/fails", "--watch", "--json")
    execution = json.loads(started.stdout)["execution_id"]
    answer = at_api("why", execution)
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0] == f"Execution {execution} of trouble/fails (version 1): FAILED"
    assert lines[1].startswith("It failed: ")
    assert "start (failed): failed: " in answer.stdout
    assert "  attempt  outcome  worker  started" in answer.stdout
    assert "  rendered: cmd = echo got 7; exit 3" in answer.stdout
    assert "  template: cmd = echo got {{ workload.n }}; exit 3" in answer.stdout
    assert "  output:\n    got 7" in answer.stdout
    assert at_api("why", execution, "start").stdout == answer.stdout

    found = json.loads(at_api("why", execution, "--json").stdout)
    assert found["reason"]["code"] == "failed"
    wrong = at_api("why", execution, "strat")
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "did you mean 'start'?" in wrong.stderr
    assert at_api("why", "77").exit_code == 1
