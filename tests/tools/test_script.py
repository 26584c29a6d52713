"""The script tool's contract: programs by their place, in the language their name or first line says."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.tools import Context
from tests.tools.conftest import Known


def inline(code: str, **more: Any) -> dict[str, Any]:
    return {"script": {"source": {"type": "inline", "code": code}}, **more}


@pytest.mark.parametrize(
    ("name", "code", "data"),
    [
        pytest.param("p.py", "result = a + 1", 2, id="python by name"),
        pytest.param("p.py", "def main(a): return {'a': a}", {"a": 1}, id="its main"),
        pytest.param("p.py", "print(a)", None, id="without a result"),
        pytest.param("p.sh", "echo $INPUT_A", 1, id="sh by name"),
        pytest.param("p.bash", "[[ a == a ]] && echo '{\"a\": 1}'", {"a": 1}, id="bash by name"),
        pytest.param("p", "#!/bin/sh\necho one; echo '[1]'", [1], id="by its first line"),
        pytest.param("p", "#!/usr/bin/env python3\nresult = a", 1, id="env in its first line"),
        pytest.param("p.txt", "#!/usr/bin/env -S bash -e\nfalse || echo 1", 1, id="with options"),
        pytest.param("p.sh", "echo not JSON", None, id="no data"),
        pytest.param("p.sh", "echo '[1]' > $CALLBOARD_RESULT; echo 2", [1], id="a result file"),
    ],
)
def test_result(call: Any, tmp_path: Path, name: str, code: str, data: Any) -> None:
    place = tmp_path / name
    place.write_text(code)
    config = {"script": {"uri": str(place), "source": {"type": "file"}}, "input": {"a": 1}}
    result = call("script", config)
    assert set(result) == {"exit_code", "stdout", "stderr", "data"}
    assert (result["exit_code"], result["data"]) == (0, data)


def test_the_interpreter_may_be_named(call: Any) -> None:
    assert call("script", inline("echo $0 | wc -l", interpreter="bash"))["data"] == 1
    assert call("script", inline("result = 5", interpreter="python"))["data"] == 5
    assert call("script", inline("set -- {print 7}; echo 7", interpreter="sh -e"))["data"] == 7


def test_settings_of_a_kubernetes_job_have_no_effect(call: Any) -> None:
    config = inline("result = 1", interpreter="python", job={"image": "x", "namespace": "y"})
    assert call("script", config)["data"] == 1


def test_streams_are_kept_apart(call: Any) -> None:
    result = call("script", inline("#!/bin/sh\necho out; echo err >&2"))
    assert (result["stdout"], result["stderr"]) == ("out\n", "err\n")
    result = call(
        "script",
        inline("import sys\nprint('o'); print('e', file=sys.stderr)", interpreter="python"),
    )
    assert (result["stdout"], result["stderr"]) == ("o\n", "e\n")


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        pytest.param({}, "schema", "there is no program", id="no program"),
        pytest.param(inline("echo"), "schema", "give interpreter", id="no interpreter"),
        pytest.param(inline("exit 3", interpreter="sh"), "exit", "code 3", id="an exit code"),
        pytest.param(inline("kill -9 $$", interpreter="sh"), "exit", "SIGKILL", id="a signal"),
        pytest.param(inline("1 / 0", interpreter="python"), "exception", "ZeroDiv", id="python's"),
        pytest.param(inline("x", interpreter="no-such"), "exit", "could not be started", id="none"),
        pytest.param(
            inline("sleep 60", interpreter="sh", timeout=0.2), "timeout", "0.2 seconds", id="time"
        ),
        pytest.param(
            {"script": {"uri": "/no/where.sh"}}, "not_found", "/no/where.sh", id="no file"
        ),
        pytest.param(
            inline("echo { > $CALLBOARD_RESULT", interpreter="sh"),
            "schema",
            "not JSON",
            id="no JSON",
        ),
        pytest.param(
            inline("ln -s /etc/passwd $CALLBOARD_RESULT", interpreter="sh"),
            "schema",
            "cannot be read",
            id="a link as result",
        ),
        pytest.param(
            inline("mkfifo $CALLBOARD_RESULT", interpreter="sh"), "schema", "no file", id="a pipe"
        ),
        pytest.param(inline("echo", interpreter="sh", auth="no"), "auth", "'no'", id="credential"),
    ],
)
def test_trouble(fail: Any, config: dict[str, Any], kind: str, words: str) -> None:
    error = fail("script", config)
    assert error.kind == kind
    assert words in error.message
    assert error.retryable == (kind == "timeout")


def test_files_of_the_worker_are_no_scripts(fail: Any, call: Any, context: Context) -> None:
    """They would be read as the worker's user, who may read more than the step's."""
    home = context.workspace.parent / "home"
    home.mkdir()
    (home / "encryption.keys").write_text("canary")
    (home / "link").symlink_to("/proc/self/environ")
    (home.parent / "way").symlink_to(home)
    settings = replace(context.settings, home=home)
    for place in (
        f"{home}/encryption.keys",
        f"file://{home.parent}/way/encryption.keys",
        f"{home}/../home/link",
        "/proc/self/environ",
    ):
        config = {"script": {"uri": place}, "interpreter": "cat"}
        error = fail("script", config, settings=settings)
        assert error.kind == "auth", place
        assert "canary" not in error.message
    workspace = home / "work"
    workspace.mkdir()
    (workspace / "p.sh").write_text("echo 1")
    config = {"script": {"uri": f"{workspace}/p.sh"}}
    assert call("script", config, settings=settings, workspace=workspace)["data"] == 1


def test_a_failure_keeps_what_there_was(fail: Any) -> None:
    error = fail("script", inline("#!/bin/sh\necho '{\"a\": 1}'; exit 2"))
    assert error.data == {"exit_code": 2, "stdout": '{"a": 1}\n', "stderr": "", "data": {"a": 1}}


def test_a_result_file_above_the_limit_is_refused(fail: Any, context: Context) -> None:
    settings = replace(context.settings, result_bytes=1000)
    config = inline("head -c 2000 /dev/zero > $CALLBOARD_RESULT", interpreter="sh")
    error = fail("script", config, settings=settings)
    assert (error.kind, "CALLBOARD_RESULT_BYTES" in error.message) == ("resource", True)


@pytest.mark.parametrize("profile", ["plain", "jail"])
def test_credentials_and_result_files_work_in_both_profiles(call: Any, profile: str) -> None:
    secrets = Known({"api": '{"token": "canary-token"}'})
    code = (
        '#!/bin/sh\nprintf \'{"token": "%s", "in": "%s"}\' $AUTH_TOKEN $INPUT_A > $CALLBOARD_RESULT'
    )
    config = inline(code, auth="api", input={"a": 5}, profile=profile)
    found = call("script", config, secrets=secrets)
    assert found["data"] == {"token": "canary-token", "in": "5"}


def test_cancel(fail: Any) -> None:
    cancelled = threading.Event()
    config = inline("echo started; sleep 60", interpreter="sh")
    assert (
        fail("script", config, cancelled=cancelled, log=lambda *_: cancelled.set()).kind
        == "cancelled"
    )


def test_nothing_is_left_open(call: Any, fail: Any) -> None:
    config = inline("echo 1", interpreter="sh")
    call("script", config)
    before = len(list(Path("/proc/self/fd").iterdir()))
    call("script", config)
    fail("script", inline("exit 1", interpreter="sh"))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
