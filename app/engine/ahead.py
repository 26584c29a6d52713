"""What a transaction of the log is told before it begins, so that it costs fewer round trips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.engine.events import StepKey
from app.errors import CallboardError


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a running execution stands, as far as its writer knows.

    ``seq`` is that of its newest event; 0: it is about to begin. ``key`` is that event's idempotency
    key, where its seq alone does not say which event it is: a claim may be taken back by a crash of
    the database, and its seq given to another event.
    """

    seq: int = 0
    catalog_id: int | None = None
    parent_execution_id: int | None = None
    paused: bool = False
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a transaction will surely read, so that it may come along with the locks.

    ``after``: by execution the seq after which its events are wanted, the first ``most`` of them.
    ``attempts``: the keys whose state is.

    ``assumed``: where every execution of the transaction stands. Then nothing is read at all: what
    is appended is written under the locks if all of it is as assumed, in one round trip.
    """

    after: Mapping[int, int] = field(default_factory=dict)
    attempts: Sequence[tuple[int, StepKey]] = ()
    most: int | None = None
    assumed: Mapping[int, Standing] = field(default_factory=dict)


NOTHING = Ahead()


class NotAsAssumedError(CallboardError):
    """The log is not as it was assumed to be, or more of it is needed. Nothing was written."""

    code = "not_as_assumed"
