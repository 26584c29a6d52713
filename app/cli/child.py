"""One process that we started and that ends with us, however we die."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.embedded import guard
from app.errors import StartupError


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. ``rank`` orders the stopping (lower ranks first), ``grace`` is the patience then."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    rank: int = 0
    grace: float = 10.0


class Child:
    """One run of a program. ``on_line`` gets each line it prints, ``on_exit`` its exit code.

    Both are called from threads of this object. The code is a shell's: 128 + n for signal n.
    """

    def __init__(
        self,
        program: Program,
        on_line: Callable[[Child, str], None],
        on_exit: Callable[[Child, int], None],
    ) -> None:
        self.program = program
        self.started = time.monotonic()
        #: What it said last, for the reason of an exit.
        self.last: deque[str] = deque(maxlen=12)
        self._on_line = on_line
        self._on_exit = on_exit
        self._guard = _launch(program)
        assert self._guard.stdout is not None
        with self._guard.stdout as answers:
            line = answers.readline()
        self.pid = int(line or 0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._waiter = threading.Thread(target=self._wait, daemon=True)
        self._waiter.start()

    def terminate(self) -> None:
        """Ask it to stop; it is killed where it has not within its grace. Returns at once."""
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        if self._guard.returncode is None:
            self._guard.terminate()

    def kill(self) -> None:
        """Kill it and all it forked. Returns at once."""
        if self._guard.returncode is None:
            _kill_group(self._guard.pid)

    def join(self) -> None:
        """Wait until it is gone and everything it said was handed over."""
        self._waiter.join()

    def _read(self) -> None:
        assert self._guard.stderr is not None
        with self._guard.stderr as lines:
            for raw in lines:
                line = raw.decode(errors="replace").rstrip("\r\n")
                self.last.append(line)
                self._on_line(self, line)

    def _wait(self) -> None:
        code = self._guard.wait()
        # What it forked and did not take along: nobody else could ever stop it. Also, it would
        # hold the pipe that the reader waits for.
        _kill_group(self._guard.pid)
        self._reader.join()
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        self._on_exit(self, code if code >= 0 else 128 - code)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _launch(program: Program) -> subprocess.Popen[bytes]:
    plan = {
        "command": program.command,
        "cwd": str(Path.cwd()),
        "owner": os.getpid(),
        "stop": [["SIGTERM", program.grace], ["SIGKILL", 10.0]],
        "uid": None,
        "gid": None,
        "namespace": None,
        "keep": (),
    }
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, json.dumps(plan)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=program.environment,
            # A Ctrl-C in the terminal is for us, who then stop everything in order.
            start_new_session=True,
        )
    except OSError as exc:
        raise StartupError(f"{program.name} cannot be started: {exc}") from exc
