"""Warm starts: a child that ran a step's program and left nothing behind waits for its next run.

As function services do: what waits belongs to one step of one version of a playbook, so only a run
of the same program gets it. It waits for a while; the longest waiting ones give way to others.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.tools.child.launcher import Spare

#: Runs after which a child ends: what a program leaves where nobody looks does not pile up for ever.
RUNS = 1_000


@dataclass(slots=True)
class _Guest:
    """A child that waits, since ``since`` (monotonic), after so many runs."""

    key: Any
    spare: Spare
    runs: int
    since: float


class Warm:
    """Keeps up to *most* children waiting, for all threads of a process; 0: none. Each waits for
    *idle* seconds.
    """

    def __init__(self, most: int, idle: float) -> None:
        self._most = most
        self._idle = idle
        #: The longest waiting first.
        self._guests: OrderedDict[int, _Guest] = OrderedDict()
        self._runs: dict[int, int] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._watch: threading.Thread | None = None

    def lodge(self, step: str, knows: Callable[[], bool] = bool) -> Lodge | None:
        """Where the children of *step* (any text that names it) wait.

        *knows* says whether the run was told a secret: then its child waits for nobody.
        """
        return Lodge(self, step, knows) if self._most else None

    def take(self, key: Any) -> Spare | None:
        """A child that waits under *key*, the last that came; None where there is none.

        It may have ended meanwhile: then it takes no job.
        """
        with self._lock:
            found = next((g for g in reversed(self._guests.values()) if g.key == key), None)
            if found is None:
                return None
            del self._guests[found.spare.pid]
            self._runs[found.spare.pid] = found.runs
            return found.spare

    def keep(self, key: Any, spare: Spare) -> None:
        """Have *spare* wait under *key*."""
        with self._lock:
            runs = self._runs.pop(spare.pid, 0) + 1
            guest = _Guest(key, spare, runs, time.monotonic())
            leaving = [guest] if runs >= RUNS else []
            if not leaving:
                self._guests[spare.pid] = guest
                while len(self._guests) > self._most:
                    leaving.append(self._guests.popitem(last=False)[1])
                self._start_watch()
        self._let_go(leaving)

    def lost(self, spare: Spare) -> None:
        """*spare*, which was taken, has ended."""
        with self._lock:
            self._runs.pop(spare.pid, None)

    def close(self) -> None:
        """End all that wait, as a worker does that stops."""
        with self._lock:
            leaving = list(self._guests.values())
            self._guests.clear()
            self._changed.notify_all()
        self._let_go(leaving)

    def __len__(self) -> int:
        with self._lock:
            return len(self._guests)

    def _start_watch(self) -> None:
        if self._watch is None:
            self._watch = threading.Thread(target=self._look, name="warm", daemon=True)
            self._watch.start()

    def _look(self) -> None:
        """End those that waited for long enough; and ourselves, where none is left."""
        while True:
            with self._lock:
                oldest = next(iter(self._guests.values()), None)
                if oldest is None:
                    self._watch = None
                    return
                left = oldest.since + self._idle - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                del self._guests[oldest.spare.pid]
            self._let_go([oldest])

    @staticmethod
    def _let_go(guests: list[_Guest]) -> None:
        for guest in guests:
            for fd in guest.spare.descriptors:
                os.close(fd)
            guest.spare.zygote.replenish()


@dataclass(frozen=True, slots=True)
class Lodge:
    """The part of ``Warm`` that is one step's."""

    warm: Warm
    step: str
    knows: Callable[[], bool] = bool

    @property
    def is_open(self) -> bool:
        return not self.knows()

    def take(self, breed: Any) -> Spare | None:
        return self.warm.take((self.step, breed))

    def keep(self, breed: Any, spare: Spare) -> None:
        self.warm.keep((self.step, breed), spare)

    def lost(self, spare: Spare) -> None:
        self.warm.lost(spare)
