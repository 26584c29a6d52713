"""What every long-running process shares: signals, logging, an orderly end."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from app import failpoints
from app.allocator import share_arenas
from app.errors import CallboardError
from app.settings import Settings, load
from app.version import software_version

#: Seconds until a signal is noticed that the system handed to another thread than the main one.
PATROL = 0.5


class Stop:
    """Set by SIGTERM and SIGINT; a second signal ends the process at once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def listen(self) -> Stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        return self

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if self._event.is_set():
            raise SystemExit(128 + number)
        self._event.set()

    def wait(self) -> None:
        """Wait for the signal."""
        # A signal may be delivered to any thread (to a main thread that just comes back from SIGSTOP
        # it is not), and only the main one, once it runs, calls our handler.
        while not self._event.wait(PATROL):
            pass

    @property
    def is_set(self) -> bool:
        return self._event.is_set()


def signs(**more: Any) -> dict[str, Any]:
    """What every heartbeat says of its process; ``clock`` is what this machine thinks the time is."""
    return {
        "version": software_version(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "clock": time.time(),
        **more,
    }


def main(run: Callable[[Settings], None], **overrides: Any) -> None:
    """Load the settings, set up logging and run; an expected error is one line, not a traceback."""
    from app.telemetry.logs import configure
    from app.tools.child.isolate import hide_memory

    share_arenas()
    hide_memory()  # steps may run as our own user, and our environment holds secrets
    try:
        loaded = load(**overrides)
        configure(loaded.settings)
        failpoints.arm(loaded.settings.failpoint)
        run(loaded.settings)
    except CallboardError as exc:
        print(f"error: {exc}", file=sys.stderr)  # noqa: T201 (the last words of a process)
        raise SystemExit(1) from exc
