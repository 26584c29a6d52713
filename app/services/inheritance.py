"""What a retry takes over from the execution that ended badly: work that was done is not done again.

A retry walks the same way as the execution before it, decision by decision. Where it comes to a unit
of work that was done there, its outcome is copied instead of a pointer being sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from app.engine.entry import Entry
from app.engine.events import ChildStarted, Event, StepDone, StepKey, StepScheduled
from app.engine.ports import EventLog
from app.engine.state import Execution
from app.services.reading import Reader


class Inheritance:
    """Looks up in the log of the execution before what a retry need not do."""

    def __init__(self, events: EventLog, reader: Reader) -> None:
        self._log = events
        self._reader = reader

    def applied(self, state: Execution, events: list[Event]) -> list[Event]:
        """*events* of a decision, then the outcome of each first attempt that was made before.

        The outcomes come last, as events of a decision name each other by their numbers; but where
        the decision itself ends what it began (a sub-playbook that nobody waits for), in that place.
        """
        if state.retry_of is None:
            return events
        keys = [
            event.key for event in events if _begins(event) and event.key.step not in state.redo
        ]
        done = self._log.done(state.retry_of, keys)
        copies = {key: self._copied(state.retry_of, done[key]) for key in keys if key in done}
        told = [self._instead(event, copies) for event in events]
        ended = {event.key for event in events if isinstance(event, StepDone)}
        return [*told, *(copy for key, copy in copies.items() if key not in ended)]

    @staticmethod
    def _instead(event: Event, copies: Mapping[StepKey, StepDone]) -> Event:
        if isinstance(event, ChildStarted) and event.key in copies:
            return _in_place_of(event)
        return copies.get(event.key, event) if isinstance(event, StepDone) else event

    def _copied(self, before: int, entry: Entry) -> StepDone:
        """The outcome as an event of its own: what it kept beside the log is kept anew, as the
        execution before may be pruned."""
        old = entry.event
        assert isinstance(old, StepDone)
        ctx = {
            name: self._reader.resolved(before, value) for name, value in (old.ctx or {}).items()
        }
        result = self._reader.resolved(before, old.result)
        return StepDone(*old.key, 1, result, ctx or None, old.tail, taken_from=before)


def taken(entries: Sequence[Entry]) -> frozenset[StepKey]:
    """The units of work among *entries* that another execution did."""
    return frozenset(
        entry.event.key
        for entry in entries
        if isinstance(entry.event, StepDone) and entry.event.taken_from is not None
    )


def _begins(event: Event) -> TypeGuard[StepScheduled | ChildStarted]:
    """*event* sends a unit of work out for the first time."""
    if isinstance(event, ChildStarted):
        return not event.resumes
    return isinstance(event, StepScheduled) and event.attempt == 1


def _in_place_of(event: ChildStarted) -> StepScheduled:
    """What begins the step where no child is started: its result is there."""
    return StepScheduled(
        *event.key,
        attempt=1,
        tool="playbook",
        queue="",
        reads={},
        source=event.source,
        source_visit=event.source_visit,
    )
