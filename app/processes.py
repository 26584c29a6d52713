"""What every long-running process shares: signals, logging, an orderly end."""

from __future__ import annotations

import gc
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
from app.allocator import give_back, share_arenas
from app.errors import CallboardError
from app.settings import Settings, load
from app.version import software_version

#: Seconds until a signal is noticed that the system handed to another thread than the main one.
PATROL = 0.5
#: Objects that may be made, and not be gone again, before the collector looks at the newest.
GATHERED = 10_000
#: Seconds between two times that old cycles are collected and free memory is given back.
TRIM = 60.0


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


def keep_memory_flat() -> None:
    """To be called when a process is about to begin its work: all that it has made so far stays.

    The collector of cycles would look at it over and over again, and it comes more often than
    programs that make many short-lived records need it. To what has grown old, though, it comes
    when there is a quarter more of that, which may take an hour, and exceptions with their frames
    are kept until then; so it is sent there by the clock. Then free memory is given back.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GATHERED, 10, 10)
    threading.Thread(target=_give_back, name="memory", daemon=True).start()


def _give_back() -> None:
    while True:
        time.sleep(TRIM)
        gc.collect()
        give_back()


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
