"""Short iterations of a loop may run in one process after the other, where nothing is left behind."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.errors import ToolError
from app.tools import Context, load_tool
from app.tools.child.run import Lodge
from tests.tools.conftest import Output
from tests.tools.test_hostile import wait_until

PID = "import os\nreturn os.getpid()"


@pytest.fixture
def lodge() -> Iterator[Lodge]:
    made = Lodge()
    yield made
    made.close()


@pytest.fixture
def loop(context: Context, lodge: Lodge) -> Context:
    return replace(context, lodge=lodge)


def run(context: Context, code: str, **more: Any) -> Any:
    tool = load_tool("python")
    return tool.run(tool.input.model_validate({"code": code, **more}), context)


def test_iterations_share_a_process_and_nothing_else(loop: Context) -> None:
    code = "seen = globals().get('kept')\nkept = i\nimport os\nreturn [os.getpid(), i, seen]"
    found = [run(loop, code, input={"i": i}) for i in range(5)]
    assert len({pid for pid, _, _ in found}) == 1
    assert [(i, seen) for _, i, seen in found] == [(i, None) for i in range(5)]


def test_without_a_lodge_each_has_its_own(context: Context) -> None:
    assert run(context, PID) != run(context, PID)


@pytest.mark.parametrize(
    "left",
    [
        pytest.param("open('left', 'w').close()", id="a file in its folder"),
        pytest.param("kept = open('/dev/null')", id="an open file"),
        pytest.param("os.environ['LEFT'] = '1'", id="a variable"),
        pytest.param("os.chdir('/')", id="another folder"),
        pytest.param("import sys; sys.path.append('/left')", id="a path to import from"),
        pytest.param("import sys; sys.stdout = sys.stderr", id="another stream"),
        pytest.param("import atexit; atexit.register(print, 'bye')", id="an exit handler"),
        pytest.param(
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(0.2,), daemon=True).start()",
            id="a thread",
        ),
        pytest.param("os.posix_spawn('/bin/sleep', ['sleep', '60'], {})", id="a process"),
        pytest.param("kept = bytearray(200_000_000)", id="memory"),
    ],
)
def test_who_leaves_something_behind_is_the_last(loop: Context, left: str) -> None:
    first = run(loop, f"import os\n{left}\nreturn os.getpid()")
    second = run(loop, PID)
    assert second != first
    assert run(loop, PID) == second


def test_a_failure_is_the_last(loop: Context, lodge: Lodge) -> None:
    with pytest.raises(ToolError, match="ZeroDivisionError"):
        run(loop, "1 / 0")
    with pytest.raises(ToolError, match="exited with code 3"):
        run(loop, "import os\nos._exit(3)")
    with pytest.raises(ToolError, match="exited with code 4"):
        run(loop, "raise SystemExit(4)")
    assert lodge.take(None) is None
    assert run(loop, PID) == run(loop, PID)


def test_what_each_prints_is_its_own(loop: Context) -> None:
    for number in range(4):
        output = Output()
        heard = replace(loop, log=output.log)
        assert run(
            heard, "print(i)\nimport sys\nprint('e', i, file=sys.stderr)", input={"i": number}
        ) == {
            "stdout": f"{number}\n",
            "stderr": f"e {number}\n",
        }
        assert output.text("stdout") == f"{number}\n"


def test_a_process_that_died_while_it_waited_is_replaced(loop: Context, lodge: Lodge) -> None:
    first = run(loop, PID)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{first}").exists())
    assert run(loop, PID) != first


def test_time_and_cancellation_end_one_iteration_alone(loop: Context) -> None:
    run(loop, PID)
    with pytest.raises(ToolError) as caught:
        run(loop, "import time\ntime.sleep(60)", timeout=0.3)
    assert caught.value.kind == "timeout"
    stop = threading.Event()
    stop.set()
    with pytest.raises(ToolError) as caught:
        run(replace(loop, cancelled=stop), "import time\ntime.sleep(60)")
    assert caught.value.kind == "cancelled"
    assert run(loop, PID) == run(loop, PID)


def test_what_is_brought_in_needs_a_process_of_its_own(loop: Context) -> None:
    first = run(loop, PID)
    assert run(loop, PID, env={"A": "b"}) != first
    assert run(loop, PID, cwd="/tmp") != run(loop, PID)
