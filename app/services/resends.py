"""Which pointers that nobody claimed are sent again: those that do not wait in their queue."""

from __future__ import annotations

from collections.abc import Iterable

from app.engine.ports import Pointer

#: Seconds between two sendings of one pointer, at the most; from the third on each is twice the last.
LONGEST_PAUSE = 600.0
#: Seconds after which it is forgotten that a pointer was sent.
MEMORY = 3600.0


class Resends:
    """Remembers what was sent when. *first* is the pause before a pointer is sent again at all."""

    def __init__(self, first: float) -> None:
        self._first = first
        #: By pointer: when it was sent, at the latest, and how often by us.
        self._sent: dict[Pointer, tuple[float, int]] = {}

    def is_due(self, pointer: Pointer, *, waited: float, now: float) -> bool:
        """Whether the pointer, which nobody claimed, seems lost.

        A queue is fetched in its order, so where no message has *waited* (seconds) as long as this
        one would have, this one does not wait: it never arrived, whoever fetched it has died, or a
        worker gave it back. The last may last for hours, where every worker is busy, so the pauses
        grow: each sending leaves a message more.
        """
        at, times = self._sent.setdefault(pointer, (now - self._first, 0))
        pause = min(self._first * 2.0 ** max(0, times - 1), LONGEST_PAUSE)
        return now - at >= pause and now - at > waited

    def note(self, pointers: Iterable[Pointer], now: float) -> None:
        """All of these were sent."""
        for pointer in pointers:
            _, times = self._sent.get(pointer, (now, 0))
            self._sent[pointer] = (now, times + 1)

    def forget(self, now: float) -> None:
        """Forget what was sent long ago."""
        self._sent = {key: kept for key, kept in self._sent.items() if now - kept[0] < MEMORY}
