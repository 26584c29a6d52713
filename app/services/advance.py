"""Moves an execution on: fold what is new, decide, append, commit, publish."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from app import failpoints
from app.engine.decide import Limits, decide
from app.engine.entry import Entry, UnknownEventError
from app.engine.events import Event, ExecutionFailed, StepScheduled
from app.engine.ports import (
    Clock,
    Dispatch,
    Dispatcher,
    Draft,
    DuplicateEventError,
    EventLog,
    NewId,
    Pointer,
)
from app.engine.state import NEW, Execution, evolve, replay
from app.engine.values import ValueNeeded, Values
from app.errors import CallboardError, UnavailableError
from app.services.cache import Lru
from app.services.catalog import CatalogService
from app.services.durable import durable
from app.services.family import Family
from app.services.inheritance import Inheritance, taken
from app.services.large import Storage
from app.services.reading import Reader

log = structlog.get_logger(__name__)

#: Events kept with a cached state; most templates read the newest, others are fetched.
KEPT_EVENTS = 64


@dataclass(frozen=True, slots=True)
class Cached:
    """A folded state with the events that its next decision probably reads."""

    state: Execution
    values: Values


class Advance:
    """The use case behind the actor ``advance``. Safe to run twice, and at once in two processes."""

    def __init__(
        self,
        events: EventLog,
        catalog: CatalogService,
        dispatcher: Dispatcher,
        reader: Reader,
        *,
        limits: Limits,
        storage: Storage,
        family: Family,
        clock: Clock,
        new_id: NewId,
        cached: int = 512,
    ) -> None:
        self._log = events
        self._catalog = catalog
        self._dispatcher = dispatcher
        self._reader = reader
        self._limits = limits
        self._storage = storage
        self._family = family
        self._inheritance = Inheritance(events, reader)
        self._clock = clock
        self._new_id = new_id
        self._cache: Lru[int, Cached] = Lru(cached)

    def advance(self, execution_id: int) -> int:
        """Decide until nothing follows; how many events were appended.

        Raises ``UnavailableError`` where the database or the broker does not answer; the wake
        then comes again, and what was appended but not published is published by the sweeper.
        Raises ``UnknownEventError`` where a newer version must go on: it comes again, too.
        """
        try:
            return self._advance_on(execution_id)
        except DuplicateEventError as exc:
            # Our fold was not what the log says: forget it and look again.
            self._cache.pop(execution_id)
            raise UnavailableError(f"execution {execution_id}: {exc.message}") from exc
        except UnknownEventError as exc:
            self._cache.pop(execution_id)
            log.warning("advance.stopped", execution_id=execution_id, error=str(exc))
            raise
        except (UnavailableError, BrokenLogError):
            raise
        except Exception as exc:
            # Whatever else went wrong goes wrong again next time: an execution that cannot go on ends.
            log.exception("advance.failed", execution_id=execution_id)
            return self._give_up(execution_id, exc)

    def _advance_on(self, execution_id: int) -> int:
        """Decide, and again where the outcome of what was decided was there already."""
        count = 0
        while entries := self._advance(execution_id):
            count += len(entries)
            if not taken(entries):
                break
        return count

    def due(self, execution_id: int, state: Execution) -> int:
        """How many events follow from *state* and are not in the log. Writes nothing."""
        if not state.is_running:
            return 0
        try:
            return len(self._decide(execution_id, Cached(state, Values())))
        except CallboardError:
            raise
        except Exception:  # noqa: BLE001 (as in ``advance``, where it is logged: one event would follow)
            return 1

    def known(self, execution_id: int) -> Execution | None:
        """The state that this process remembers of an execution; None where it remembers none."""
        cached = self._cache.get(execution_id)
        return None if cached is None else cached.state

    def _advance(self, execution_id: int) -> Sequence[Entry]:
        with self._log.transaction([execution_id]) as tx:
            known = self._cache.get(execution_id) or Cached(NEW, Values())
            read = tx.read(execution_id, after=known.state.version)
            cached = _fold(known, read)
            if not cached.state.is_running:
                self._cache.pop(execution_id)
                return ()
            failpoints.before("advance.decide")
            new = self._inheritance.applied(cached.state, self._decide(execution_id, cached))
            failpoints.after("advance.decide")
            if not new:
                self._cache.put(execution_id, _fold(known, durable(read)))
                return ()
            light = [
                self._storage.lighten(
                    tx, execution_id, self._family.begin(tx, execution_id, cached.state, event)
                )
                for event in new
            ]
            failpoints.before("advance.append")
            entries = tx.append(execution_id, [Draft(event) for event in light])
            failpoints.after("advance.append")
            failpoints.before("advance.commit")
        failpoints.after("advance.commit")
        # Only now: what was not committed must not be remembered.
        self._remember(execution_id, cached, entries)
        self._publish(execution_id, entries)
        return entries

    def _give_up(self, execution_id: int, reason: Exception) -> int:
        message = f"the engine could not go on: {type(reason).__name__}: {reason}"
        failed = ExecutionFailed({"kind": "internal", "message": message})
        with self._log.transaction([execution_id]) as tx:
            if tx.ended([execution_id]) or not tx.last_seq(execution_id):
                return 0
            entries = tx.append(execution_id, [Draft(failed)])
            state = replay([*tx.read(execution_id)[: -len(entries)], *entries])
        self._cache.pop(execution_id)
        self._family.settle(execution_id, state)
        return 1

    def _decide(self, execution_id: int, cached: Cached) -> list[Event]:
        playbook = self._catalog.playbook(cached.state.catalog_id)
        events = cached.values.events
        values = Values(events, now=self._clock(), new_id=self._new_id)
        while True:
            try:
                return decide(execution_id, playbook, cached.state, values, self._limits)
            except ValueNeeded as needed:
                call = needed.wanted.call
                if call is not None:
                    values.targets[call] = self._family.target(call)
                else:
                    self._reader.fetch(execution_id, needed.wanted, values)

    def _remember(self, execution_id: int, cached: Cached, entries: Sequence[Entry]) -> None:
        folded = _fold(cached, entries)
        if folded.state.is_running:
            self._cache.put(execution_id, folded)
        else:
            self._cache.pop(execution_id)
            self._family.settle(execution_id, folded.state)
            log.info(
                "execution.ended",
                execution_id=execution_id,
                path=folded.state.path,
                status=folded.state.status,
            )

    def _publish(self, execution_id: int, entries: Sequence[Entry]) -> None:
        now = self._clock()
        done = taken(entries)
        pointers = [
            Dispatch(
                Pointer(execution_id, event.step, event.visit, event.iteration, event.attempt),
                tool=event.tool,
                queue=event.queue,
                delay=max(0.0, event.not_before - now) if event.not_before else 0.0,
                nonce=entry.seq,
            )
            for entry in entries
            if isinstance(event := entry.event, StepScheduled) and event.key not in done
        ]
        if pointers:
            failpoints.before("advance.publish")
            self._dispatcher.dispatch(pointers)
            failpoints.after("advance.publish")
        self._family.wake(execution_id, [entry.event for entry in entries])


def _fold(cached: Cached, entries: Sequence[Entry]) -> Cached:
    state, events = cached.state, dict(cached.values.events)
    for entry in entries:
        if entry.seq != state.version + 1:
            raise BrokenLogError(
                f"execution {entry.execution_id}: event {state.version + 1} is missing"
            )
        state = evolve(state, entry.event, entry.seq)
        events[entry.seq] = entry.event
    if len(events) > KEPT_EVENTS:
        first = events.pop(1, None)
        events = dict(list(events.items())[-KEPT_EVENTS:])
        if first is not None:
            events[1] = first
    return Cached(state, Values(events))


class BrokenLogError(CallboardError):
    """The log of an execution has a gap: rows were removed by hand."""

    code = "broken_log"
