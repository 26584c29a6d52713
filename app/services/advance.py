"""Moves an execution on: fold what is new, decide, append, commit, publish."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from app import failpoints
from app.engine.ahead import Ahead
from app.engine.decide import Limits, decide
from app.engine.entry import Entry, UnknownEventError
from app.engine.events import (
    Event,
    ExecutionFailed,
    StepDone,
    StepKey,
    StepScheduled,
)
from app.engine.ports import (
    Clock,
    Dispatch,
    Dispatcher,
    Draft,
    DuplicateEventError,
    EventLog,
    LogTransaction,
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
#: Events that are read of an execution which shares its transaction with others, and seconds after
#: which those that follow get one of their own.
SHORT, PATIENCE = 500, 0.25


@dataclass(frozen=True, slots=True)
class Cached:
    """A folded state with the events that its next decision probably reads."""

    state: Execution
    values: Values


@dataclass(slots=True)
class Turn:
    """One execution's share of a transaction: what was *known* and *read*, and what follows.

    ``cached`` is where it stands then, and ``after`` where it will with what follows.
    """

    execution_id: int
    known: Cached
    read: Sequence[Entry]
    cached: Cached
    after: Cached | None = None
    events: Sequence[Event] = ()
    entries: Sequence[Entry] = ()
    #: It was left out: it would have kept others waiting.
    is_put_off: bool = False
    #: What kept its pointers, or its children's wakes, from being sent.
    trouble: CallboardError | None = None
    #: What is claimed already, so that nobody needs a pointer to it.
    handed: StepKey | None = None

    @property
    def again(self) -> bool:
        """The outcome of what was decided was there already: there is more to decide."""
        return bool(taken(self.entries))

    def pointers(self, now: float) -> list[Dispatch]:
        """Where the work is that was scheduled."""
        done, paces = taken(self.entries), _paces(self.read)
        return [
            Dispatch(
                Pointer(self.execution_id, event.step, event.visit, event.iteration, event.attempt),
                tool=event.tool,
                queue=event.queue,
                delay=max(0.0, event.not_before - now) if event.not_before else 0.0,
                nonce=entry.seq,
                pace=paces.get(event.step),
            )
            for entry in self.entries
            if isinstance(event := entry.event, StepScheduled)
            and event.key not in done
            and event.key != self.handed
        ]

    def only_scheduled(self) -> StepScheduled | None:
        """What is to be done next, where that is one unit of work and no other took it over."""
        found = [event for event in self.events if isinstance(event, StepScheduled)]
        if len(found) != 1 or any(isinstance(event, StepDone) for event in self.events):
            return None
        return found[0]


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
            self.forget(execution_id)
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

    def decide_many(self, execution_ids: Sequence[int]) -> list[Turn]:
        """One decision for each of these, in order, in one transaction and one publish.

        What would keep the others waiting is put off. Each is to be concluded.
        """
        try:
            return self._advance(execution_ids, shared=True)
        except Exception as exc:  # noqa: BLE001 (each says so again, for itself alone)
            log.info("advance.one_by_one", executions=len(execution_ids), error=str(exc))
            return [_put_off(execution_id) for execution_id in execution_ids]

    def conclude(self, turn: Turn) -> int:
        """What is left to do after ``decide_many``; how many events were appended in all.

        Raises as ``advance`` does.
        """
        if turn.is_put_off:
            return self.advance(turn.execution_id)
        self._finish(turn)
        return len(turn.entries) + (self.advance(turn.execution_id) if turn.again else 0)

    def _advance_on(self, execution_id: int) -> int:
        """Decide, and again where the outcome of what was decided was there already."""
        count = 0
        while True:
            (turn,) = self._advance([execution_id])
            self._finish(turn)
            count += len(turn.entries)
            if not turn.again:
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

    def cached(self, execution_id: int) -> Cached | None:
        """The same with its newest events."""
        return self._cache.get(execution_id)

    def _advance(self, execution_ids: Sequence[int], *, shared: bool = False) -> list[Turn]:
        """One decision for each of these: read, decided and appended in one transaction.

        A *shared* one waits for nobody's lock: others would wait for those it holds.
        """
        known = self.recalled(execution_ids)
        ahead = Ahead(after={i: cached.state.version for i, cached in known.items()})
        with self._log.transaction(execution_ids, ahead=ahead, waits=not shared) as tx:
            turns = list(self._turns(tx, known, shared=shared))
            decided = [turn for turn in turns if turn.events]
            if decided:
                failpoints.before("advance.append")
                for turn in decided:
                    drafts = [Draft(event) for event in turn.events]
                    turn.entries = tx.append(turn.execution_id, drafts)
                failpoints.after("advance.append")
                failpoints.before("advance.commit")
        if decided:
            failpoints.after("advance.commit")
        self.committed(turns)
        return turns

    def recalled(self, execution_ids: Iterable[int]) -> dict[int, Cached]:
        """What this process remembers of each; the beginning where it remembers nothing."""
        return {i: self._cache.get(i) or Cached(NEW, Values()) for i in execution_ids}

    def forget(self, execution_id: int) -> None:
        """Remember nothing of it: something is not as it was thought to be."""
        self._cache.pop(execution_id)

    def foretell(self, turns: Iterable[Turn]) -> None:
        """Make what will be remembered of *turns*, if what they decided is committed."""
        for turn in turns:
            if turn.entries and turn.after is None:
                turn.after = _fold(turn.cached, turn.entries)

    def committed(self, turns: Sequence[Turn]) -> None:
        """Remember and send what was decided. Only now: nothing is that was not committed."""
        self.foretell(turns)
        decided = [turn for turn in turns if turn.entries]
        for turn in decided:
            assert turn.after is not None
            turn.cached = turn.after
            self._reader.remember([*turn.read, *turn.entries])
        for turn in turns:
            self._remember(turn)
        self._publish(decided)

    def _turns(
        self, tx: LogTransaction, known: Mapping[int, Cached], *, shared: bool
    ) -> Iterator[Turn]:
        """What follows for each. Those that share their locks must not wait long for one another."""
        began = self._clock()
        for execution_id, cached in known.items():
            if shared and (
                execution_id not in tx.held
                or tx.last_seq(execution_id) - cached.state.version > SHORT
                or self._clock() - began > PATIENCE
            ):
                yield _put_off(execution_id)
            else:
                yield self._turn(tx, execution_id, cached)

    def _turn(self, tx: LogTransaction, execution_id: int, known: Cached) -> Turn:
        turn = self.folded(execution_id, known, tx.read(execution_id, after=known.state.version))
        self.prepare(tx, turn, self.following(turn))
        return turn

    def folded(self, execution_id: int, known: Cached, read: Sequence[Entry]) -> Turn:
        """Where an execution stands; *read* are all of its events that are not *known*."""
        return Turn(execution_id, known, read, _fold(known, read))

    def following(self, turn: Turn) -> list[Event]:
        """What follows for one execution. Writes nothing."""
        state = turn.cached.state
        if not state.is_running:
            return []
        failpoints.before("advance.decide")
        new = self._inheritance.applied(state, self._decide(turn.execution_id, turn.cached))
        failpoints.after("advance.decide")
        return new

    def prepare(self, tx: LogTransaction, turn: Turn, events: Iterable[Event]) -> None:
        """Make *events* those of *turn*, as the log shall have them, to be appended next."""
        state = turn.cached.state
        begun = (self._family.begin(tx, turn.execution_id, state, event) for event in events)
        turn.events = [self._storage.lighten(tx, turn.execution_id, event) for event in begun]

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

    def _remember(self, turn: Turn) -> None:
        if turn.is_put_off:
            return
        if not turn.cached.state.is_running:
            self._cache.pop(turn.execution_id)
        elif turn.entries:
            self._cache.put(turn.execution_id, turn.cached)
        else:
            self._cache.put(turn.execution_id, _fold(turn.known, durable(turn.read)))

    def finish(self, turn: Turn) -> bool:
        """Do what is left for a *turn* that was ``committed``; whether nothing is left to be decided."""
        try:
            self._finish(turn)
        except CallboardError as exc:
            log.warning("advance.unsettled", execution_id=turn.execution_id, error=str(exc))
            return False
        return not turn.again

    def _finish(self, turn: Turn) -> None:
        """See to the family of one that ended; then say what went wrong with the publish."""
        state = turn.cached.state
        if turn.entries and not state.is_running:
            self._family.settle(turn.execution_id, state)
            log.info(
                "execution.ended",
                execution_id=turn.execution_id,
                path=state.path,
                status=state.status,
            )
        if turn.trouble is not None:
            raise turn.trouble

    def _publish(self, turns: Sequence[Turn]) -> None:
        """Send all pointers, and wake the children of each; what went wrong is kept with the turn."""
        pointers = [pointer for turn in turns for pointer in turn.pointers(self._clock())]
        if pointers:
            try:
                failpoints.before("advance.publish")
                self._dispatcher.dispatch(pointers)
                failpoints.after("advance.publish")
            except CallboardError as exc:
                for turn in turns:
                    turn.trouble = exc
        for turn in turns:
            try:
                self._family.wake(turn.execution_id, turn.events)
            except CallboardError as exc:
                turn.trouble = turn.trouble or exc


def _put_off(execution_id: int) -> Turn:
    nothing = Cached(NEW, Values())
    return Turn(execution_id, nothing, (), nothing, is_put_off=True)


def _paces(entries: Iterable[Entry]) -> dict[str, float]:
    """How many seconds an iteration took, by loop, of those that ended in *entries*."""
    taken: dict[str, list[float]] = {}
    for entry in entries:
        event = entry.event
        if isinstance(event, StepDone) and event.iteration >= 0 and event.duration_ms is not None:
            taken.setdefault(event.step, []).append(event.duration_ms / 1000)
    return {step: sum(each) / len(each) for step, each in taken.items()}


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
