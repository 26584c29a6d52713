from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psutil
import pytest


def test_result_has_the_documented_shape(call: Any) -> None:
    result = call("shell", {"cmds": ["echo one", "echo two >&2; echo three"]})
    assert result["returncode"] == 0
    assert result["stdout"] == result["text"] == "one\nthree\n"
    assert result["stderr"] == "two\n"
    assert [entry["cmd_preview"] for entry in result["commands"]] == [
        "echo one",
        "echo two >&2; echo three",
    ]
    assert set(result["commands"][0]) == {
        "cmd_preview",
        "returncode",
        "stdout",
        "stderr",
        "duration_ms",
    }


@pytest.mark.parametrize("key", ["cmds", "cmd", "command"])
def test_takes_one_program_as_text(call: Any, key: str) -> None:
    assert call("shell", {key: "x=1\necho $x | tr 1 2"})["stdout"] == "2\n"


def test_programs_share_a_folder_that_is_gone_afterwards(call: Any) -> None:
    result = call("shell", {"cmds": ["echo hi > file", "cat file; pwd"]})
    text, folder = result["commands"][1]["stdout"].split("\n")[:2]
    assert text == "hi"
    assert not Path(folder).exists()


def test_cwd(call: Any, tmp_path: Path) -> None:
    assert (
        call("shell", {"cmd": "pwd; touch here", "cwd": str(tmp_path)})["stdout"] == f"{tmp_path}\n"
    )
    assert (tmp_path / "here").exists()


def test_the_environment_is_clean(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_WORKER_TOKEN", "canary")
    lines = call("shell", {"cmd": "env", "env": {"N": 5}})["stdout"].splitlines()
    assert "N=5" in lines
    assert "CALLBOARD_IDEMPOTENCY_KEY=7:probe:1:-1" in lines
    assert not [line for line in lines if "canary" in line]


def test_stops_at_the_first_failure(fail: Any) -> None:
    error = fail("shell", {"cmds": ["echo out", "echo why >&2; exit 3", "echo never"]})
    assert error.kind == "exit"
    assert error.message == "command 2 exited with code 3\nwhy"
    assert error.error_code == "3"
    assert [entry["returncode"] for entry in error.data["commands"]] == [0, 3]
    assert error.data["stdout"] == "out\n"


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        pytest.param({"cmd": "kill -9 $$"}, "exit", "SIGKILL", id="killed"),
        pytest.param({"cmd": "no-such-program"}, "exit", "127", id="unknown program"),
        pytest.param(
            {"cmd": "x", "shell": "/nope"}, "exit", "/nope could not be started", id="no shell"
        ),
        pytest.param({"cmd": "x", "cwd": "/nope"}, "exit", "/nope", id="no folder"),
        pytest.param({"cmd": "sleep 60", "timeout": 0.2}, "timeout", "seconds", id="too long"),
        pytest.param(
            {"cmds": ["true", "trap '' TERM; while :; do :; done"], "timeout_seconds": 0.3},
            "timeout",
            "seconds",
            id="all programs share the time",
        ),
    ],
)
def test_trouble(fail: Any, config: dict[str, Any], kind: str, words: str) -> None:
    error = fail("shell", config)
    assert error.kind == kind
    assert words in error.message


def test_cancel(fail: Any) -> None:
    cancelled = threading.Event()
    error = fail(
        "shell",
        {"cmd": "echo started; sleep 60"},
        cancelled=cancelled,
        log=lambda *_: cancelled.set(),
    )
    assert error.kind == "cancelled"


def test_what_it_started_is_gone_when_it_returns(call: Any) -> None:
    pid = int(call("shell", {"cmd": "setsid sleep 600 & echo $!"})["stdout"])
    assert not psutil.pid_exists(pid)


def test_stdin_is_empty_and_broken_pipes_are_silent(call: Any) -> None:
    result = call("shell", {"cmd": "cat; yes | head -1"})
    assert (result["stdout"], result["stderr"]) == ("y\n", "")
