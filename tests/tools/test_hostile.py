"""Programs that mean no good: each gets one clear error, and the next step does not notice."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.errors import ToolError
from app.settings import Settings
from app.tools import Context
from app.tools.child.launcher import Launcher, launcher
from app.tools.child.modules import FULL, LIGHT
from app.tools.child.run import _spare

SYSTEM_PYTHON = "/usr/bin/python3"


def wait_until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


MEMORY = 256 * 1024**2

HOSTILE = [
    pytest.param("import os; os._exit(3)", "exit", "exited with code 3", id="os._exit"),
    pytest.param("import os; os._exit(0)", "exit", "before it gave its result", id="os._exit(0)"),
    pytest.param("import sys; sys.exit(4)", "exit", "exited with code 4", id="sys.exit"),
    pytest.param(
        "import sys; sys.exit('no')", "exit", "exited with code 1\nno", id="sys.exit text"
    ),
    pytest.param("import ctypes; ctypes.string_at(0)", "exit", "SIGSEGV", id="segfault"),
    pytest.param("import os; os.abort()", "exit", "SIGABRT", id="abort"),
    pytest.param("import os; os.kill(os.getpid(), 9)", "exit", "SIGKILL", id="kills itself"),
    pytest.param("import os; os.killpg(0, 9)", "exit", "SIGKILL", id="kills its group"),
    pytest.param("while True: pass", "timeout", "was killed", id="never ends"),
    pytest.param(
        "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "timeout",
        "was killed",
        id="ignores SIGTERM",
    ),
    pytest.param("def f(): f()\nf()", "exception", "RecursionError", id="recursion"),
    pytest.param("x = ' ' * 10 ** 10", "resource", "CALLBOARD_PYTHON_MEMORY", id="10 GB at once"),
    pytest.param(
        "x = []\nwhile True: x.append(bytearray(1 << 24))",
        "resource",
        "MemoryError",
        id="10 GB in pieces",
    ),
    pytest.param(
        "result = 'x' * 20_000_000", "resource", "CALLBOARD_RESULT_BYTES", id="huge result"
    ),
    pytest.param(
        "import os; os.closerange(0, 256)\nresult = 1",
        "exit",
        "before it gave its result",
        id="closes descriptors",
    ),
    pytest.param(
        "import sys; sys.stdout.close(); 1 / 0",
        "exception",
        "ZeroDivisionError",
        id="closes stdout",
    ),
    pytest.param(
        "import sys; sys.stdout = sys.stderr = None; 1 / 0",
        "exception",
        "ZeroDivisionError",
        id="stdout is None",
    ),
    pytest.param(
        "raise ValueError('\\udc80')",
        "exception",
        "ValueError: \\udc80",
        id="invalid Unicode in an error",
    ),
    pytest.param(
        "raise ValueError('x' * 10 ** 7)", "exception", "ValueError: xxx", id="a 10 MB message"
    ),
    pytest.param(
        "class E(Exception):\n  def __str__(self): raise E()\nraise E()",
        "exception",
        "could not be read",
        id="an error that cannot be shown",
    ),
    pytest.param("raise KeyboardInterrupt", "exception", "KeyboardInterrupt", id="BaseException"),
    pytest.param("raise GeneratorExit", "exception", "GeneratorExit", id="GeneratorExit"),
    pytest.param(
        "import os; os.write(3, b'garbage that is no message')\nos._exit(0)",
        "exit",
        "before it gave its result",
        id="writes on our channel",
    ),
    pytest.param(
        "import os; os.write(3, b'E' + bytes(7) + b'\\x02{}')",
        "exit",
        "answered nothing readable",
        id="forges an answer",
    ),
    pytest.param(
        "import os; os.write(3, b'R' + bytes(7) + b'\\x01{')",
        "exit",
        "answered nothing readable",
        id="forges a result",
    ),
    pytest.param(
        "import shutil, os; shutil.rmtree(os.getcwd(), ignore_errors=True); 1 / 0",
        "exception",
        "ZeroDivisionError",
        id="removes its folder",
    ),
    pytest.param("x = '(' * 100_000\neval(x)", "exception", "", id="nested too deep to parse"),
    pytest.param(
        "x = {}\nfor _ in range(100_000): x = {'x': x}\nresult = x",
        "schema",
        "nested too deep",
        id="nested too deep to encode",
    ),
    pytest.param(
        "open('f', 'wb').truncate(10 ** 10)", "exception", "File too large", id="10 GB file"
    ),
]


@pytest.fixture
def small(context: Context) -> Settings:
    """Limits that are reached in no time."""
    return replace(context.settings, python_memory=MEMORY, result_bytes=10_000_000)


@pytest.mark.parametrize(("code", "kind", "words"), HOSTILE)
def test_gets_a_clear_error_and_the_next_step_is_fine(
    request: pytest.FixtureRequest, small: Settings, code: str, kind: str, words: str
) -> None:
    call, fail = request.getfixturevalue("call"), request.getfixturevalue("fail")
    # Those that never end get little time, the others as much as a busy machine needs.
    config = {"code": code, "timeout": 0.5 if kind == "timeout" else 60}
    error = fail("python", config, settings=small)
    assert error.kind == kind
    assert words in error.message
    assert len(error.message) < 6000
    assert call("python", {"code": "result = 1"}) == 1


def test_100_mb_of_output_are_dropped_and_said_so(call: Any, context: Context, output: Any) -> None:
    settings = replace(context.settings, output_bytes=10_000)
    before = psutil.Process().memory_info().rss
    code = "for _ in range(1000): print('x' * 99_999)\nresult = 'done'"
    assert call("python", {"code": code}, settings=settings) == "done"
    kept = output.text("stdout")
    assert kept.startswith("xxx")
    assert "99990000 more bytes of stdout were dropped" in kept
    assert len(kept) < 10_200
    assert psutil.Process().memory_info().rss - before < 50_000_000


def test_invalid_unicode_in_output_is_replaced(call: Any) -> None:
    code = "import os\nos.write(1, b'\\xff\\xfeok')\nprint('\\udc80')"
    assert call("python", {"code": code})["stdout"] == "��ok\\udc80\n"


LEFT_BEHIND = {
    "a background process": "if os.fork() == 0: stay()",
    "a daemon": (
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: stay()\n  wait()\n  os._exit(0)\nos.wait()"
    ),
    "a daemon that leaves the reaper": (
        "import ctypes; ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)\n"
        "if os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0: stay()\n  wait()\n  os._exit(0)\nos.wait()"
    ),
    "a tree of sessions": (
        "for _ in range(3):\n  if os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork(): stay()\n    os.setsid()\n    stay()"
    ),
    "one that ignores signals": (
        "import signal\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nif os.fork() == 0: stay()"
    ),
}


@pytest.mark.parametrize("way", LEFT_BEHIND.values(), ids=LEFT_BEHIND)
@pytest.mark.parametrize("end", ["", "os._exit(3)", "while True: pass"])
def test_no_process_is_left_behind(call: Any, tmp_path: Path, way: str, end: str) -> None:
    stop = threading.Event()
    head = (
        "import os, time\n"
        "def stay():\n  open(f'{here}/{os.getpid()}', 'w').close()\n  time.sleep(600)\n"
        "def wait():\n  while not os.listdir(here): time.sleep(0.01)\n"
    )
    body = f"{way}\nwait()\nprint('ready')\n{end}"

    def log(_stream: str, text: str) -> None:
        if "ready" in text and end.startswith("while"):
            stop.set()

    with contextlib.suppress(ToolError):  # how it ends is the other tests' matter
        config = {"code": head + body, "input": {"here": str(tmp_path)}}
        call("python", config, cancelled=stop, log=log)
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert pids
    wait_until(lambda: all(is_gone(pid) for pid in pids))
    assert call("python", {"code": "result = 1"}) == 1


def test_the_fork_server_dying_is_told_and_repaired(call: Any, fail: Any) -> None:
    steps: list[int] = []

    def kill_parent(_stream: str, text: str) -> None:
        steps.append(int(text))
        os.kill(psutil.Process(steps[0]).ppid(), 9)

    code = "import os, time\nprint(os.getpid())\ntime.sleep(600)"
    error = fail("python", {"code": code}, log=kill_parent)
    assert (error.kind, error.retryable) == ("exit", True)
    (step,) = steps
    wait_until(lambda: is_gone(step))
    assert call("python", {"code": "result = 1"}) == 1


def test_the_fork_server_dying_between_steps_is_not_noticed(call: Any) -> None:
    call("python", {"code": "result = 1"})
    zygote = launcher.zygote(LIGHT)
    spares = [child.pid for child in psutil.Process(zygote.pid).children()]
    os.kill(zygote.pid, 9)
    # A spare that still lives could take the job and die with it, which is a retryable error.
    wait_until(lambda: all(is_gone(pid) for pid in (zygote.pid, *spares)))
    assert call("python", {"code": "result = 2"}) == 2
    assert call("python", {"code": "result = 3"}) == 3
    assert launcher.zygote(LIGHT).pid != zygote.pid


def test_a_stopped_fork_server_does_not_stop_the_worker(
    call: Any, fail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.tools.child.run.PATIENCE", 0.2)
    stopped = threading.Event()

    def stop_parent(_stream: str, text: str) -> None:
        os.kill(psutil.Process(int(text)).ppid(), 19)
        stopped.set()

    code = "import os\nprint(os.getpid())\nwhile True: pass"
    error = fail("python", {"code": code}, cancelled=stopped, log=stop_parent)
    assert error.kind == "cancelled"
    assert call("python", {"code": "result = 1"}) == 1


def test_a_waiting_child_that_died_is_passed_over(call: Any) -> None:
    call("python", {"code": "result = 1"})
    zygote = launcher.zygote(LIGHT)
    wait_until(lambda: bool(psutil.Process(zygote.pid).children()))
    for child in psutil.Process(zygote.pid).children():
        child.kill()
    # Not waiting for their end: a job may just be on its way to one.
    assert [call("python", {"code": f"result = {n}"}) for n in range(4)] == [0, 1, 2, 3]


def test_everything_ends_with_the_worker(tmp_path: Path) -> None:
    code = f"import os, time; open('{tmp_path}/' + str(os.getpid()), 'w').close(); time.sleep(600)"
    worker = textwrap.dedent(f"""
        from pathlib import Path
        from app.settings import load
        from app.tools import Context, load_tool
        context = Context(1, "s", 1, -1, 1, load({{}}).settings, 600.0, Path("/nonexistent"))
        tool = load_tool("python")
        tool.run(tool.input(code={code!r}), context)
    """)
    process = subprocess.Popen([sys.executable, "-c", worker])
    try:
        wait_until(lambda: any(tmp_path.iterdir()))
        (step,) = [int(path.name) for path in tmp_path.iterdir()]
        zygote = psutil.Process(step).ppid()
        folder = Path(f"/proc/{step}/cwd").readlink()
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: is_gone(step) and is_gone(zygote))
    wait_until(lambda: not folder.parent.exists())


def test_its_parents_show_no_secret_in_their_environment(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher.close()
    monkeypatch.setenv("CALLBOARD_WORKER_TOKEN", "canary")
    # As a user of its own the step may not even look.
    code = (
        "import os\ntry:\n  result = open(f'/proc/{os.getppid()}/environ').read()\n"
        "except PermissionError:\n  result = 'refused'"
    )
    assert "canary" not in call("python", {"code": code})


def test_waiting_children_are_used_once(context: Context) -> None:
    spare, other = _spare(LIGHT), _spare(LIGHT)
    try:
        assert spare.pid != other.pid
    finally:
        for fd in (*spare.descriptors, *other.descriptors):
            os.close(fd)
    wait_until(lambda: is_gone(spare.pid) and is_gone(other.pid))


def test_expensive_modules_are_loaded_where_the_program_names_them(call: Any) -> None:
    look = "import sys\nresult = 'urllib.request' in sys.modules"
    assert call("python", {"code": look.replace("urllib.request", "urllib.' + 'request")})
    assert not call("python", {"code": look.replace("urllib.request", "url' + 'lib.request")})
    assert set(LIGHT) < set(FULL)


def test_no_descriptor_is_left_open(call: Any, fail: Any) -> None:
    def used() -> int:
        return psutil.Process().num_fds()

    call("python", {"code": "result = 1"})
    before = used()
    for _ in range(10):
        call("python", {"code": "result = 1"})
        fail("python", {"code": "1 / 0"})
    assert used() == before


def test_the_folders_of_steps_are_emptied(call: Any) -> None:
    call("python", {"code": "import os\nfor n in range(50): os.makedirs(f'a/{n}')"})
    base = launcher.zygote(LIGHT).base
    wait_until(lambda: not [p for folder in base.iterdir() for p in folder.iterdir()])


@pytest.fixture
def dropping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Steps run with users of their own: needs root, and a Python that everybody can read."""
    if os.geteuid() != 0 or not Path(SYSTEM_PYTHON).exists():
        pytest.skip("needs root and a system Python")
    own = Launcher(shutil.which(SYSTEM_PYTHON) or SYSTEM_PYTHON)
    monkeypatch.setattr("app.tools.child.run.launcher", own)
    if reason := own.zygote(LIGHT).keeps_user_because:
        own.close()
        pytest.skip(reason)
    yield
    own.close()


@pytest.mark.usefixtures("dropping")
class TestWithAUserOfItsOwn:
    def test_a_step_is_nobody(self, call: Any) -> None:
        code = "import os\nresult = [os.getuid(), os.geteuid(), os.getgroups(), os.getuid() - os.getpid()]"
        uid, effective, groups, offset = call("python", {"code": code})
        assert uid == effective > 0
        assert (groups, offset) == ([], 1_000_000_000)

    def test_it_writes_its_folder_and_nothing_of_the_workers(
        self, call: Any, fail: Any, tmp_path: Path
    ) -> None:
        assert call("python", {"code": "result = open('f', 'w').write('x')"}) == 1
        tmp_path.chmod(0o755)
        error = fail("python", {"code": f"open('{tmp_path}/f', 'w')"})
        assert error.message.startswith("PermissionError")

    def test_it_cannot_read_the_workers_environment_or_kill_it(self, fail: Any) -> None:
        for code in (
            f"open('/proc/{os.getpid()}/environ').read()",
            f"import os; os.kill({os.getpid()}, 15)",
            "import os; os.kill(os.getppid(), 9)",
        ):
            assert fail("python", {"code": code}).message.startswith("PermissionError")

    def test_it_sees_its_own_proc(self, call: Any) -> None:
        assert call("python", {"code": "import os\nresult = len(os.listdir('/proc/self/fd')) > 2"})

    def test_a_fork_bomb_hits_its_limit(self, call: Any, fail: Any) -> None:
        bomb = "import os, time\nwhile True:\n  if os.fork() == 0: time.sleep(60)"
        error = fail("python", {"code": bomb})
        assert "BlockingIOError" in error.message
        assert call("python", {"code": "result = 1"}) == 1

    def test_shell_programs_share_their_folder(self, call: Any) -> None:
        programs = ["mkdir d; echo one > d/f; id -u", "echo two >> d/f; cat d/f"]
        assert call("shell", {"cmds": programs})["commands"][1]["stdout"] == "one\ntwo\n"
