"""No orphan, no zombie: servers end with their owner, however that one ends."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from app.embedded.identity import Identity
from app.embedded.process import CANNOT_RUN, Program, ServerProcess, run
from tests.embedded.conftest import Run, ended, eventually, line_of

OWNER = """
import os, signal, sys
from pathlib import Path
from app.embedded.nats import EmbeddedNats
from app.embedded.stack import EmbeddedStack

{start}
sys.stdin.read()
"""
STACK = """
stack = EmbeddedStack(Path(sys.argv[1]), durable=False)
stack.start()
print(stack.postgres.pid, stack.nats.pid, flush=True)
"""
NATS = """
nats = EmbeddedNats(Path(sys.argv[1], "nats"))
nats.start()
print(nats.pid, flush=True)
"""
#: The child inherits the owner's end of the pipe to the guard, so this never sees its end.
FORK = """
nats = EmbeddedNats(Path(sys.argv[1], "nats"))
nats.start()
if os.fork() == 0: signal.pause()
print(nats.pid, flush=True)
"""


def processes_of(home: Path) -> list[psutil.Process]:
    """Every living process that names *home* in its command line or works below it."""
    found = []
    for process in psutil.process_iter():
        try:
            named = any(str(home) in word for word in process.cmdline())
            if (named or process.cwd().startswith(str(home))) and not ended(process.pid):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("number", "start"),
    [
        pytest.param(signal.SIGKILL, STACK, id="killed with -9"),
        pytest.param(signal.SIGTERM, NATS, id="terminated, with no handler for it"),
        pytest.param(signal.SIGKILL, FORK, id="killed with -9 while a forked child lives on"),
    ],
)
def test_servers_end_with_their_owner(
    old_home: Path, other_process: Run, number: signal.Signals, start: str
) -> None:
    owner = other_process(OWNER.format(start=start), str(old_home))
    servers = [int(word) for word in line_of(owner).split()]
    forked = [
        child
        for child in psutil.Process(owner.pid).children()
        if not any(word.endswith("guard.py") for word in child.cmdline())
    ]
    assert len(forked) == (1 if start is FORK else 0)

    owner.send_signal(number)

    try:
        assert eventually(lambda: all(map(ended, servers)))
    finally:
        for child in forked:
            child.kill()
    assert eventually(lambda: not processes_of(old_home)), processes_of(old_home)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the child")
def test_a_server_ends_with_its_guard(home: Path) -> None:
    process = _sleeper(home)
    os.kill(psutil.Process(process.pid).ppid(), signal.SIGKILL)
    assert eventually(lambda: ended(process.pid))
    assert process.stop() == -signal.SIGKILL


def test_a_server_ends_when_the_pipe_of_its_owner_does(home: Path) -> None:
    process = _sleeper(home)
    assert process._guard.stdin is not None
    process._guard.stdin.close()  # as the kernel does for an owner that was killed
    assert process.wait() == 128 + signal.SIGTERM


def test_a_stop_does_not_need_the_pipe(home: Path) -> None:
    process = _sleeper(home)
    assert process._guard.stdin is not None
    held = os.dup(process._guard.stdin.fileno())  # as by a child that the owner forked
    try:
        assert process.stop() == 128 + signal.SIGTERM
    finally:
        os.close(held)


def test_a_server_is_told_of_when_signals_reach_it(home: Path) -> None:
    for _ in range(5):
        process = _sleeper(home)
        assert psutil.Process(process.pid).cmdline() == ["/bin/sleep", "600"]
        process.stop()


def test_an_interrupt_of_the_terminal_does_not_reach_the_server(home: Path) -> None:
    process = _sleeper(home)
    assert os.getpgid(process.pid) != os.getpgid(0)
    assert os.getsid(process.pid) != os.getsid(0)
    process.stop()


def test_a_server_that_ignores_the_first_signal_gets_the_next(home: Path) -> None:
    deaf = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
    program = Program(
        ("/bin/sh", "-c", deaf), home, home / "log", stop=(("SIGTERM", 0.1), ("SIGKILL", 5.0))
    )
    process = ServerProcess(program)
    assert process.wait_until(lambda: "ready" in process.said(), seconds=10)
    assert process.stop() == 128 + signal.SIGKILL
    assert ended(process.pid)


def test_a_stop_leaves_no_zombie_and_no_guard(home: Path) -> None:
    process = _sleeper(home)
    guard = psutil.Process(process.pid).ppid()
    assert process.stop() == 128 + signal.SIGTERM
    assert not psutil.pid_exists(guard)
    assert not psutil.pid_exists(process.pid)


def test_exit_code_and_last_words_are_told(home: Path) -> None:
    command = ("/bin/sh", "-c", "echo one; echo two >&2; exit 7")
    assert run(command, home, home / "log", Identity()) == (7, "one\ntwo")


def test_a_program_that_is_not_there_says_so(home: Path) -> None:
    code, said = run(("/nowhere/server",), home, home / "log", Identity())
    assert code == CANNOT_RUN
    assert "cannot run /nowhere/server" in said


def test_a_large_log_is_put_aside(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.embedded.process.LOG_BYTES", 10)
    for words in ("first run, many words", "second"):
        run(("/bin/echo", words), home, home / "it.log", Identity())
    assert (home / "it.log").read_text() == "second\n"
    assert (home / "it.old.log").read_text() == "first run, many words\n"


def _sleeper(home: Path) -> ServerProcess:
    return ServerProcess(Program(("/bin/sleep", "600"), home, home / "log"))
