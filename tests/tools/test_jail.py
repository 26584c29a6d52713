"""The profile jail: what a step cannot reach from there, and what goes on as ever."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.settings import load
from app.tools import Context
from app.tools.child.launcher import launcher
from app.tools.child.modules import LIGHT
from tests.tools.test_hostile import is_gone
from tests.waits import until

JAIL = {"profile": "jail"}


@pytest.fixture(scope="module")
def _possible() -> None:
    if reason := launcher.zygote(LIGHT, jailed=True).no_jail_because:
        pytest.skip(reason)


@pytest.fixture(params=["python", "shell"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


pytestmark = pytest.mark.usefixtures("_possible")


@pytest.fixture
def refused(fail: Any) -> Any:
    """``refused(code)``: the message of the error that a jailed program ends with."""
    return lambda code: fail("python", {"code": code, **JAIL}).message


@pytest.fixture
def server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_there_is_no_network(refused: Any, server: int) -> None:
    code = "import socket; socket.create_connection(('127.0.0.1', {}))"
    assert "Network is unreachable" in refused(code.format(server))


def test_there_is_no_socket_of_the_machine(refused: Any) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("\0callboard-test")
        listening.listen()
        code = "import socket; socket.socket(socket.AF_UNIX).connect('\\0callboard-test')"
        assert "ConnectionRefusedError" in refused(code)


def test_other_processes_are_not_there(call: Any) -> None:
    code = (
        "import os\nresult = [os.getpid(), sorted(p for p in os.listdir('/proc') if p.isdigit())]"
    )
    assert call("python", {"code": code, **JAIL}) == [2, ["1", "2"]]


def test_it_can_signal_nobody_but_itself(call: Any) -> None:
    code = "import os\nif os.fork() == 0:\n  while True: pass\nos.kill(-1, 9)\nresult = 1"
    assert call("python", {"code": code, **JAIL}) == 1
    assert call("python", {"code": "result = 2", **JAIL}) == 2


@pytest.mark.parametrize("place", ["/etc", "/var/tmp", "/dev", "/run", "/", "/proc/self"])
def test_it_writes_nowhere_but_in_its_own_folder(refused: Any, place: str) -> None:
    message = refused(f"open('{place}/callboard-test', 'w')")
    assert "Read-only file system" in message or "No such file" in message
    assert not Path(place, "callboard-test").exists()


def test_its_own_folder_is_tmp(call: Any) -> None:
    code = (
        "import os, tempfile\nopen('/tmp/f', 'w').write('x')\n"
        "result = [os.getcwd(), os.listdir('.'), os.environ['HOME'], tempfile.gettempdir()]"
    )
    assert call("python", {"code": code, **JAIL}) == ["/tmp", ["f"], "/tmp", "/tmp"]
    assert not Path("/tmp/f").exists()
    assert call("python", {"code": "import os\nresult = os.listdir('/tmp')", **JAIL}) == []


def test_the_home_of_the_worker_is_empty(call: Any, context: Context) -> None:
    # Not below /tmp, which it does not see anyway.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        Path(home).chmod(0o755)
        Path(home, "key").touch()
        settings = replace(context.settings, home=Path(home))
        code = f"import os\nresult = os.listdir('{home}')"
        assert call("python", {"code": code, **JAIL}, settings=settings) == []
        assert call("python", {"code": code}, settings=settings) == ["key"]


def test_no_disk_is_among_its_devices(call: Any) -> None:
    found = call("python", {"code": "import os\nresult = sorted(os.listdir('/dev'))", **JAIL})
    devices = ["full", "null", "random", "urandom", "zero"]
    assert found == sorted([*devices, "fd", "shm", "stdin", "stdout", "stderr"])
    code = "open('/dev/null', 'w').write('x')\nresult = len(open('/dev/urandom', 'rb').read(8))"
    assert call("python", {"code": code, **JAIL}) == 8


def test_no_privilege_is_left_and_none_comes_back(call: Any) -> None:
    code = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "status = dict(l.split(':', 1) for l in open('/proc/self/status'))\n"
        "result = [int(status[n], 16) for n in ('CapPrm', 'CapEff', 'CapBnd')]\n"
        "result += [int(status['NoNewPrivs']), libc.unshare(0x10000000), libc.unshare(0x20000)]"
    )
    assert call("python", {"code": code, **JAIL}) == [0, 0, 0, 1, -1, -1]


def test_what_covers_a_folder_cannot_be_taken_away(call: Any) -> None:
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "result = [libc.umount2(b'/run', 2), libc.mount(None, b'/', None, 32, None)]"
    )
    assert call("python", {"code": code, **JAIL}) == [-1, -1]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param("import os; os._exit(3)", "exited with code 3", id="its exit code"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "SIGKILL", id="its signal"),
        pytest.param("import os; os.killpg(0, 9)", "SIGKILL", id="its group's signal"),
        pytest.param("import ctypes; ctypes.string_at(0)", "SIGSEGV", id="a crash"),
        pytest.param("1 / 0", "ZeroDivisionError", id="its exception"),
        pytest.param("x = ' ' * 10 ** 10", "CALLBOARD_PYTHON_MEMORY", id="its memory"),
    ],
)
def test_ends_are_told_as_they_are(refused: Any, code: str, words: str) -> None:
    assert words in refused(code)


def test_a_timeout_ends_everything_inside(fail: Any, call: Any) -> None:
    before = set(psutil.pids())
    code = "import os, time\nfor _ in range(3):\n  if os.fork() == 0: os.setsid()\ntime.sleep(600)"
    assert fail("python", {"code": code, "timeout": 0.5, **JAIL}).kind == "timeout"
    zygote = psutil.Process(launcher.zygote(LIGHT, jailed=True).pid)

    def left() -> list[int]:
        # Keeper, process 1 and step of each that waits are all there may be.
        kin = zygote.children(recursive=True)
        return [p.pid for p in kin if p.pid not in before and depth_of(p) > depth_of(zygote) + 3]

    until(lambda: not left(), seconds=5)
    assert call("python", {"code": "result = 1", **JAIL}) == 1


def depth_of(process: psutil.Process) -> int:
    """How many are above it; none where it has ended since it was listed."""
    try:
        return len(process.parents())
    except psutil.NoSuchProcess:
        return 0


def threads_of(process: psutil.Process) -> int:
    """How many it has; none where it has ended since it was listed."""
    try:
        return process.num_threads()
    except psutil.NoSuchProcess:
        return 0


def test_it_dies_with_its_keeper(fail: Any, call: Any) -> None:
    inside: list[int] = []

    def kill_keeper(_stream: str, _text: str) -> None:
        zygote = psutil.Process(launcher.zygote(LIGHT, jailed=True).pid)
        (step,) = [p for p in zygote.children(recursive=True) if threads_of(p) == 3]
        inside.append(step.pid)
        keeper = step.parents()[1]
        keeper.kill()

    code = (
        "import threading, time\nfor _ in range(2):\n"
        "  threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('ready', flush=True)"
    )
    error = fail("python", {"code": code, **JAIL}, log=kill_keeper)
    assert "SIGKILL" in error.message
    until(lambda: is_gone(inside[0]), seconds=5)
    assert call("python", {"code": "result = 1", **JAIL}) == 1


def test_a_signal_to_its_group_does_not_reach_the_keeper(call: Any) -> None:
    code = "import os, signal, time\nsignal.signal(15, signal.SIG_IGN)\nos.killpg(0, 15)\n"
    code += "time.sleep(0.3)  # long enough for the end of the keeper to be seen\nresult = 1"
    assert call("python", {"code": code, **JAIL}) == 1


def test_it_dies_with_the_fork_server(fail: Any, call: Any) -> None:
    inside: list[int] = []

    def kill_server(_stream: str, _text: str) -> None:
        zygote = psutil.Process(launcher.zygote(LIGHT, jailed=True).pid)
        inside.extend(p.pid for p in zygote.children(recursive=True))
        zygote.kill()

    code = "import time\nprint('ready', flush=True)\ntime.sleep(600)"
    assert fail("python", {"code": code, **JAIL}, log=kill_server).retryable
    assert len(inside) >= 3
    until(lambda: all(map(is_gone, inside)), seconds=5)
    assert call("python", {"code": "result = 1", **JAIL}) == 1


def test_a_pool_of_processes_works_inside(call: Any) -> None:
    code = (
        "import multiprocessing as m\ndef f(n): return n * n\n"
        "with m.Pool(2) as pool: result = pool.map(f, [1, 2])"
    )
    assert call("python", {"code": code, **JAIL}) == [1, 4]


def test_shell_programs_share_a_folder_there(call: Any) -> None:
    programs = ["pwd; echo one > f", "echo two >> f; cat f; touch /etc/x || echo no"]
    done = call("shell", {"cmds": programs, **JAIL})["commands"]
    assert [each["stdout"] for each in done] == ["/run/shared\n", "one\ntwo\nno\n"]


def test_keys_are_files_there_too(call: Any) -> None:
    auth = {"type": "service_account", "client_email": "a@b", "private_key": "canary-key"}
    code = "import os, json\nresult = json.load(open(os.environ['GOOGLE_APPLICATION_CREDENTIALS']))"
    found = call("python", {"code": code, "auth": auth, **JAIL})
    assert found["private_key"] == "canary-key"


def test_the_setting_makes_it_the_rule_and_no_step_loosens_it(call: Any) -> None:
    settings = load({"CALLBOARD_PYTHON_PROFILE": "jail"}).settings
    code = {"code": "import os\nresult = os.getpid()"}
    assert call("python", code, settings=settings) == 2
    assert call("python", {**code, "profile": "plain"}, settings=settings) == 2
    assert call("python", code) > 2


def test_where_it_cannot_be_had_it_is_refused(
    fail: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    zygote = launcher.zygote(LIGHT, jailed=True)
    monkeypatch.setattr(zygote, "no_jail_because", "unshare: Operation not permitted")
    error = fail(kind, {"code": "result = 1", "cmds": "true", **JAIL})
    assert (error.kind, error.retryable) == ("resource", False)
    assert "unshare: Operation not permitted" in error.message
    assert "plain" in error.message


WORKER = """
import sys
from pathlib import Path
from app.errors import ToolError
from app.settings import load
from app.tools import Context
from app.tools.python import tool
context = Context(1, "s", 1, -1, 1, load({}).settings, 60.0, Path("/nonexistent"))
try:
    tool.run(tool.input(code="result = 1", profile="jail"), context)
except ToolError as exc:
    print(exc)
print(tool.run(tool.input(code="result = 1"), context))
"""


def test_a_host_that_allows_no_namespaces_is_told_as_the_reason() -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" -c "$1"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, sys.executable, WORKER]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "the profile jail cannot be had on this machine" in done.stdout
    assert "unshare: No space left on device" in done.stdout
    assert done.stdout.endswith("\n1\n")
