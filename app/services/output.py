"""What steps print: taken from workers, shown to people. Nothing is decided by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from app.engine.events import StepKey
from app.engine.output import Kept, OutputStore, Printed, Selection, last_lines
from app.engine.ports import AttemptState, EventLog, Pointer
from app.errors import ForbiddenError, NotFoundError
from app.services.cache import Lru
from app.wire import LogAnswer, LogChunk

#: Pieces that are read at once; each has at most some 64 KiB.
PAGE = 200


@dataclass(frozen=True, slots=True)
class Page:
    """``cursor`` is where to go on; ``ended`` says that there is no more, and will not be."""

    pieces: Sequence[Kept]
    cursor: int
    ended: bool


class Output:
    """The use cases behind ``/api/worker/logs`` and ``/api/executions/{id}/logs``."""

    def __init__(self, events: EventLog, store: OutputStore) -> None:
        self._log = events
        self._store = store
        #: The queues of attempts that were scheduled; that never changes.
        self._queues: Lru[Pointer, str] = Lru(1024)

    # ------------------------------------------------------------------ workers
    def append(self, chunks: Sequence[LogChunk], *, pool: str | None = None) -> LogAnswer:
        """Keep what attempts printed; a piece sent twice is one.

        *pool* is the one that the caller's token is limited to. Raises ``ForbiddenError`` where a
        step is another pool's; then nothing of them is kept.
        """
        pointers = list(dict.fromkeys(_pointer(chunk) for chunk in chunks))
        queues = self._queues_of(pointers)
        if pool is not None and not all(q.startswith(f"{pool}.") for q in queues.values()):
            raise ForbiddenError(
                f"this token is for the pool {pool!r}", remedy="use the token of the step's pool"
            )
        pieces = [_piece(chunk) for chunk in chunks if _pointer(chunk) in queues]
        self._store.append(pieces)
        return LogAnswer(accepted=len(pieces), refused=len(chunks) - len(pieces))

    def expect(self, pointer: Pointer, queue: str) -> None:
        """That attempt was sent to *queue*, as whoever calls has read in the log."""
        self._queues.put(pointer, queue)

    def _queues_of(self, pointers: Sequence[Pointer]) -> dict[Pointer, str]:
        """The queues of those that were scheduled; asked of the log once per attempt."""
        known = {pointer: self._queues.get(pointer) for pointer in pointers}
        unknown = [pointer for pointer, queue in known.items() if queue is None]
        if unknown:
            places = [(pointer.execution_id, pointer.key) for pointer in unknown]
            with self._log.transaction({i for i, _ in places}, durable=False) as tx:
                states = tx.attempts(places)
            for pointer in unknown:
                queue = _queue(pointer, states)
                if queue is not None:
                    known[pointer] = queue
                    self._queues.put(pointer, queue)
        return {pointer: queue for pointer, queue in known.items() if queue is not None}

    # ------------------------------------------------------------------ readers
    def page(
        self, execution_id: int, which: Selection, *, after: int = 0, limit: int = PAGE
    ) -> Page:
        """What was printed since the cursor *after*. Raises ``NotFoundError``."""
        # Asked before: what comes after a look at an ended execution is nothing.
        over = self._is_over(execution_id)
        pieces = self._store.read(execution_id, which, after=after, limit=limit)
        cursor = pieces[-1].cursor if pieces else after
        return Page(pieces, cursor, over and len(pieces) < limit)

    def tail(self, execution_id: int, which: Selection, lines: int) -> Page:
        """The last *lines* lines, and the cursor of what comes then. Raises ``NotFoundError``."""
        over = self._is_over(execution_id)
        pieces = self._store.newest(execution_id, which, limit=max(lines, 1))
        cursor = pieces[-1].cursor if pieces else 0
        return Page(last_lines(pieces, lines), cursor, over)

    def rest(self, execution_id: int, which: Selection, page: Page) -> Iterator[Sequence[Kept]]:
        """The pieces of *page*, and page by page what is there behind them."""
        yield page.pieces
        found = page.pieces
        cursor = page.cursor
        while found:
            found = self._store.read(execution_id, which, after=cursor, limit=PAGE)
            if found:
                cursor = found[-1].cursor
                yield found

    def _is_over(self, execution_id: int) -> bool:
        summary = self._log.summary(execution_id)
        if summary is None:
            raise NotFoundError(
                f"there is no execution {execution_id}", remedy="see 'callboard executions'"
            )
        return summary.status != "RUNNING"


def _pointer(chunk: LogChunk) -> Pointer:
    return Pointer(chunk.execution_id, chunk.step, chunk.visit, chunk.iteration, chunk.attempt)


def _piece(chunk: LogChunk) -> Printed:
    at = datetime.fromtimestamp(chunk.at, UTC)
    return Printed(_pointer(chunk), chunk.index, chunk.stream, chunk.text, at)


def _queue(pointer: Pointer, states: dict[tuple[int, StepKey], AttemptState]) -> str | None:
    """Where the attempt was sent; None where it never was."""
    state = states[pointer.execution_id, pointer.key]
    return state.queue if 1 <= pointer.attempt <= state.attempt else None
