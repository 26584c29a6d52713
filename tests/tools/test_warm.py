"""Runs of one step may share a process one after the other, where nothing is left behind."""

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
from app.tools.child.warm import Warm
from tests.tools.conftest import Output
from tests.waits import until

PID = "import os\nreturn os.getpid()"


@pytest.fixture
def warm() -> Iterator[Warm]:
    made = Warm(4, 60.0)
    yield made
    made.close()


@pytest.fixture
def loop(context: Context, warm: Warm) -> Context:
    return replace(context, lodge=warm.lodge("7/each"))


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
        pytest.param("os.umask(0)", id="a mask"),
        pytest.param("import signal; signal.alarm(60)", id="an alarm"),
        pytest.param("import signal; signal.signal(signal.SIGTERM, print)", id="a handler"),
        pytest.param("import builtins; builtins.copyright = None", id="another builtin"),
        pytest.param("import builtins; builtins.mine = 1", id="one builtin more"),
        pytest.param("import sys; sys.setrecursionlimit(5000)", id="another limit"),
        pytest.param("import sys; sys.setprofile(lambda *_: None)", id="a profiler"),
        pytest.param("os.environ = os.environ.copy()", id="another environment"),
        # Whatever may still call these functions finds the names that they need.
        pytest.param("import sys\nn = 1\nsys.setprofile(lambda *_: n)", id="a profiler's names"),
        pytest.param(
            "import sys\nn = 1\nsys.settrace(lambda *_: n and None)", id="a tracer's names"
        ),
        pytest.param(
            "import builtins\nreal = map\nbuiltins.map = lambda *args: real(*args)",
            id="a builtin's names",
        ),
    ],
)
def test_who_leaves_something_behind_is_the_last(loop: Context, left: str) -> None:
    first = run(loop, f"import os\n{left}\nreturn os.getpid()")
    second = run(loop, PID)
    assert second != first
    assert run(loop, PID) == second


def test_a_failure_is_the_last(loop: Context, warm: Warm) -> None:
    with pytest.raises(ToolError, match="ZeroDivisionError"):
        run(loop, "1 / 0")
    with pytest.raises(ToolError, match="exited with code 3"):
        run(loop, "import os\nos._exit(3)")
    with pytest.raises(ToolError, match="exited with code 4"):
        run(loop, "raise SystemExit(4)")
    assert len(warm) == 0
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


def test_each_hears_what_python_says_of_its_program(loop: Context) -> None:
    """Which is said when it is compiled: what is kept for the next run would have said it once."""
    code = "import os\nassert (1, 'always true')\nreturn os.getpid()"
    pids = set()
    for _ in range(3):
        output = Output()
        pids.add(run(replace(loop, log=output.log), code))
        assert output.text("stderr").count("SyntaxWarning: assertion is always true") == 1
    assert len(pids) == 1


def test_what_functions_keep_is_forgotten(loop: Context) -> None:
    code = """
import os
def count(seen=[]):
    seen.append(1)
    count.times = getattr(count, "times", 0) + 1
    return [os.getpid(), len(seen), count.times]
count()
return count()
"""
    found = [run(loop, code) for _ in range(3)]
    assert found == [[found[0][0], 2, 2]] * 3


def test_a_process_that_died_while_it_waited_is_replaced(loop: Context) -> None:
    first = run(loop, PID)
    os.kill(first, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{first}").exists())
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


def test_randomness_and_precision_begin_anew(loop: Context) -> None:
    code = """
import decimal, os, random
found = [os.getpid(), random.random(), str(decimal.Decimal(1) / 3)]
random.seed(1)
decimal.getcontext().prec = 3
return found
"""
    first, second = run(loop, code), run(loop, code)
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert first[2] == second[2]


def test_each_step_has_its_own(context: Context, warm: Warm) -> None:
    one, two = (replace(context, lodge=warm.lodge(name)) for name in ("7/a", "8/a"))
    first = run(one, PID)
    assert run(two, PID) != first
    assert run(one, PID) == first


def test_the_longest_waiting_give_way(context: Context, warm: Warm) -> None:
    places = [replace(context, lodge=warm.lodge(f"7/{number}")) for number in range(6)]
    pids = [run(place, PID) for place in places]
    assert len(warm) == 4
    assert run(places[5], PID) == pids[5]
    assert run(places[2], PID) == pids[2]
    assert run(places[0], PID) != pids[0]
    until(lambda: not Path(f"/proc/{pids[0]}").exists())


def test_none_waits_for_ever(context: Context) -> None:
    warm = Warm(4, 0.05)
    loop = replace(context, lodge=warm.lodge("7/each"))
    pid = run(loop, PID)
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert len(warm) == 0
    assert run(loop, PID) != pid


def test_none_runs_for_ever(loop: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.tools.child.warm.RUNS", 3)
    pids = [run(loop, PID) for _ in range(6)]
    assert pids[:3] == [pids[0]] * 3
    assert pids[3:] == [pids[3]] * 3
    assert pids[0] != pids[3]


def test_another_program_of_the_step_has_its_own(loop: Context) -> None:
    first = run(loop, PID)
    assert run(loop, f"{PID}  # another") != first
    assert run(loop, PID) == first


def test_each_is_told_its_own_job(loop: Context) -> None:
    code = "import os\nreturn [os.getpid(), m.__name__, execution_id, idempotency_key, i, context['v']]"
    first = replace(loop, variables={"v": 1})
    second = replace(loop, execution_id=8, iteration=3, variables={"v": 2})
    told = [
        run(context, code, input={"i": i}, libs={"m": module})
        for i, context, module in [(1, first, "json"), (2, second, "json"), (3, first, "math")]
    ]
    assert [each[1:] for each in told] == [
        ["json", str(loop.execution_id), first.idempotency_key, 1, 1],
        ["json", "8", second.idempotency_key, 2, 2],
        ["math", str(loop.execution_id), first.idempotency_key, 3, 1],
    ]
    assert told[0][0] == told[1][0] != told[2][0]


def test_who_was_told_a_secret_shares_with_nobody(context: Context, warm: Warm) -> None:
    told = False
    place = replace(context, lodge=warm.lodge("7/a", lambda: told))
    first = run(place, PID)
    told = True
    assert run(place, PID) != first
    told = False
    assert run(place, PID) == first


def test_last_words_are_heard_and_what_they_leave_is_seen(loop: Context) -> None:
    words = """
import os
class Last:
    def __del__(self):
        print("bye", end="")
kept = Last()
return os.getpid()
"""
    output = Output()
    first = run(replace(loop, log=output.log), words)
    assert output.text("stdout") == "bye"
    assert run(loop, words) == first
    left = words.replace('print("bye", end="")', 'open("left", "w").close()')
    second = run(loop, left)
    assert run(loop, left) != second


def test_a_program_that_removes_its_own_module_has_its_result(loop: Context) -> None:
    code = "import sys\nfor name in ('__main__', 'step'):\n    sys.modules.pop(name)\nresult = 7"
    assert [run(loop, code) for _ in range(3)] == [7, 7, 7]


def test_where_none_may_wait_each_is_fresh(context: Context) -> None:
    assert Warm(0, 60.0).lodge("7/a") is None
    cold = replace(context, lodge=None)
    assert run(cold, PID) != run(cold, PID)
