"""Which executions belong to one family: those that one start led to, through sub-playbooks."""

from __future__ import annotations

from app.engine.ports import EventLog
from app.services.cache import Lru


class Kinship:
    """Walks up from children to parents; what it finds never changes."""

    def __init__(self, events: EventLog, *, remembered: int = 4096) -> None:
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
        root = execution_id
        # Ids grow from parent to child, so this ends.
        while (row := self._log.summary(root)) is not None and row.parent_execution_id is not None:
            if row.parent_execution_id >= root:
                break
            root = row.parent_execution_id
        if row is not None:
            self._roots.put(execution_id, root)
        return root
