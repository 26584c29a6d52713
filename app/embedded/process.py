"""A server as our child: run by a guard that stops it when we are gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.embedded import guard
from app.embedded.identity import Identity
from app.errors import StartupError
from app.settings import child_environment

#: A log that is larger than this at a start is put aside (one old log is kept).
LOG_BYTES = 8 * 1024 * 1024
#: Exit code of a program that the guard could not even run.
CANNOT_RUN = 127
#: Signals that stop a server, each with the seconds it gets to obey.
Stop = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Program:
    """What to run, where, as whom, and how to stop it; ``log`` receives all it says."""

    command: tuple[str, ...]
    folder: Path
    log: Path
    stop: Stop = (("SIGTERM", 10.0), ("SIGKILL", 10.0))
    identity: Identity = Identity()  # noqa: RUF009 (frozen, so the shared default cannot change)
    keep: tuple[int, ...] = ()


class ServerProcess:
    """One run of a ``Program``, from its start to its end."""

    def __init__(self, program: Program) -> None:
        """Start it. Raises ``StartupError`` where there is nothing to run."""
        self._program = program
        self._log_start = _open_new(program.log)
        self._guard = _launch(program)
        assert self._guard.stdout is not None
        with self._guard.stdout as answers:
            line = answers.readline()
        if not line:
            self._reap()
            raise StartupError(f"the guard of {program.command[0]} did not start: {self.said()}")
        self.pid = int(line)

    @property
    def alive(self) -> bool:
        return self._guard.poll() is None

    def said(self, lines: int = 6) -> str:
        """The last lines it wrote to its log in this run."""
        with self._program.log.open("rb") as file:
            file.seek(self._log_start)
            text = file.read().decode(errors="replace").strip()
        return "\n".join(text.splitlines()[-lines:]) or "it said nothing"

    def wait(self) -> int:
        """Wait for it to end by itself; its exit code as a shell tells it."""
        self._guard.wait()
        return self._reap()

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> bool:
        """Ask *ready* until it says yes; False where it ended before or *seconds* went by."""
        deadline = time.monotonic() + seconds
        pause = 0.001
        while not ready():
            if not self.alive or time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)
        return True

    def stop(self) -> int:
        """Stop it as its program says, and wait until it is gone; its exit code."""
        return self._reap()

    def kill(self) -> None:
        """Kill it with -9, as a crash would, and wait until it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def _reap(self) -> int:
        """Let go of the guard, which makes it stop the server, and take its exit code."""
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        # A process that we forked may hold the pipe open, so the end of it is not enough.
        self._guard.terminate()
        return self._guard.wait()


def end_stray(pid: int, belongs: Callable[[psutil.Process], bool], stop: Stop) -> None:
    """Stop process *pid* if it *belongs* to us: a server that outlived its guard."""
    with contextlib.suppress(psutil.NoSuchProcess):
        stray = psutil.Process(pid)
        if not belongs(stray):
            return
        for name, patience in stop:
            stray.send_signal(signal.Signals[name])
            with contextlib.suppress(psutil.TimeoutExpired):
                stray.wait(patience)
                return


def _open_new(log: Path) -> int:
    """Put a large log aside, make sure there is one of mode 0600; the size it has now."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
    os.close(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600))
    return log.stat().st_size


def _launch(program: Program) -> subprocess.Popen[bytes]:
    plan = {
        "command": program.command,
        "cwd": str(program.folder),
        "owner": os.getpid(),
        "stop": program.stop,
        "uid": program.identity.uid,
        "gid": program.identity.gid,
        "namespace": program.identity.namespace,
        "keep": program.keep,
    }
    with program.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=program.keep,
            env=child_environment(),
            cwd="/",
            # A Ctrl-C in the terminal is for our owner, who then stops the servers in order.
            start_new_session=True,
        )


def run(command: Sequence[str], folder: Path, log: Path, identity: Identity) -> tuple[int, str]:
    """Run *command* to its end as *identity*; its exit code and what it said last."""
    process = ServerProcess(Program(tuple(command), folder, log, identity=identity))
    return process.wait(), process.said()
