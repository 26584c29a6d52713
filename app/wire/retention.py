"""What crosses HTTP when old executions are removed."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from app.wire.base import Id, Wire

#: A hundred years in seconds.
LONGEST = 3_153_600_000.0
#: Events that one transaction removes at the most, save where a single execution has more.
EVENTS = 20_000


class PruneMember(Wire):
    """An execution, by how many events it has: one that got another meanwhile stays."""

    execution_id: Id
    events: int = Field(ge=1)


class Prune(Wire):
    """Remove executions that have ended, with all below them; one call, one transaction, of not more
    than 20,000 events unless a single one has more.

    ``older_than`` (seconds since their end) or ``ended_before`` says which; with ``keep`` alone those
    that ended an hour ago. ``keep``, ``status`` and ``path`` look at the executions that no other one
    started: the newest ``keep`` of each path stay. ``after`` is where the last call stopped
    (``behind``). With ``executions`` those alone are removed, whatever their events, and of them
    only what may go. ``dry_run`` removes nothing and lists what would go, of a page of executions.
    """

    older_than: float | None = Field(None, ge=0, le=LONGEST)
    ended_before: datetime | None = None
    keep: int | None = Field(None, ge=0, le=1_000_000)
    status: list[Literal["COMPLETED", "FAILED", "CANCELLED"]] = []
    path: str | None = None
    dry_run: bool = False
    batch: int = Field(20, ge=1, le=1000)
    after: Id = "0"
    executions: list[PruneMember] | None = Field(None, max_length=1000)


class Pruned(Wire):
    """``executions`` are those that went, or would go; ``behind`` is null where all was looked at."""

    executions: list[PruneMember]
    behind: Id | None = None
    ended_before: datetime
    dry_run: bool
