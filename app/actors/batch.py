"""Many callers, one call: requests that arrive while another is under way travel together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Slot(Generic[T, R]):
    """One caller's item; ``gate`` opens when it was answered, or when it is its turn to send."""

    __slots__ = ("answer", "done", "error", "gate", "item")

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = False
        self.answer: R
        self.error: BaseException | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class Batcher(Generic[T, R]):
    """Calls ``send(items) -> answers`` for its callers, one call at a time.

    A caller that finds nobody sending sends what has gathered; whoever comes meanwhile waits, and
    the first of them sends next. So a lone caller waits for nobody and a crowd shares one round
    trip. After a batch of several, the next one waits *linger* seconds for those who were just
    answered: they mostly come back at once. No thread and no timer of its own.
    """

    def __init__(
        self,
        send: Callable[[Sequence[T]], Sequence[R]],
        *,
        most: int = 200,
        linger: float = 0.0005,
    ) -> None:
        self._send = send
        self._most = most
        self._linger = linger
        self._gathered: list[_Slot[T, R]] = []
        self._lock = threading.Lock()
        self._busy = False
        self._last = 0

    def __call__(self, item: T) -> R:
        """The answer for *item*; raises what ``send`` raised for the batch it was in."""
        return self.many([item])[0]

    def many(self, items: Sequence[T]) -> list[R]:
        """The answers for *items*, in order; raises as soon as one of their batches failed."""
        if not items:
            return []
        with self._lock:
            waits, self._busy = self._busy, True
            # Nobody is here, and nobody is expected back.
            is_alone = not waits and self._last <= 1 and len(items) <= self._most
            slots: list[_Slot[T, R]] = [] if is_alone else [_Slot(item) for item in items]
            self._gathered += slots
        if is_alone:
            return self._send_alone(items)
        if not waits:
            self._send_gathered()
        for slot in slots:
            if not slot.done:
                slot.gate.acquire()
            if not slot.done:
                self._send_gathered()
        for slot in slots:
            if slot.error is not None:
                raise slot.error
        return [slot.answer for slot in slots]

    def _send_alone(self, items: Sequence[T]) -> list[R]:
        """The answers for *items*, for which nobody waits but the caller."""
        self._last = len(items)
        try:
            return [answer for _, answer in zip(items, self._send(items), strict=True)]
        finally:
            self._wake(())

    def _send_gathered(self) -> None:
        """Send a batch, wake its callers, and hand over to the first who came meanwhile."""
        if 1 < self._last > len(self._gathered):
            time.sleep(self._linger)
        with self._lock:
            batch, self._gathered = self._gathered[: self._most], self._gathered[self._most :]
        self._last = len(batch)
        try:
            answers = self._send([slot.item for slot in batch])
            for slot, answer in zip(batch, answers, strict=True):
                slot.answer = answer
        except BaseException as exc:  # every caller of the batch must hear of it
            for slot in batch:
                slot.error = exc
            if not isinstance(exc, Exception):
                raise
        finally:
            self._wake(batch)

    def _wake(self, batch: Sequence[_Slot[T, R]]) -> None:
        with self._lock:
            following = self._gathered[0] if self._gathered else None
            self._busy = following is not None
        for slot in batch:
            slot.done = True
            slot.gate.release()
        if following is not None:
            following.gate.release()
