"""The commands that talk to the API, on the real one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.fakes import Call
from tests.cli.house import clean_environment
from tests.cli.test_run import FAILING, GOOD, HEAD, INVALID

SLEEPY = f"""{HEAD}workflow:
  - step: start
    tool: {{kind: shell, cmd: "sleep 600"}}
"""


@pytest.fixture
def at_api(call: Call, api: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line, pointed at the API."""
    monkeypatch.setenv("NOETL_SERVER_URL", api)
    return call


def _write(folder: Path, text: str, path: str) -> Path:
    file = folder / f"{path.replace('/', '-')}.yaml"
    file.write_text(text.replace("test/t", path))
    return file


def _json(call: Call, *words: str) -> Any:
    result = call(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_from_registering_to_the_result(at_api: Call, tmp_path: Path) -> None:
    file = _write(tmp_path, GOOD, "cli/good")
    assert at_api("register", "playbook", "-f", str(file)).stdout.endswith(
        "registered cli/good version 1\n"
    )
    assert _json(at_api, "catalog", "register", str(file))["version"] == 2
    watched = at_api("execute", "cli/good", "--watch", "--set", "city=Oslo")
    assert watched.exit_code == 0, watched.output
    assert watched.stdout == "city  Oslo\ndays  1\n"
    assert "done      end" in watched.stderr
    assert "COMPLETED in " in watched.stderr


def test_execute_status_events_and_result_of_one(at_api: Call, tmp_path: Path) -> None:
    at_api("register", "-f", str(_write(tmp_path, GOOD, "cli/look")))
    started = at_api("execute", "playbook", "cli/look")
    assert started.stdout.startswith("Execution started:\n{")
    execution = _json(at_api, "execute", "cli/look", "--version", "1")["execution_id"]
    assert at_api("status", execution, "--watch").exit_code == 0

    text = at_api("status", execution).stdout
    assert f"Execution: {execution}\n" in text
    assert "Status:    COMPLETED\nSteps:     3 completed\n" in text
    assert "Completed steps: start, each, end\n" in text
    assert "each   done         1  3/3" in text
    assert _json(at_api, "execute", "status", execution)["status"] == "COMPLETED"

    types = [
        json.loads(line)["type"]
        for line in at_api("events", execution, "--json").stdout.splitlines()
    ]
    assert types[0] == "execution.started"
    assert types[-1] == "execution.completed"
    followed = at_api("events", execution, "--follow").stdout.splitlines()
    assert len(followed) == len(types)
    assert "each[2]" in "\n".join(followed)
    assert len(at_api("events", execution, "--type", "step.done").stdout.splitlines()) == 5
    assert len(at_api("events", execution, "--since", "2").stdout.splitlines()) == len(types) - 2

    assert at_api("result", execution).stdout == "city  Rome\ndays  1\n"
    assert _json(at_api, "result", execution, "--step", "start") == {"city": "Rome", "days": 1}
    assert at_api("result", execution, "--step", "nope").exit_code == 1


def test_run_of_a_catalog_path_goes_to_the_servers(
    at_api: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = _write(tmp_path, GOOD, "cli/remote")
    result = at_api("run", str(file), "-r", "distributed", "--set", "city=Bern")
    assert result.stdout == "city  Bern\ndays  1\n"
    assert at_api("run", "cli/remote").stdout == "city  Rome\ndays  1\n"
    assert at_api("run", "cli/remote", "-r", "local").exit_code == 1


def test_a_failure_is_exit_code_1_where_somebody_waits(at_api: Call, tmp_path: Path) -> None:
    at_api("register", "-f", str(_write(tmp_path, FAILING, "cli/failing")))
    watched = at_api("execute", "cli/failing", "--watch")
    assert watched.exit_code == 1
    assert "no luck" in watched.stderr.splitlines()[-1]
    failed = _json(at_api, "executions", "--status", "failed", "--path", "cli/failing")
    assert [row["path"] for row in failed] == ["cli/failing"]
    text = at_api("status", failed[0]["execution_id"])
    assert text.exit_code == 0
    assert "Error:     " in text.stdout


def test_ctrl_c_while_looking_on_says_that_it_goes_on(
    at_api: Call, api: str, home: Path, tmp_path: Path
) -> None:
    at_api("register", "-f", str(_write(tmp_path, SLEEPY, "cli/watched")))
    execution = _json(at_api, "execute", "cli/watched")["execution_id"]
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "-s", api, "status", execution, "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(home),
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "running   start\n"
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert told.startswith(f"stopped looking on; execution {execution} goes on (look again with ")
    assert _json(at_api, "status", execution)["status"] == "RUNNING"
    at_api("cancel", execution)


def test_cancel(at_api: Call, tmp_path: Path) -> None:
    at_api("register", "-f", str(_write(tmp_path, SLEEPY, "cli/sleepy")))
    execution = _json(at_api, "execute", "cli/sleepy")["execution_id"]
    assert at_api("cancel", execution, "--reason", "enough").stdout.startswith("cancelled: ")
    assert _json(at_api, "status", execution)["status"] == "CANCELLED"
    assert at_api("cancel", execution).stdout.startswith("already_completed: ")


def test_pause_resume_and_rerun(at_api: Call, tmp_path: Path) -> None:
    at_api("register", "-f", str(_write(tmp_path, SLEEPY, "cli/paused")))
    execution = _json(at_api, "execute", "cli/paused")["execution_id"]
    assert at_api("pause", execution, "--reason", "look").stdout == "paused: 1 execution paused\n"
    assert at_api("pause", execution).stdout == "paused: it was paused already\n"
    assert "RUNNING (paused" in at_api("status", execution).stdout
    assert "RUNNING (paused" in at_api("executions", "--path", "cli/paused").stdout
    assert at_api("resume", execution).stdout == "running: 1 execution resumed\n"
    assert "paused" not in at_api("status", execution).stdout.replace("cli/paused", "")
    at_api("cancel", execution)
    refused = at_api("pause", execution)
    assert refused.exit_code == 1
    assert "has ended already" in refused.stderr
    again = _json(at_api, "rerun", execution)
    assert again["status"] == "started"
    at_api("cancel", again["execution_id"])


def test_retry_takes_over_and_says_so(at_api: Call, tmp_path: Path) -> None:
    at_api("register", "-f", str(_write(tmp_path, FAILING, "cli/retried")))
    at_api("execute", "cli/retried", "--watch")
    (row,) = _json(at_api, "executions", "--path", "cli/retried")
    at_api("register", "-f", str(_write(tmp_path, GOOD, "cli/retried")))
    told = at_api("retry", row["execution_id"], "--version", "latest", "--watch")
    assert told.exit_code == 0
    assert f"takes over what was done in {row['execution_id']}" in told.stdout
    newest = _json(at_api, "executions", "--path", "cli/retried")[0]
    status = _json(at_api, "status", newest["execution_id"])
    assert (status["status"], status["retry_of"]) == ("COMPLETED", row["execution_id"])
    assert at_api("retry", newest["execution_id"]).exit_code == 1
    assert at_api("retry", row["execution_id"], "--version", "old").exit_code == 2


def test_a_folder_with_one_bad_playbook_registers_the_others(at_api: Call, tmp_path: Path) -> None:
    _write(tmp_path, GOOD, "cli/folder")
    _write(tmp_path, INVALID, "cli/bad")
    result = at_api("register", "-d", str(tmp_path))
    assert result.exit_code == 1
    assert "registered cli/folder version 1" in result.stdout
    assert "cli-bad.yaml is not valid:\n  line " in result.stderr


def test_catalog_list_and_get(at_api: Call, tmp_path: Path) -> None:
    at_api("register", str(_write(tmp_path, GOOD, "cli/listed")))
    assert "cli/listed" in at_api("catalog", "list", "Playbook").stdout
    assert "cli/listed" in at_api("list", "playbooks").stdout
    found = _json(at_api, "catalog", "list", "--path", "cli/listed")["entries"]
    assert [row["version"] for row in found] == [1]
    assert at_api("catalog", "get", "cli/listed").stdout == GOOD.replace("test/t", "cli/listed")
    missing = at_api("catalog", "get", "cli/nope")
    assert missing.exit_code == 1
    assert missing.stderr.startswith("error: nothing is registered under path 'cli/nope'")


def test_lists(at_api: Call) -> None:
    assert at_api("executions").stdout.startswith("execution")
    assert at_api("list").stdout.startswith("execution")
    assert at_api("list", "pools").stdout.startswith("name")
    assert isinstance(_json(at_api, "pools"), list)


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("foo", "there are agent, credential, mcp, memory, playbook, subscription"),
        ("playbok", "did you mean 'playbook'?"),
        ("excutions", "did you mean 'executions'?"),
    ],
)
def test_an_unknown_word_to_list_is_an_error(at_api: Call, word: str, remedy: str) -> None:
    for words in (("list", word), ("catalog", "list", word)):
        result = at_api(*words)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"error: there is no kind of resource called {word!r} ({remedy})\n"


def test_where_a_list_is_empty_it_is_said(at_api: Call) -> None:
    for words, told in {
        ("list", "credentials"): "no such credential is kept\n",
        ("list", "memory"): "nothing of the kind memory is registered\n",
        ("catalog", "list", "--path", "no/where"): (
            "nothing is registered under path 'no/where'\n"
        ),
        ("executions", "--path", "no/where"): "no execution is like that\n",
    }.items():
        result = at_api(*words)
        assert (result.exit_code, result.stderr) == (0, told)
    assert _json(at_api, "list", "memory") == {"entries": []}
    assert _json(at_api, "list", "credentials") == {"items": []}


def test_validate_by_the_server(at_api: Call, tmp_path: Path) -> None:
    result = at_api("validate", str(_write(tmp_path, INVALID, "cli/check")), "--remote")
    assert result.exit_code == 1
    assert "cli-check.yaml:9:18: error[unknown-tool] " in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("register",), "give one file or folder: FILE, -f FILE or -d FOLDER"),
        (("execute", "a", "b"), "one path is needed, not 'a b'"),
        (("execute", "a", "--payload", "[1]"), "a JSON object is needed"),
        (("status",), "Missing argument"),
    ],
)
def test_wrong_usage_is_exit_code_2(call: Call, words: tuple[str, ...], message: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    assert message in result.stderr
