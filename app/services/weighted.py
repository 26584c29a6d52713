"""A cache bounded by the weight of what it holds, which loads each thing once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Weighted(Generic[K, V]):
    """At most *most* of weight, the least recently used goes first; safe to share between threads.

    Threads that want the same thing wait for the one that loads it: ten of them would otherwise
    hold ten copies of something large.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0
        self._data: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._loading: dict[K, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: K, load: Callable[[], tuple[V, int]]) -> V:
        """What is kept under *key*; where nothing is, what *load* gives, kept by its weight."""
        with self._lock:
            found = self._found(key)
            turn = self._loading.setdefault(key, threading.Lock())
        if found is not None:
            return found[0]
        with turn:
            with self._lock:
                found = self._found(key)
            if found is not None:
                return found[0]
            try:
                value, weight = load()
            finally:
                with self._lock:
                    self._loading.pop(key, None)
            self.put(key, value, weight)
            return value

    def peek(self, key: K) -> V | None:
        """What is kept under *key*, if anything is."""
        with self._lock:
            found = self._found(key)
        return None if found is None else found[0]

    def _found(self, key: K) -> tuple[V, int] | None:
        found = self._data.get(key)
        if found is not None:
            self._data.move_to_end(key)
        return found

    def put(self, key: K, value: V, weight: int) -> None:
        """Keep *value*; something heavier than all that may be kept is not."""
        if weight > self._most:
            return
        with self._lock:
            old = self._data.pop(key, None)
            self._weight += weight - (old[1] if old else 0)
            self._data[key] = (value, weight)
            while self._weight > self._most:
                _, (_, gone) = self._data.popitem(last=False)
                self._weight -= gone

    @property
    def weight(self) -> int:
        """Of all that it holds now."""
        with self._lock:
            return self._weight

    def __len__(self) -> int:
        with self._lock:
            return len(self._data)
