"""The memory twin of what steps print."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice

from app.engine import encoding
from app.engine.output import Kept, Printed, Selection


class MemoryOutput:
    """Pieces of output of this process; see ``OutputStore``. Of more than *most* characters the
    oldest are forgotten."""

    def __init__(self, *, most: int = 67_108_864) -> None:
        self._most = most
        self._pieces: deque[Kept] = deque()
        self._known: set[tuple[object, ...]] = set()
        self._size = 0
        self._cursors = count(1)
        self._lock = threading.Lock()

    def append(self, pieces: Sequence[Printed]) -> int:
        # A column takes what JSON takes: neither the character NUL nor half a surrogate pair.
        encoding.dumps([[piece.pointer.step, piece.stream, piece.text] for piece in pieces])
        with self._lock:
            return sum(self._add(piece) for piece in pieces)

    def _add(self, piece: Printed) -> bool:
        key = (*piece.pointer, piece.index)
        if key in self._known:
            return False
        self._known.add(key)
        self._pieces.append(Kept(next(self._cursors), piece))
        self._size += len(piece.text)
        while self._size > self._most:
            oldest = self._pieces.popleft().printed
            self._size -= len(oldest.text)
        return True

    def read(
        self, execution_id: int, which: Selection, *, after: int = 0, limit: int = 1000
    ) -> list[Kept]:
        with self._lock:
            found = (kept for kept in self._of(execution_id, which) if kept.cursor > after)
            return list(islice(found, limit))

    def newest(self, execution_id: int, which: Selection, *, limit: int) -> list[Kept]:
        with self._lock:
            found = list(self._of(execution_id, which))
        return found[max(0, len(found) - limit) :]

    def forget(self, execution_ids: Iterable[int]) -> None:
        gone = set(execution_ids)
        with self._lock:
            kept = [each for each in self._pieces if each.printed.pointer.execution_id not in gone]
            self._pieces = deque(kept)
            self._known = {key for key in self._known if key[0] not in gone}
            self._size = sum(len(each.printed.text) for each in kept)

    def _of(self, execution_id: int, which: Selection) -> Iterator[Kept]:
        for kept in self._pieces:
            if kept.printed.pointer.execution_id == execution_id and _fits(kept.printed, which):
                yield kept


def _fits(piece: Printed, which: Selection) -> bool:
    pointer = piece.pointer
    return (
        which.step in {None, pointer.step}
        and which.visit in {None, pointer.visit}
        and which.iteration in {None, pointer.iteration}
        and which.attempt in {None, pointer.attempt}
        and which.stream in {None, piece.stream}
    )
