"""What this process knows of an execution without asking: what it remembers, and what it wrote since.

A worker mostly reports to the process that told it what to do. Then nothing of what the log says is
news, and the report needs one round trip to the database in place of two: what follows is written if
the log is as assumed, and judged by a fresh look if it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from app.engine.ahead import Standing
from app.engine.entry import Entry, payload_of
from app.engine.events import (
    EXECUTION_ENDS,
    NO_LOOP,
    Event,
    ExecutionPaused,
    ExecutionResumed,
    StepKey,
    StepScheduled,
    StepStarted,
)
from app.engine.ports import AttemptState
from app.services.advance import Advance, Cached
from app.services.cache import Lru

#: Executions of which is remembered what was written since, and whose assumptions failed.
REMEMBERED = 1024
#: Events kept beside what is remembered of an execution.
MOST_SINCE = 64
#: Assumptions that may fail before an execution is known to have several writers.
MOST_FAILED = 3


@dataclass(frozen=True, slots=True)
class Since:
    """What was written after ``version``, up to which an execution is remembered.

    ``key`` is the idempotency key of the last of ``entries``, if a crash of the database may take it
    back.
    """

    version: int
    entries: tuple[Entry, ...] = ()
    key: str | None = None

    @property
    def seq(self) -> int:
        """Of the newest event that is known."""
        return self.version + len(self.entries)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Where executions stand, what is known of them and was written since, and the state of attempts."""

    standings: Mapping[int, Standing]
    since: Mapping[int, Since]
    attempts: Mapping[tuple[int, StepKey], AttemptState]


class Foresight:
    """Looks into what *advance* remembers. Safe to share between threads."""

    def __init__(self, advance: Advance) -> None:
        self._advance = advance
        self._since: Lru[int, Since] = Lru(REMEMBERED)
        self._failed: Lru[int, int] = Lru(REMEMBERED)

    def since(self, execution_id: int, version: int) -> Since:
        """What was written after *version*, as far as it is known."""
        found = self._since.get(execution_id)
        return found if found is not None and found.version == version else Since(version)

    def of(
        self, reported: Iterable[tuple[int, StepKey]], claimed: Iterable[tuple[int, StepKey]]
    ) -> Foreseen | None:
        """What is to be known for judging these; None where some of it is not."""
        standings: dict[int, Standing] = {}
        since: dict[int, Since] = {}
        attempts: dict[tuple[int, StepKey], AttemptState] = {}
        for places, is_claim in ((reported, False), (claimed, True)):
            for place in places:
                execution_id, key = place
                cached = self._advance.cached(execution_id)
                if cached is None or not cached.state.is_running or self._has_others(execution_id):
                    return None
                written = self.since(execution_id, cached.state.version)
                state = _attempt(key, cached, written.entries)
                if state is None or (is_claim and state.started_by is not None):
                    return None
                attempts[place] = state
                since[execution_id] = written
                standings[execution_id] = _standing(cached, written)
        return Foreseen(standings, since, attempts) if standings else None

    def _has_others(self, execution_id: int) -> bool:
        return (self._failed.get(execution_id) or 0) >= MOST_FAILED

    def failed(self, execution_ids: Iterable[int]) -> None:
        """Take note that one of these was not as it was assumed to be."""
        for execution_id in execution_ids:
            self._since.pop(execution_id)
            self._failed.put(execution_id, (self._failed.get(execution_id) or 0) + 1)

    def wrote(
        self, execution_id: int, before: Since, entries: Sequence[Entry], key: str | None
    ) -> None:
        """Take note of *entries*, which were committed; *before* is what was known then.

        *key* is that of the last one, if it need not be on disk yet.
        """
        after = Since(before.version, (*before.entries, *entries), key)
        follows = bool(entries) and before.seq + 1 == entries[0].seq
        if follows and len(after.entries) <= MOST_SINCE and not any(map(_changes_all, entries)):
            self._since.put(execution_id, after)
        else:
            self._since.pop(execution_id)


def _standing(cached: Cached, since: Since) -> Standing:
    state = cached.state
    return Standing(since.seq, state.catalog_id, state.parent_execution_id, state.paused, since.key)


def _changes_all(entry: Entry) -> bool:
    event = entry.event
    return isinstance(event, ExecutionPaused | ExecutionResumed) or event.type in EXECUTION_ENDS


def _attempt(key: StepKey, cached: Cached, since: Sequence[Entry]) -> AttemptState | None:
    """The newest attempt of *key*, where it goes on; None where it does not, or that is not known."""
    worker: str | None = None
    for seq, event in _backwards(cached, since):
        if getattr(event, "step", None) != key.step or getattr(event, "visit", None) != key.visit:
            continue
        if getattr(event, "iteration", NO_LOOP) != key.iteration:
            continue
        if isinstance(event, StepStarted):
            worker = event.worker
        elif isinstance(event, StepScheduled):
            return AttemptState(
                attempt=event.attempt,
                queue=event.queue,
                scheduled_seq=seq,
                started_by=worker,
                scheduled=payload_of(event),
            )
        else:
            return None  # whatever it says, it takes more than a look at the newest events
    return None


def _backwards(cached: Cached, since: Sequence[Entry]) -> Iterable[tuple[int, Event]]:
    """The newest events, without a gap: what is older may be remembered in parts."""
    yield from ((entry.seq, entry.event) for entry in reversed(since))
    seq = cached.state.version
    while (event := cached.values.events.get(seq)) is not None:
        yield seq, event
        seq -= 1
