"""Many callers, one call: requests that arrive while another is under way travel together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Slot(Generic[T, R]):
    __slots__ = ("answer", "done", "error", "item")

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = False
        self.answer: R
        self.error: BaseException | None = None


class Batcher(Generic[T, R]):
    """Calls ``send(items) -> answers`` for its callers, one call at a time.

    Whoever gets the lock sends everything that has gathered meanwhile, so a lone caller waits for
    nobody and a crowd shares one round trip. No thread and no timer of its own.
    """

    def __init__(self, send: Callable[[Sequence[T]], Sequence[R]], *, most: int = 200) -> None:
        self._send = send
        self._most = most
        self._gathered: list[_Slot[T, R]] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()

    def __call__(self, item: T) -> R:
        """The answer for *item*; raises what ``send`` raised for the batch it was in."""
        slot: _Slot[T, R] = _Slot(item)
        with self._lock:
            self._gathered.append(slot)
        while not slot.done:
            with self._sending:
                if not slot.done:
                    self._send_gathered()
        if slot.error is not None:
            raise slot.error
        return slot.answer

    def _send_gathered(self) -> None:
        with self._lock:
            batch, self._gathered = self._gathered[: self._most], self._gathered[self._most :]
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
            for slot in batch:
                slot.done = True
