"""Looks at executions again: what each event changed, and whether what is shown is what the log says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.engine.entry import Entry
from app.engine.ports import EventLog
from app.engine.state import NEW, Execution
from app.errors import NotFoundError
from app.services.cache import Lru
from app.services.catalog import CatalogService
from app.services.executions import Executions
from app.services.reading import Reader
from app.services.replaying import PAGE, Change, changes_of, concerns, entries, evolved
from app.services.verification import Sources, Verification, Verified


@dataclass(frozen=True, slots=True)
class Turn:
    """One event and what it changed."""

    entry: Entry
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Replayed:
    """A page of turns; ``state`` is the fold up to the last event looked at, ``more`` follow."""

    turns: Sequence[Turn]
    state: Execution
    more: bool


class Inspection:
    """The use cases behind replay and verify. They read, and never write."""

    def __init__(
        self, log: EventLog, catalog: CatalogService, executions: Executions, reader: Reader
    ) -> None:
        self._log = log
        self._executions = executions
        self._sources = Sources(log, catalog, executions, reader)
        #: Where pages ended, so that the next one goes on from there.
        self._places: Lru[tuple[int, int], Execution] = Lru(64)

    # ------------------------------------------------------------------ replay
    def state(self, execution_id: int, at: int | None = None) -> Execution:
        """The fold up to event *at*, by default of all. Raises ``NotFoundError``."""
        self._executions.get(execution_id)
        return self._fold(execution_id, at)

    def replay(
        self,
        execution_id: int,
        *,
        after: int = 0,
        at: int | None = None,
        limit: int = PAGE,
        step: str | None = None,
    ) -> Replayed:
        """The events after *after* up to *at*, *limit* at the most, and what each changed.

        With *step* only the events that are about it or change it are given. Raises
        ``NotFoundError``, and ``BadRequestError`` for a log that cannot be folded.
        """
        self._executions.get(execution_id)
        state = self._places.get((execution_id, after)) if after else NEW
        if state is None:
            state = self._fold(execution_id, after)
        most = limit if at is None else max(0, min(limit, at - after))
        page = self._log.read(execution_id, after=after, limit=most + 1)
        turns = []
        for entry in page[:most]:
            before, state = state, evolved(state, entry)
            changes = changes_of(before, state)
            if step is None or concerns(step, entry, changes):
                turns.append(Turn(entry, changes))
        last = page[:most][-1].seq if most and page else after
        more = len(page) > most and (at is None or last < at)
        if more:
            self._places.put((execution_id, last), state)
        return Replayed(turns, state, more)

    def _fold(self, execution_id: int, at: int | None) -> Execution:
        state = NEW
        for entry in entries(self._log, execution_id, at=at):
            state = evolved(state, entry)
        return state

    # ------------------------------------------------------------------ verify
    def verify(self, execution_id: int) -> Verified:
        """Compare everything shown of the execution with its log. Raises ``NotFoundError``."""
        if self._log.summary(execution_id) is None and not self._log.count(execution_id):
            raise NotFoundError(
                f"there is no execution {execution_id}", remedy="see 'callboard executions'"
            )
        return Verification(execution_id, self._sources).run()
