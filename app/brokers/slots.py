"""How many messages a process may work on at once, shared by the pullers of its queues."""

from __future__ import annotations

import threading
from collections.abc import Callable

from app.brokers.delivery import Delivery

#: Seconds that a message may wait here for a free slot before others may have it.
PATIENCE = 1.0


class Slots:
    """A slot is a thread that runs actors. Without a worker (``total`` None) there is no limit.

    A worker holds what it works on and, while messages pass through quickly, a few ahead. Once one
    has waited for long, all slots are taken by slow work: then what waits is given back, and as much
    is asked for as there are free slots, no more.
    """

    def __init__(self) -> None:
        self.total: int | None = None
        self.is_slow = False
        self._busy = 0
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []

    @property
    def free(self) -> int:
        return 0 if self.total is None else max(0, self.total - self._busy)

    def listen(self, on_free: Callable[[], None]) -> None:
        """Call *on_free* (on the loop) when a slot was given back."""
        self._listeners.append(on_free)

    def unlisten(self, on_free: Callable[[], None]) -> None:
        if on_free in self._listeners:
            self._listeners.remove(on_free)

    def take(self, delivery: Delivery, now: float) -> bool:
        """An actor begins with *delivery*; False where it was given back a moment before."""
        with self._lock:
            if delivery.is_given_back:
                return False
            if not delivery.is_begun:
                delivery.is_begun = True
                self._busy += 1
                self.is_slow = self.is_slow and now - delivery.arrived > PATIENCE
            return True

    def release(self, delivery: Delivery) -> None:
        """*delivery* has ended, begun or not."""
        with self._lock:
            if not delivery.is_begun:
                return
            self._busy -= 1
        for on_free in tuple(self._listeners):
            on_free()

    def give_back(self, delivery: Delivery, now: float) -> bool:
        """Whether *delivery* has waited so long that another process shall have it."""
        with self._lock:
            if self.total is None or self.free:
                return False
            if delivery.is_begun or now - delivery.arrived <= PATIENCE:
                return False
            delivery.is_given_back = self.is_slow = True
            return True
