"""Virtual time, and what is to happen when."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

#: When every run begins, in unix seconds.
BEGIN = 1_800_000_000.0

Act = Callable[[], None]


class Agenda:
    """Acts by their time. The clock moves when the next act is taken, and never back."""

    def __init__(self) -> None:
        self.now = BEGIN
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Act]] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.now - BEGIN

    def after(self, seconds: float, act: Act) -> None:
        """Have *act* happen in *seconds* from now."""
        heapq.heappush(self._heap, (self.now + seconds, next(self._numbers), act))

    def take(self) -> Act | None:
        """The next act, with the clock at its time; None where nothing is to happen."""
        if not self._heap:
            return None
        at, _, act = heapq.heappop(self._heap)
        self.now = max(self.now, at)
        return act
