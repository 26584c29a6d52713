"""Ends a blocking call from outside: one thread per process looks after all calls under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from app.errors import ToolError
from app.tools import Context

GLANCE = 0.05
#: How often a call that was told to stop is told again, in seconds.
REPEAT = 0.5
#: After this many glances without a call the thread ends; the next call starts another.
IDLE_GLANCES = 200


@dataclass(eq=False, slots=True)
class Call:
    """A call under way. ``reason`` is set (cancelled or timeout) once it was told to stop."""

    context: Context
    timeout: float
    deadline: float
    stop: Callable[[], None]
    reason: str | None = None
    told: float = 0.0

    def error(self) -> ToolError | None:
        """Why the call was stopped; None where it ended by itself."""
        if self.reason == "cancelled":
            return ToolError("the step was cancelled and its query stopped", kind="cancelled")
        if self.reason == "timeout":
            return ToolError(
                f"the query ran longer than {self.timeout:g} seconds and was stopped",
                kind="timeout",
                retryable=True,
            )
        return None


class Watcher:
    """The thread and the calls it looks after."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: set[Call] = set()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(
        self, context: Context, timeout: float, stop: Callable[[], None]
    ) -> Iterator[Call]:
        """Call *stop*, again and again, when the context is cancelled or *timeout* seconds have
        passed before the block ends. *stop* runs in another thread and must not block."""
        call = Call(context, timeout, time.monotonic() + timeout, stop)
        with self._lock:
            self._calls.add(call)
            # A fork takes the object along, but not the thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
                self._thread.start()
        try:
            yield call
        finally:
            with self._lock:
                self._calls.discard(call)

    def _look(self) -> None:
        idle = 0
        while idle < IDLE_GLANCES:
            time.sleep(GLANCE)
            with self._lock:
                idle = 0 if self._calls else idle + 1
                # Under the lock: a call that has ended must not be stopped, its connection may
                # serve another one by then.
                self._stop_due()
                if idle >= IDLE_GLANCES:
                    self._thread = None

    def _stop_due(self) -> None:
        # In a frame of its own: one that lives on would hold the last call, and its connection.
        for call in self._calls:
            _stop_if_due(call)


def _stop_if_due(call: Call) -> None:
    if call.reason is None:
        if call.context.cancelled.is_set():
            call.reason = "cancelled"
        elif time.monotonic() >= call.deadline:
            call.reason = "timeout"
    now = time.monotonic()
    if call.reason and now - call.told >= REPEAT:
        call.told = now
        call.stop()


watcher = Watcher()
