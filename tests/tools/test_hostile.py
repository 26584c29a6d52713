"""Programs that mean no good: each gets one clear error, and the next step does not notice."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.errors import ToolError
from app.settings import Settings
from app.tools import Context
from app.tools.child.launcher import Launcher, launcher, sweep
from app.tools.child.modules import FULL, LIGHT
from app.tools.child.run import _spare
from tests.waits import until

SYSTEM_PYTHON = "/usr/bin/python3"


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def left_of(step: int) -> list[int]:
    """The living processes of the session that *step* led."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(pid) == step and not is_gone(pid):
                found.append(pid)
    return found


TELL_PID = "import os; os.write(1, b'%d\\n' % os.getpid())"
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
    pytest.param("import os; os.kill(os.getpid(), 19)", "timeout", "was killed", id="stops itself"),
    pytest.param(
        "import threading\ndef f():\n  while True: pass\nthreading.Thread(target=f).start()",
        "timeout",
        "was killed",
        id="a thread that never ends",
    ),
    pytest.param(
        "import atexit, time; atexit.register(time.sleep, 600)\nresult = 1",
        "timeout",
        "was killed",
        id="an exit handler that never ends",
    ),
    pytest.param(
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(600,)).start()",
        "exception",
        "can't start new thread",
        id="threads without end",
    ),
    pytest.param(
        "import json; json.loads('[' * 10 ** 6)",
        "exception",
        "RecursionError",
        id="JSON too deep to read",
    ),
    pytest.param(
        "def main():\n  while True: yield ' ' * 1000",
        "resource",
        "MemoryError",
        id="endless results",
    ),
    pytest.param(
        "async def f(): pass\nresult = f()", "schema", "nobody awaited", id="a coroutine as result"
    ),
    pytest.param(
        "result = {'x': float('nan')}", "schema", "result['x'] is NaN", id="NaN in the result"
    ),
    pytest.param("result = []; result.append(result)", "schema", "Circular", id="a circle"),
    pytest.param(
        "result = {'\\udc80': 1}", "schema", "not valid Unicode", id="invalid Unicode in a key"
    ),
    pytest.param("result = 10 ** 400", "schema", "as text", id="a number that no float holds"),
    pytest.param(
        "result = 10 ** 5000", "schema", "integer string conversion", id="a number of 5000 digits"
    ),
    pytest.param("input()", "exception", "EOFError", id="reads stdin"),
    pytest.param(
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "exception",
        "not allowed",
        id="raises its own limits",
    ),
    pytest.param(
        "files = []\nwhile True: files.append(open('/dev/null'))",
        "exception",
        "Too many open files",
        id="opens files without end",
    ),
    pytest.param(
        "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')",
        "exception",
        "PermissionError",
        id="reads its parent's memory",
    ),
    pytest.param(
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.ptrace(16, os.getppid(), 0, 0): raise OSError(ctypes.get_errno(), 'no ptrace')",
        "exception",
        "PermissionError",
        id="traces its parent",
    ),
    pytest.param(
        "import os\nos.write(3, b'R' + bytes([255] * 8))\nwhile True: os.write(3, bytes(65536))",
        "timeout",
        "was killed",
        id="an answer without end",
    ),
    pytest.param(
        "import os; os.close(3)\nwhile True: pass", "timeout", "was killed", id="closes our channel"
    ),
    pytest.param(
        "import os, signal; signal.alarm(1)\nwhile True: pass", "exit", "SIGALRM", id="an alarm"
    ),
    pytest.param(
        "import builtins; builtins.len = builtins.list = None\n1 / 0",
        "exit",
        "exited with code 1",
        id="takes the builtins away",
    ),
    pytest.param(
        "import multiprocessing as m, time\nm.Process(target=time.sleep, args=(600,)).start()",
        "timeout",
        "was killed",
        id="a worker process that never ends",
    ),
    pytest.param(
        "import sys; sys.exit(object)", "exit", "exited with code 1", id="sys.exit with an object"
    ),
    pytest.param("import sys\ndef main(): sys.exit(-1)", "exit", "code 255", id="sys.exit in main"),
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
    output = request.getfixturevalue("output")
    # Those that never end get little time, the others as much as a busy machine needs.
    config = {"code": f"{TELL_PID}\n{code}", "timeout": 0.5 if kind == "timeout" else 60}
    error = fail("python", config, settings=small)
    assert error.kind == kind
    assert words in error.message
    assert len(error.message) < 6000
    assert call("python", {"code": "result = 1"}) == 1
    pid = int(output.text("stdout").partition("\n")[0])
    until(lambda: not left_of(pid), seconds=5)


FORGED = """
import json, os, struct
text = json.dumps({"kind": "k" * 100_000, "message": "m" * 5_000_000, "py": {"exception": "e" * 9}})
os.write(3, struct.pack("!cQ", b"E", len(text)))
rest = text.encode()
while rest: rest = rest[os.write(3, rest):]
os._exit(0)
"""


def test_an_error_that_a_program_makes_up_is_bounded(fail: Any) -> None:
    error = fail("python", {"code": FORGED})
    assert len(error.message) <= 4_096
    assert len(str(error.to_dict())) < 6_000


def test_what_a_fork_server_left_that_was_killed_with_its_worker_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys that a step was given are in files there."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = ("callboard-children-1", "callboard-children-2", "other")
    left, fresh, other = (tmp_path / name for name in names)
    for folder in (left, fresh, other):
        (folder / "1").mkdir(parents=True)
        (folder / "1" / ".key-0").write_text("canary")
    own = Launcher()
    held = own.zygote(LIGHT).base
    for folder in (left, other, held):
        os.utime(folder, (0, 0))
    sweep()
    try:
        assert [folder.exists() for folder in (left, fresh, other, held)] == [False, *[True] * 3]
    finally:
        own.close()
    assert not held.exists()


def test_there_are_forty_of_them() -> None:
    assert len({param.values[0] for param in HOSTILE}) >= 40


OWN_BUSINESS = [
    pytest.param(
        "import json; json.dumps = json.loads = None\nresult = {'a': 1}", {"a": 1}, id="json"
    ),
    pytest.param("def main():\n  yield 1\n  yield 2", [1, 2], id="a generator"),
    pytest.param("result = map(str, [1])", ["1"], id="a lazy sequence"),
    pytest.param("import sys\nresult = 3\nsys.exit(0)", 3, id="sys.exit(0)"),
    pytest.param("import sys\nresult = 3\nsys.exit(None)", 3, id="sys.exit(None)"),
    pytest.param("import sys\nresult = 3\ndef f(): sys.exit()\nf()", 3, id="in a function"),
    pytest.param(
        "import sys\ndef main(): sys.exit(0)", {"stdout": "", "stderr": ""}, id="in main, too"
    ),
    pytest.param("import os; os.environ.clear()\nresult = 1", 1, id="no environment"),
    pytest.param("import sys; sys.modules.clear()\nresult = [1]", [1], id="no modules"),
    pytest.param(
        "import shutil, os; shutil.rmtree(os.path.dirname(os.getcwd()), ignore_errors=True)\nresult = 1",
        1,
        id="removes the folders of all steps",
    ),
    pytest.param(
        "import multiprocessing as m\ndef f(n): return n * n\n"
        "with m.Pool(2) as pool: result = pool.map(f, [1, 2])",
        [1, 4],
        id="a pool of processes",
    ),
    pytest.param(
        "import os\nopen('/proc/self/oom_score_adj', 'w').write('1000')\nresult = 1",
        1,
        id="dies first",
    ),
]


@pytest.mark.parametrize(("code", "expected"), OWN_BUSINESS)
def test_what_only_hurts_itself_is_its_own_business(
    call: Any, output: Any, code: str, expected: Any
) -> None:
    full = "  # a word for the fork server with all modules: asyncio"
    call("python", {"code": f"result = 0{full}"})
    assert call("python", {"code": f"{code}{full}"}) == expected
    # More than there are spares: whatever was done to those that wait, they are used up.
    for tail in ("", full):
        found = [call("python", {"code": f"result = {n}{tail}"}) for n in range(6)]
        assert found == list(range(6))


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
    until(lambda: all(is_gone(pid) for pid in pids))
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
    until(lambda: is_gone(step))
    assert call("python", {"code": "result = 1"}) == 1


def test_the_fork_server_dying_between_steps_is_not_noticed(call: Any) -> None:
    call("python", {"code": "result = 1"})
    zygote = launcher.zygote(LIGHT)
    spares = [child.pid for child in psutil.Process(zygote.pid).children()]
    os.kill(zygote.pid, 9)
    # A spare that still lives could take the job and die with it, which is a retryable error.
    until(lambda: all(is_gone(pid) for pid in (zygote.pid, *spares)))
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
    until(lambda: bool(psutil.Process(zygote.pid).children()))
    for child in psutil.Process(zygote.pid).children():
        # A step that ended may have waited for its burial only.
        with contextlib.suppress(psutil.NoSuchProcess):
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
        until(lambda: any(tmp_path.iterdir()))
        (step,) = [int(path.name) for path in tmp_path.iterdir()]
        zygote = psutil.Process(step).ppid()
        folder = Path(f"/proc/{step}/cwd").readlink()
    finally:
        process.kill()
        process.wait()
    until(lambda: is_gone(step) and is_gone(zygote))
    until(lambda: not folder.parent.exists())


LOOK = """
def look(path):
    try:
        return open(path, 'rb').read().decode()
    except PermissionError:
        return 'refused'
import os
worker = os.environ.get('WORKER', os.getppid())
result = [look(f'/proc/{pid}/environ') for pid in (os.getppid(), worker)]
"""


def test_neither_the_worker_nor_the_fork_server_show_their_environment(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher.close()
    monkeypatch.setenv("CALLBOARD_WORKER_TOKEN", "canary")
    shown = call("python", {"code": LOOK, "env": {"WORKER": str(os.getpid())}})
    assert shown == ["refused", "refused"]


def test_an_ordinary_user_does_not_see_the_environment_of_its_worker(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not Path(SYSTEM_PYTHON).exists():
        pytest.skip("needs root, to become somebody else, and a system Python")
    worker = textwrap.dedent(f"""
        import os, resource, sys
        sys.path[:0] = {[path for path in sys.path if path]!r}
        from pathlib import Path
        from app.settings import load
        from app.tools import Context
        from app.tools.python import tool
        context = Context(1, "s", 1, -1, 1, load({{}}).settings, 60.0, Path("/nonexistent"))
        look = tool.input(code={LOOK!r}, env={{"WORKER": str(os.getpid())}})
        print("canary" in open(f"/proc/{{os.getpid()}}/environ").read())
        print(tool.run(look, context))
        bomb = tool.input(code="import resource\\nresult = resource.getrlimit(resource.RLIMIT_NPROC)")
        print(tool.run(bomb, context)[0] < 100_000)
        print(tool.run(tool.input(code="result = 1"), context))
    """)
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", worker],
        env={"CALLBOARD_WORKER_TOKEN": "canary", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        user=65_534,
        group=65_534,
        extra_groups=[],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if "ModuleNotFoundError" in done.stderr or "ImportError" in done.stderr:
        pytest.skip("the system Python cannot use the installed packages")
    assert done.stdout.splitlines() == ["True", "['refused', 'refused']", "True", "1"], done.stderr


def test_waiting_children_are_used_once(context: Context) -> None:
    spare, other = _spare(LIGHT), _spare(LIGHT)
    try:
        assert spare.pid != other.pid
    finally:
        for fd in (*spare.descriptors, *other.descriptors):
            os.close(fd)
    until(lambda: is_gone(spare.pid) and is_gone(other.pid))


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
    base = str(launcher.zygote(LIGHT).base)
    # os.walk passes over what vanishes while it looks.
    until(lambda: not [at for at, *_ in os.walk(base) if at.count("/") > base.count("/") + 1])


@pytest.fixture
def dropping(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    """Steps run with users of their own: needs root, and a Python that everybody can read."""
    if os.geteuid() != 0 or not Path(SYSTEM_PYTHON).exists():
        pytest.skip("needs root and a system Python")
    own = Launcher(shutil.which(SYSTEM_PYTHON) or SYSTEM_PYTHON)
    monkeypatch.setattr("app.tools.child.run.launcher", own)
    if reason := own.zygote(LIGHT).keeps_user_because:
        own.close()
        pytest.skip(reason)
    yield own
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

    def test_it_cannot_read_what_another_step_wrote(self, call: Any, fail: Any) -> None:
        seen: list[str] = []

        def read(_stream: str, text: str) -> None:
            folder = Path(text.strip())
            seen.append(fail("python", {"code": f"open('{folder}/f').read()"}).message)
            (folder / "seen").touch()

        # Its folder is gone when it ends, so it stays until the other one has looked.
        code = (
            "import os, time\nopen('f', 'w').write('x')\nprint(os.getcwd(), flush=True)\n"
            "while not os.path.exists('seen'): time.sleep(0.01)"
        )
        call("python", {"code": code}, log=read)
        assert seen[0].startswith("PermissionError")

    def test_it_kills_all_it_can_and_that_is_itself(self, call: Any, fail: Any) -> None:
        code = "import os, signal\nif os.fork() == 0: signal.pause()\nos.kill(-1, 9)\nresult = 1"
        assert call("python", {"code": code}) == 1
        assert call("python", {"code": "result = 2"}) == 2

    def test_a_link_in_a_shared_folder_gives_nothing_away(self, call: Any, tmp_path: Path) -> None:
        mine = tmp_path / "mine"
        mine.write_text("x")
        mine.chmod(0o600)
        cmds = [f"ln -s {mine} link; ln -s {tmp_path} folder; mv . ../other || true", "id -u"]
        call("shell", {"cmds": cmds})
        assert (mine.stat().st_uid, tmp_path.stat().st_uid) == (os.geteuid(), os.geteuid())

    def test_in_a_jail_it_has_a_user_of_its_own_too(self, call: Any, dropping: Launcher) -> None:
        if dropping.zygote(LIGHT, jailed=True).no_jail_because:
            pytest.skip("no jail can be had here")
        code = "import os\nresult = [os.getpid(), os.getuid(), os.listdir('/tmp')]"
        pid, uid, files = call("python", {"code": code, "profile": "jail"})
        assert (pid, files) == (2, [])
        assert uid > 1_000_000_000
