"""Ships what steps print to the control plane, from a thread that lives while there is something."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import structlog

from app.errors import CallboardError, UnauthorizedError, UnavailableError
from app.wire import LogBatch, LogChunk

log = structlog.get_logger(__name__)

#: Characters of a piece.
FULL = 65_536
#: Characters with what is around them, and pieces, of one request.
BATCH, MOST = 1_048_576, 500
#: Pieces that a report takes along.
FEW = 50
#: Seconds that output waits for more of it.
PAUSE = 0.5
#: Characters that one process keeps while the control plane is away.
KEPT = 16_777_216
#: Seconds that the report of a step waits for its output.
MOMENT = 1.0
#: Attempts that are told that they lost output; of more, the oldest are not.
NOTES = 1_000
LOST = "[some output was lost here: the control plane did not take it in time]\n"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


class Source(Protocol):
    """Where output comes from: one attempt."""

    def pieces(self, *, closed: bool = False) -> list[LogChunk]:
        """What is ready to go, each piece once; with *closed* only those that nothing is added to."""

    def finish(self) -> bool:
        """Let go of what is held back. Whether there was anything to be shipped, ever."""


class _Parcel(NamedTuple):
    source: Source
    piece: LogChunk

    @property
    def cost(self) -> int:
        """About what it takes of the memory, in bytes."""
        return len(self.piece.text) + 1_024


class Shipper:
    """One per process. ``send`` may take its time, or fail: nobody waits longer than a moment.

    A batch goes when there is much, or ``pause`` seconds after the first word; the last few words of
    an attempt go along with its report. While the control plane is away the newest ``kept`` bytes
    are kept.
    """

    def __init__(
        self,
        send: Callable[[LogBatch], object],
        worker: str,
        *,
        pause: float = PAUSE,
        kept: int = KEPT,
    ) -> None:
        self._send = send
        self._worker = worker
        self._pause = pause
        self._most = kept
        #: Sources that printed something since they were last asked.
        self._dirty: dict[Source, None] = {}
        self._queue: deque[_Parcel] = deque()
        self._size = 0
        #: How many pieces of a source are not shipped yet.
        self._owed: dict[Source, int] = {}
        self._is_urgent = False
        #: Seconds until the next try, while the control plane is away.
        self._away = 0.0
        self._thread: threading.Thread | None = None
        self._news = threading.Condition()

    def printed(self, source: Source, *, is_full: bool = False) -> None:
        """*source* has something to be shipped; *is_full*: whole pieces of it."""
        with self._news:
            self._dirty[source] = None
            if is_full:
                self._take(source, closed=True)
            self._wake()

    def end(self, source: Source, *, moment: float = MOMENT) -> list[LogChunk]:
        """The last pieces of *source*, for its report to take along.

        Where they are many, or others are on their way, they are shipped instead, and none are left:
        then this returns when that is done, after *moment* seconds, or at once if the control plane
        is known to be away.
        """
        if not source.finish():
            return []
        with self._news:
            self._dirty.pop(source, None)
            pieces = source.pieces()
            size = sum(len(piece.text) for piece in pieces)
            if source not in self._owed and len(pieces) <= FEW and size <= FULL:
                return pieces
            self._queue_up(source, pieces)
            self._is_urgent = True
            self._wake()
            self._news.wait_for(lambda: self._away or source not in self._owed, moment)
            return []

    def abandon(self, source: Source) -> None:
        """Ship the last pieces of *source*, which has no report; nobody waits for it."""
        if source.finish():
            self.printed(source)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to ship, and no thread."""
        with self._news:
            return self._thread is None

    # ------------------------------------------------------------------ under the lock
    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="output", daemon=True)
            self._thread.start()
        elif self._is_due():
            self._news.notify_all()

    def _take(self, source: Source, *, closed: bool = False) -> None:
        # Taken and queued under one lock, so that the pieces of an attempt stay in their order.
        self._queue_up(source, source.pieces(closed=closed))

    def _queue_up(self, source: Source, pieces: Sequence[LogChunk]) -> None:
        for piece in pieces:
            self._put(_Parcel(source, piece))
        if self._size > self._most:
            self._make_room()

    def _put(self, parcel: _Parcel) -> None:
        self._queue.append(parcel)
        self._size += parcel.cost
        self._owed[parcel.source] = self._owed.get(parcel.source, 0) + 1

    def _settle(self, parcel: _Parcel) -> None:
        left = self._owed.pop(parcel.source) - 1
        if left:
            self._owed[parcel.source] = left

    def _make_room(self) -> None:
        """Drop the oldest. Each attempt that lost something keeps a note in its place."""
        notes: dict[Source, _Parcel] = {}
        while self._size > self._most * 3 // 4 and len(self._queue) > 1:
            parcel = self._queue.popleft()
            self._size -= parcel.cost
            if parcel.source in notes:
                self._settle(parcel)
            else:
                notes[parcel.source] = _Parcel(
                    parcel.source, parcel.piece.model_copy(update={"text": LOST})
                )
        noted = list(notes.values())
        for parcel in noted[:-NOTES]:
            self._settle(parcel)
        self._put_back(noted[-NOTES:])

    def _put_back(self, parcels: Sequence[_Parcel]) -> None:
        self._queue.extendleft(reversed(parcels))
        self._size += sum(parcel.cost for parcel in parcels)

    def _next(self) -> list[_Parcel]:
        """The next batch, out of the queue."""
        batch: list[_Parcel] = []
        size = 0
        while self._queue and len(batch) < MOST and size < BATCH:
            parcel = self._queue.popleft()
            size += parcel.cost
            batch.append(parcel)
        self._size -= size
        return batch

    # ------------------------------------------------------------------ the thread
    def _run(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(self._is_due, self._away or self._pause)
                self._is_urgent = False
                dirty, self._dirty = self._dirty, {}
                for source in dirty:
                    self._take(source)
                batch = self._next()
                if not batch:
                    self._thread = None
                    return
            away = self._deliver(batch)
            with self._news:
                self._away = away
                if away:
                    self._put_back(batch)
                else:
                    for parcel in batch:
                        self._settle(parcel)
                self._news.notify_all()

    def _is_due(self) -> bool:
        return not self._away and (self._is_urgent or self._size >= BATCH)

    def _deliver(self, batch: Sequence[_Parcel]) -> float:
        """Send *batch*; 0 where it is settled, else the seconds after which to send it again."""
        chunks = [each.piece for each in batch]
        try:
            self._send(LogBatch(worker=self._worker, chunks=chunks))
        except (UnavailableError, UnauthorizedError) as exc:
            if not self._away:
                log.warning("output.kept_back", error=str(exc))
            longest = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._away))
            # Some jitter spreads the return of many workers.
            return random.uniform(longest / 2, longest)  # noqa: S311 (guards nothing)
        except CallboardError as exc:
            log.warning("output.refused", pieces=len(batch), error=str(exc))
        except Exception:  # a bug of ours must not end all output
            log.exception("output.failed", pieces=len(batch))
        return 0.0
