"""The memory twin of what removes old executions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from app.engine.events import ExecutionStarted
from app.engine.ports import ExecutionSummary
from app.engine.retention import Member
from app.store.ids import first_id_at
from app.store.memory import MemoryLog
from app.store.rows import RUNNING
from app.store.shelf import Shelf


class MemoryRetention:
    """Old executions of a log in memory; see ``RetentionStore``."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._removed: set[int] = set()

    @property
    def _shelf(self) -> Shelf:
        return self._log.shelf

    def tops(self, *, after: int, before: datetime, limit: int) -> list[ExecutionSummary]:
        known = {row.execution_id: row for row in self._shelf.summaries()}
        bound = first_id_at(before)
        found = [
            row
            for execution_id, row in sorted(known.items())
            if after < execution_id < bound and row.parent_execution_id not in known
        ]
        return found[:limit]

    def family(self, top: int) -> list[Member]:
        below: dict[int | None, list[ExecutionSummary]] = {}
        for row in self._shelf.summaries():
            below.setdefault(row.parent_execution_id, []).append(row)
        summary = self._shelf.book(top).summary
        level = [] if summary is None else [summary]
        found: list[ExecutionSummary] = []
        while level:
            found = [*sorted(level, key=lambda row: row.execution_id), *found]
            level = [child for row in level for child in below.get(row.execution_id, ())]
        return [Member(row, len(self._shelf.book(row.execution_id).rows)) for row in found]

    def value_names(self, execution_id: int) -> list[str]:
        return sorted(self._shelf.book(execution_id).values)

    def oldest_kept(self, path: str, keep: int) -> int:
        known = {row.execution_id for row in self._shelf.summaries()}
        ended = sorted(
            row.execution_id
            for row in self._shelf.summaries()
            if row.path == path and row.status != RUNNING and row.parent_execution_id not in known
        )
        return ended[-keep] if len(ended) >= keep else 0

    def remove(self, members: Mapping[int, int], *, ended_before: datetime) -> list[int]:
        with self._log.unless_locked(members) as locked:
            summaries = self._shelf.summaries()
            held = self._held({row.execution_id: row for row in summaries})
            ids = {
                each
                for each in locked
                if self._has_ended(each, members[each], ended_before) and each not in held
            }
            while holding := self._holding(ids, summaries):
                ids -= holding
            self._shelf.remove(ids)
            self._removed |= ids
        return sorted(ids)

    def removed(self, limit: int, *, after: int = 0) -> list[int]:
        return sorted(each for each in self._removed if each > after)[:limit]

    def forget(self, execution_ids: Iterable[int]) -> None:
        self._removed -= set(execution_ids)

    def _has_ended(self, execution_id: int, events: int, before: datetime) -> bool:
        book = self._shelf.book(execution_id)
        ended = None if book.summary is None else book.summary.ended_at
        return ended is not None and ended < before and len(book.rows) == events

    def _held(self, known: Mapping[int, ExecutionSummary]) -> set[int]:
        """What runs, what running retries lead back to, and all that either of them started."""
        running = [row for row in known.values() if row.status == RUNNING]
        held = {row.execution_id for row in running}
        waiting = [row for row in running if self._retry_of(row) is not None]
        while waiting:
            row = waiting.pop()
            for above in (row.parent_execution_id, self._retry_of(row)):
                if above is not None and above in known and above not in held:
                    held.add(above)
                    waiting.append(known[above])
        # Ids grow from parent to child.
        for each, row in sorted(known.items()):
            if row.parent_execution_id in held:
                held.add(each)
        return held

    def _retry_of(self, row: ExecutionSummary) -> int | None:
        first = self._shelf.rows(row.execution_id)[0].entry(row.execution_id).event
        return first.retry_of if isinstance(first, ExecutionStarted) else None

    @staticmethod
    def _holding(ids: set[int], summaries: list[ExecutionSummary]) -> set[int]:
        return {
            row.parent_execution_id
            for row in summaries
            if row.parent_execution_id in ids
            and row.execution_id not in ids
            and row.parent_execution_id is not None
        }
