"""Which executions are old enough to go, and what the store does about it.

What one start led to, by sub-playbooks, is a family: it goes from its ends up, and its top last. So
nothing that is left was started by something that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from app.engine.ports import ExecutionSummary


@dataclass(frozen=True, slots=True)
class Expiry:
    """What may go: families that ended before a moment.

    ``keep``, ``statuses`` (none: all) and ``path`` look at the top of a family: the newest *keep*
    of each path stay. ``keep`` None keeps none for its place alone.
    """

    ended_before: datetime
    keep: int | None = None
    statuses: tuple[str, ...] = ()
    path: str | None = None

    def fits(self, top: ExecutionSummary) -> bool:
        """Whether *top* alone is what is meant, leaving aside how many are kept."""
        return (
            self.is_past(top)
            and self.path in {None, top.path}
            and (not self.statuses or top.status in self.statuses)
        )

    def is_past(self, member: ExecutionSummary) -> bool:
        """Whether *member* has ended long enough ago."""
        return member.ended_at is not None and member.ended_at < self.ended_before


class Member(NamedTuple):
    """An execution of a family, and how many events it has."""

    summary: ExecutionSummary
    events: int

    @property
    def execution_id(self) -> int:
        return self.summary.execution_id


class RetentionStore(Protocol):
    """Finds and removes what is old. Every method raises ``UnavailableError``.

    Implementations: ``store.retention`` (Postgres) and ``store.memory_retention``.
    """

    def tops(self, *, after: int, before: datetime, limit: int) -> list[ExecutionSummary]:
        """Executions that no other one that is there started, ascending, with ids above *after*
        and made before the moment *before*."""

    def family(self, top: int) -> list[Member]:
        """*top* and all below it, each before the one that started it."""

    def value_names(self, execution_id: int) -> list[str]:
        """The names under which values of the execution are stored beside its events."""

    def oldest_kept(self, path: str, keep: int) -> int:
        """The id of the oldest of the *keep* newest ended tops of *path*; 0 where all are kept."""

    def remove(self, members: Mapping[int, int], *, ended_before: datetime) -> list[int]:
        """Remove these executions, each with as many events as is said, in one transaction.

        Returns those that are gone. The others stay: whoever appends to them, or removes them, holds
        their lock; they have not ended before that moment, or have other events than those; an
        execution that they started is left, or one above them runs; or they, or one above them, led
        by retries or sub-playbooks to a retry that runs. Their events, summary and stored values
        go, and their ids are noted for ``removed``.
        """

    def removed(self, limit: int, *, after: int = 0) -> list[int]:
        """Ids above *after*, ascending, of executions that are gone, and of which something may be
        left elsewhere."""

    def forget(self, execution_ids: Iterable[int]) -> None:
        """Nothing of these is left anywhere."""


@dataclass(frozen=True, slots=True)
class Expired:
    """Executions that may go, in an order in which they may; ``behind``: where to look further,
    None where there is nothing behind."""

    members: Sequence[Member]
    behind: int | None
