"""Who works on an attempt now: the check in front of everything that only its worker may have."""

from __future__ import annotations

from app.engine.events import ExecutionStarted, StepKey
from app.engine.ports import EventLog
from app.errors import ForbiddenError
from app.services.reading import Reader
from app.wire import PointerWire


class Claimants:
    """Tells a worker that holds a claimed attempt from everybody else."""

    def __init__(self, events: EventLog, reader: Reader) -> None:
        self._log = events
        self._reader = reader

    def check(
        self, pointer: PointerWire, worker: str, *, pool: str | None, what: str
    ) -> tuple[ExecutionStarted, str]:
        """The execution's first event and the queue of the step that *worker* works on now.

        *pool* is the one that the caller's token is limited to, *what* the thing it asks for.
        Raises ``ForbiddenError`` where the attempt is not claimed by it, was given up, or ended.
        """
        key = StepKey(pointer.step, pointer.visit, pointer.iteration)
        place = (pointer.execution_id, key)
        with self._log.transaction([pointer.execution_id], durable=False) as tx:
            state = tx.attempts([place])[place]
            over = state.ended is not None or pointer.execution_id in tx.ended([place[0]])
        current = state.attempt == pointer.attempt and not state.fenced and not over
        if not current or state.started_by != worker:
            raise ForbiddenError(
                f"{what} is for the worker of an attempt that runs, and this one does not",
                remedy="ask while the attempt is claimed, under the name it was claimed with",
            )
        if pool is not None and not state.queue.startswith(f"{pool}."):
            raise ForbiddenError(
                f"this token is for the pool {pool!r}", remedy="use the token of the step's pool"
            )
        started = self._reader.events([(pointer.execution_id, 1)])[pointer.execution_id, 1]
        assert isinstance(started, ExecutionStarted)
        return started, state.queue
