"""``callboard up`` from its start to its end, and background processes, on real servers."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from app.cli.pidfile import PidFile, Running
from app.cli.ready import free_port, problem_of
from app.embedded.postgres import EmbeddedPostgres
from app.settings import Settings
from tests.cli.fakes import Call, is_gone
from tests.cli.house import Up, clean_environment, up
from tests.cli.test_run import GOOD

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One ``callboard up`` for all tests here that do not stop it."""
    with up(tmp_path_factory.mktemp("up") / "home", "--threads", "2") as running:
        running.wait_for("ready")
        yield running
        # The crash of its life: nothing of it may be left.
        everybody = psutil.Process(running.process.pid).children(recursive=True)
        running.process.kill()
        _, alive = psutil.wait_procs(everybody, timeout=60)
    assert len(everybody) > 6
    assert alive == []


@pytest.fixture
def here(call: Call, running: Up, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line with the home of ``running``."""
    monkeypatch.setenv("CALLBOARD_HOME", str(running.home))
    return call


def test_runs_playbooks_and_commands_of_the_home_find_it(
    here: Call, running: Up, tmp_path: Path
) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    assert here("register", "-f", str(tmp_path / "good.yaml")).exit_code == 0
    result = here("execute", "test/t", "--watch", "--set", "city=Oslo")
    assert (result.exit_code, result.stdout) == (0, "city  Oslo\ndays  1\n"), result.output
    (pool,) = json.loads(here("pools", "--json").stdout)
    assert (pool["labels"]["pool"], pool["capacity"]) == ("default", 2)


def test_a_second_one_on_the_same_home_is_refused(here: Call, running: Up) -> None:
    result = here("up", "--port", str(free_port()))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: callboard up of {running.home} runs already (process ")
    assert problem_of(running.url) is None


def test_the_demo_uses_what_runs_and_leaves_it_running(here: Call, running: Up) -> None:
    result = here("demo")
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert lines[0] == f"using 'callboard up' (process {running.process.pid}) at {running.url}"
    assert re.fullmatch(r"23 steps in .+; 'callboard status \d+' shows them again", lines[-1])
    assert "from nothing" not in result.stderr
    assert problem_of(running.url) is None


def test_a_killed_worker_and_a_killed_nats_come_back(running: Up) -> None:
    (worker,) = running.processes("app.worker")
    (nats,) = running.processes("bin/nats-server")
    worker.kill()
    nats.kill()
    running.wait_for("process.died", process="worker", code=137)
    running.wait_for("server.started", process="nats")
    running.wait_for("process.started", process="worker")
    (again,) = running.processes("app.worker")
    assert again.pid != worker.pid


def test_one_ctrl_c_stops_everything_in_order(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with up(home) as running:
        running.wait_for("ready")
        everybody = psutil.Process(running.process.pid).children(recursive=True)
        assert running.stop() == 0
        running.wait_for("end of output")
        events = [row["event"] for row in running.records]
    assert all(is_gone(process.pid) for process in everybody)
    stopped = [events.index(f"{name}.stopped") for name in ("worker", "server")]
    assert stopped == sorted(stopped)
    assert events[-2] == "stopped"
    assert not (home / "run" / "up.pid").exists()


def test_a_port_in_use_is_one_clear_message(call: Call, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = call("up", "--port", str(port))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"error: port {port} on 127.0.0.1 cannot be used: Address already in use "
        "(stop what listens there, or choose another port with --port)\n"
    )
    assert not (home / "postgres").exists()


# ---------------------------------------------------------------------- in the background
def test_server_and_worker_in_the_background(here: Call, running: Up) -> None:
    port = str(free_port())
    started = here("server", "start", "--port", port, "--json")
    assert started.exit_code == 0, started.output
    pid = json.loads(started.stdout)["pid"]
    try:
        assert problem_of(f"http://127.0.0.1:{port}") is None
        again = here("server", "start", "--port", port)
        assert again.exit_code == 1
        assert f"error: the server runs already (process {pid} at " in again.stderr
    finally:
        assert here("server", "stop").stdout == f"server has stopped (process {pid})\n"
    assert is_gone(pid)
    assert here("server", "stop").stdout == "no server is running\n"

    started = here("worker", "start", "-n", "second", "--threads", "1", "--json")
    assert started.exit_code == 0, started.output
    assert (
        json.loads(here("worker", "stop", "-n", "second", "--json").stdout)["status"] == "stopped"
    )


def test_a_process_that_cannot_start_says_why(call: Call, home: Path) -> None:
    result = call("server", "start", "--port", str(free_port()))
    assert result.exit_code == 1
    assert result.stderr.startswith("error: server ended at once and said:\n  error: ")
    assert "DATABASE_URL and NATS_URL not set" in result.stderr
    assert not (home / "run" / "server.pid").exists()


def test_a_pid_file_of_a_dead_process_counts_for_none(home: Path, settings: Settings) -> None:
    pidfile = PidFile.of(settings, "server")
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        running = Running.of(process.pid, "http://x")
    pidfile.write(running)
    assert pidfile.read() is None
    pidfile.claim("the server", "…")
    assert not pidfile.path.exists()
    # Its id may be another process's by now.
    alive = Running.of(psutil.Process().ppid())
    pidfile.write(Running(alive.pid, alive.started - 100))
    assert pidfile.read() is None
    pidfile.write(alive)
    assert pidfile.read() == alive
    pidfile.path.write_text('{"pid": 12')
    assert pidfile.read() is None


# ---------------------------------------------------------------------- the database
def test_db_status_and_upgrade(
    call: Call, postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres_server.create_database("cli_db"))
    before = call("db", "status")
    assert (before.exit_code, before.stdout[:24]) == (1, "at revision (none), need")
    assert "run 'callboard db upgrade'" in before.stderr
    assert "(was not there)" in call("db", "init").stdout
    assert call("db", "upgrade").stdout.startswith("the schema is up to date")
    after = json.loads(call("db", "status", "--json").stdout)
    assert after["up_to_date"] is True
    postgres_server.drop_database("cli_db")


def test_an_unreachable_database_is_one_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://joe:geheim@127.0.0.1:{free_port()}/x")
    result = call("db", "upgrade")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "geheim" not in result.output
    assert "Traceback" not in result.output


# ---------------------------------------------------------------------- the demo
def test_the_demo_shows_its_rows_and_stops_everything(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "demo"],
        capture_output=True,
        text=True,
        env=clean_environment(tmp_path / "home"),
        cwd=tmp_path,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "rows_loaded          6099" in done.stdout
    assert "Virgin America" in done.stdout
    assert "done      load  15/15" in done.stderr
    assert not (tmp_path / "home" / "stack.json").exists()
