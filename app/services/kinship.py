"""Which executions belong to one family: what one start led to, by sub-playbooks and retries."""

from __future__ import annotations

from app.engine.events import ExecutionStarted
from app.engine.ports import EventLog
from app.services.cache import Lru


class Kinship:
    """Walks up from children to parents; what it finds never changes."""

    def __init__(self, events: EventLog, *, remembered: int = 1024) -> None:
        self._log = events
        self._roots: Lru[int, int] = Lru(remembered)

    def related(self, one: int, other: int) -> bool:
        """Whether both began with the same execution."""
        return one == other or self.root(one) == self.root(other)

    def root(self, execution_id: int) -> int:
        """The execution that nobody called, at the top of this one's family."""
        known = self._roots.get(execution_id)
        if known is not None:
            return known
        root, above = execution_id, self._above(execution_id)
        # Ids grow from parent to child, so this ends.
        while above is not None and 0 < above < root:
            root, above = above, self._above(above)
        if above is not None:
            self._roots.put(execution_id, root)
        return root

    def _above(self, execution_id: int) -> int | None:
        """The execution that led to this one; 0 where none did, None where this one is unknown."""
        row = self._log.summary(execution_id)
        if row is None:
            return None
        if row.parent_execution_id is not None:
            return row.parent_execution_id
        found = self._log.read(execution_id, limit=1)
        if not found:
            return None  # it was removed since
        first = found[0].event
        return (first.retry_of or 0) if isinstance(first, ExecutionStarted) else 0
