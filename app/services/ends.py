"""Who waits for the end of an execution, and hears of it at once where this process writes it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from app.engine.entry import Entry
from app.engine.events import EXECUTION_ENDS

#: Called with the type of the event that ended it; None: no end will be told any more.
Tell = Callable[[str | None], object]


class Ends:
    """Calls who watches an execution once its end is committed by this process.

    It is a hint: other processes write ends, too, so whoever watches must look now and then.
    """

    def __init__(self) -> None:
        self.is_closed = False
        self._watching: dict[int, list[Tell]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def watching(self, execution_id: int, tell: Tell) -> Iterator[None]:
        """Meanwhile *tell* is called, from any thread; it must not fail or wait.

        After ``close`` it is called at once.
        """
        with self._lock:
            self._watching.setdefault(execution_id, []).append(tell)
            closed = self.is_closed
        if closed:
            tell(None)
        try:
            yield
        finally:
            with self._lock:
                self._watching[execution_id].remove(tell)
                if not self._watching[execution_id]:
                    del self._watching[execution_id]

    def close(self) -> None:
        """Call whoever watches, now and from now on: this process is about to stop."""
        with self._lock:
            self.is_closed = True
            told = [tell for tells in self._watching.values() for tell in tells]
        for tell in told:
            tell(None)

    def __contains__(self, execution_id: int) -> bool:
        """Whether anybody watches it."""
        return execution_id in self._watching

    def appended(self, entries: Sequence[Entry]) -> None:
        """Take note of what was committed."""
        if not self._watching:
            return
        for entry in entries:
            if entry.event.type in EXECUTION_ENDS:
                with self._lock:
                    told = list(self._watching.get(entry.execution_id, ()))
                for tell in told:
                    tell(entry.event.type)
