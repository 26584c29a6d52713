from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.tools.child.launcher import launcher
from tests.tools.conftest import Known
from tests.waits import until


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
        pytest.param({"cmd": "x", "cwd": "/nope"}, "not_found", "/nope", id="no folder"),
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


def test_the_cluster_is_told_of(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher.close()  # the environment is that of its start
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert call("shell", {"cmd": "echo $KUBERNETES_SERVICE_HOST"})["stdout"] == "10.0.0.1\n"
    launcher.close()


def test_inputs_are_variables(call: Any) -> None:
    given = {"name": "$(id) 'x'", "list": [1, None], "n": 5, "odd-name": "y", "none": None}
    cmd = 'echo "$INPUT_NAME|$INPUT_LIST|$INPUT_N|$INPUT_ODD_NAME|${INPUT_NONE-unset}"'
    assert call("shell", {"cmd": cmd, "input": given})["stdout"] == (
        "$(id) 'x'|[1, null]|5|y|unset\n"
    )


def test_another_shell_with_options(call: Any, fail: Any) -> None:
    assert call("shell", {"cmd": "[[ a == a ]] && echo $0", "shell": "bash"})["returncode"] == 0
    error = fail("shell", {"cmd": "false; echo never", "shell": "sh -e"})
    assert error.data["stdout"] == ""


def test_without_capture_only_the_log_has_the_output(call: Any, output: Any) -> None:
    result = call("shell", {"cmd": "echo hi", "capture": False})
    assert (result["stdout"], result["commands"][0]["stdout"]) == ("", "")
    assert output.text("stdout") == "hi\n"


def test_fields_of_credentials_are_variables(call: Any) -> None:
    secrets = Known({"api": '{"token": "canary-token", "more": {"deep": [1]}}'}, {"api": "bearer"})
    show = "env | grep -E '^(AUTH|AWS)' | sort"
    found = call("shell", {"cmd": show, "auth": "api"}, secrets=secrets)["stdout"].splitlines()
    assert found == ["AUTH_MORE_DEEP=[1]", "AUTH_TOKEN=canary-token", "AUTH_TYPE=bearer"]
    auth = {"api": {"credential": "api"}, "s3": {"access_key_id": "A", "secret_access_key": "B"}}
    found = call("shell", {"cmd": show, "auth": auth}, secrets=secrets)["stdout"].splitlines()
    assert "AUTH_API_TOKEN=canary-token" in found
    assert "AWS_ACCESS_KEY_ID=A" in found


def test_a_key_file_is_private_and_gone_afterwards(call: Any) -> None:
    auth = {"type": "service_account", "client_email": "a@b", "private_key": "canary-key"}
    cmd = "f=$GOOGLE_APPLICATION_CREDENTIALS; stat -c %a $f; grep -c canary-key $f; ls -A; echo $f"
    mode, count, *rest = call("shell", {"cmd": cmd, "auth": auth})["stdout"].splitlines()
    assert (mode, count) == ("600", "1")
    (path,) = rest  # and not in the folder it works in
    assert not Path(path).is_relative_to(tempfile.gettempdir() + "/callboard-shell")
    until(lambda: not Path(path).exists())


def test_programs_are_on_nobodys_command_line(call: Any) -> None:
    """Their rendered text may hold what no list of processes should show."""
    cmd = "cat /proc/$$/cmdline | tr '\\0' ' '  # canary"
    assert "canary" not in call("shell", {"cmd": cmd})["stdout"]


def test_long_programs_run(call: Any) -> None:
    assert call("shell", {"cmd": f"echo ok\n# {'x' * 300_000}"})["stdout"] == "ok\n"
