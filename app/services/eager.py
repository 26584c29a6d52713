"""What follows a start or a report, decided in its own transaction instead of by an orchestrator.

The usual way from one step to the next is long: the report's wake, an orchestrator, a pointer, a
worker's claim. Here the worker finds the next step in the answer to its report, claimed for it in the
same commit. The log says the same; what is saved are a wake, a message, a request and a commit.
Whatever does not fit is left to an orchestrator: wide loops, several steps that follow, a queue or a tool
that the worker does not serve, retries, ends that others wait for, a log that is long and not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import structlog

from app.engine.ahead import NotAsAssumedError, Standing
from app.engine.entry import Entry
from app.engine.events import (
    EXECUTION_ENDS,
    NO_LOOP,
    ExecutionStarted,
    StepKey,
    StepScheduled,
    StepStarted,
)
from app.engine.ports import Clock, Draft, DuplicateEventError, LogTransaction
from app.engine.state import Execution
from app.errors import ForbiddenError
from app.services.advance import KEPT_EVENTS, Advance, Cached, Turn
from app.services.briefing import Granted
from app.services.cache import Lru
from app.services.catalog import CatalogService
from app.services.foresight import Foreseen, Foresight, Since
from app.wire import Exchange, PointerWire, Report, Serves

log = structlog.get_logger(__name__)

#: Events that are read for a decision, as many as are kept with a state; of more an orchestrator
#: remembers some. And events that one may give: more is work for an orchestrator.
MOST_READ, MOST_DECIDED = KEPT_EVENTS, 16
#: Seconds for which one transaction decides: others wait for its locks.
PATIENCE = 0.1
#: Executions remembered as too long.
REMEMBERED = 1024


Place = tuple[int, StepKey]
#: An execution, what was appended to it, and the last one's idempotency key if it need not be on disk.
Written = tuple[int, Sequence[Entry], str | None]


class NotDecidedError(Exception):
    """It cannot be decided here. The transaction is to be given up, and done again without."""


@dataclass(slots=True)
class Room:
    """What may be decided in one transaction: ``known`` are the executions, as they are remembered.

    What follows may be handed to the ``worker``, where that ``serves`` it and the ``pool`` of its
    token, if it is limited to one, is the step's. ``turns`` is what was decided. What is ``foreseen``
    is not read.
    """

    worker: str = ""
    serves: Serves | None = None
    pool: str | None = None
    until: float = 0.0
    known: Mapping[int, Cached] = field(default_factory=dict)
    news: dict[int, list[Entry]] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    foreseen: Foreseen | None = None
    is_closed: bool = False

    @property
    def ahead(self) -> dict[int, int]:
        """By execution the seq from which on it is not known."""
        return {i: cached.state.version for i, cached in self.known.items()}

    def closed(self) -> Room:
        """The same where nothing is decided."""
        return Room(self.worker, self.serves, self.pool, is_closed=True)

    def may_have(self, step: StepScheduled) -> bool:
        """Whether *step* can be handed to the worker."""
        if self.serves is None or step.not_before is not None:
            return False
        ours = self.pool is None or step.queue.startswith(f"{self.pool}.")
        return ours and step.queue in self.serves.queues and step.tool in self.serves.tools


class Eager:
    """Decides for ``Executions`` and ``Work``: room first, then ``look`` and a decision in the
    transaction, and ``conclude`` after it.
    """

    def __init__(
        self, advance: Advance, catalog: CatalogService, *, clock: Clock, is_on: bool = True
    ) -> None:
        self._advance = advance
        self._catalog = catalog
        self._clock = clock
        self._is_on = is_on
        self._too_long: Lru[int, bool] = Lru(REMEMBERED)
        self._foresight = Foresight(advance)

    def starting(self, execution_id: int, started: ExecutionStarted, *, is_alone: bool) -> Room:
        """Room for the first decision of an execution, which *is alone* if no other has to do with it."""
        if not self._is_on or started.retry_of is not None:
            return Room()
        until = self._clock() + PATIENCE
        # Most often its id was just made.
        foreseen = Foreseen({execution_id: Standing()}, {execution_id: Since(0)}, {})
        return Room(
            until=until,
            known=self._advance.recalled([execution_id]),
            foreseen=foreseen if is_alone else None,
        )

    def exchanging(self, request: Exchange, pool: str | None) -> Room:
        """Room for what follows the reports of *request*, with what is foreseen of all that it names.

        *pool* is the one that the caller's token is limited to.
        """
        room = self._reporting(request, pool)
        if self._is_on:
            reported = [attempt_place(report) for report in request.reports]
            others = [attempt_place(pointer) for pointer in (*request.claims, *request.released)]
            room.foreseen = self._foresight.of(reported, others)
        return room

    def _reporting(self, request: Exchange, pool: str | None) -> Room:
        room = Room(request.worker, request.serves, pool)
        if not self._is_on or request.serves is None:
            return room
        ids = {report.execution_id for report in request.reports if self._may_follow(report)}
        room.until, room.known = self._clock() + PATIENCE, self._advance.recalled(ids)
        return room

    def _may_follow(self, report: Report) -> bool:
        """Whether it is worth while to look what follows *report*."""
        if not _goes_on(report) or self._too_long.get(report.execution_id):
            return False
        if report.iteration == NO_LOOP:
            return True
        # Of wide loops iterations are decided many at a time.
        known = self._advance.known(report.execution_id)
        return known is not None and not self._is_wide(known, report.step)

    def _is_wide(self, state: Execution, step: str) -> bool:
        return self._catalog.playbook(state.catalog_id).is_wide(step)

    def narrower(self, room: Room, failed: Exception) -> Room | None:
        """Room for another try where the one with *room* failed; None where that would not help.

        It was judged by what was foreseen, and is not so. Or by a view that lacked the newest
        events, and the keys refused what followed from that: a fresh look answers everything in
        it. Or what follows could not be decided, which is no reason to refuse what is reported.
        """
        if room.foreseen is not None:
            log.debug("eager.not_foreseen", error=str(failed))
            self._foresight.failed(room.foreseen.standings)
            return Room(room.worker, room.serves, room.pool, room.until, room.known)
        if isinstance(failed, ForbiddenError) or room.is_closed:
            return None
        if not room.known and not isinstance(failed, DuplicateEventError):
            return None
        for execution_id in room.known:
            self._advance.forget(execution_id)
        return room.closed()

    # ------------------------------------------------------------------ in the transaction
    def look(self, tx: LogTransaction, room: Room) -> None:
        """Read what is not known yet, before anything is appended."""
        for execution_id, version in room.ahead.items():
            if room.foreseen is not None:
                room.news[execution_id] = [*room.foreseen.since[execution_id].entries]
            elif tx.last_seq(execution_id) - version > MOST_READ:
                self._too_long.put(execution_id, True)
            else:
                with self._deciding(execution_id):
                    room.news[execution_id] = tx.read(execution_id, after=version)

    def begin(
        self, tx: LogTransaction, room: Room, execution_id: int, started: Sequence[Entry]
    ) -> None:
        """Decide and append what follows the start, which was just appended; or leave it.

        Raises ``NotDecidedError``.
        """
        with self._deciding(execution_id):
            turn = self._turn(tx, room, execution_id, started, behind=None)
            if turn is not None:
                turn.entries = tx.append(execution_id, [Draft(event) for event in turn.events])

    def follow(
        self, tx: LogTransaction, room: Room, report: Report, ended: Sequence[Entry]
    ) -> Granted | None:
        """Decide and append what follows *report*, whose events were just appended; or leave it.

        What its worker goes on with, if there is something. Raises ``NotDecidedError``, and
        ``DuplicateEventError`` where the log is not what it seems to be.
        """
        if not _goes_on(report):
            return None
        with self._deciding(report.execution_id):
            turn = self._turn(tx, room, report.execution_id, ended, behind=report.step)
            return None if turn is None else _handed(tx, room, turn, report)

    def _turn(
        self,
        tx: LogTransaction,
        room: Room,
        execution_id: int,
        new: Sequence[Entry],
        *,
        behind: str | None,
    ) -> Turn | None:
        """What follows the *new* events; None where that is not decided here."""
        if execution_id not in room.news or self._clock() > room.until:
            return None
        known, read = room.known[execution_id], [*room.news[execution_id], *new]
        if len(read) > MOST_READ:
            return None
        turn = self._advance.folded(execution_id, known, read)
        state = turn.cached.state
        if state.retry_of is not None:
            return None
        if self._catalog.playbook(state.catalog_id).leads_wide(behind):
            return None
        events = self._advance.following(turn)
        if len(events) > MOST_DECIDED or _ends_for_others(state, events):
            return None
        self._advance.prepare(tx, turn, events)
        room.turns.append(turn)
        return turn

    @contextmanager
    def _deciding(self, execution_id: int) -> Iterator[None]:
        try:
            yield
        except NotAsAssumedError:
            raise
        except DuplicateEventError:
            self._advance.forget(execution_id)
            raise
        except Exception as exc:
            self._advance.forget(execution_id)
            why = f"{type(exc).__name__}: {exc}"
            log.info("eager.left", execution_id=execution_id, error=why)
            raise NotDecidedError(why) from exc

    def again(self, tx: LogTransaction, room: Room, report: Report) -> Granted | None:
        """What *report*, which was sent before, was answered with then, if that is still to be done.

        Without this a step whose grant got lost would stay claimed by a worker that lives.
        """
        if room.serves is None:
            return None
        entry = tx.under(report.execution_id, _key_of(report))
        if entry is None or not isinstance(entry.event, StepStarted):
            return None
        place = (report.execution_id, entry.event.key)
        state = tx.attempts([place])[place]
        is_current = state.attempt == entry.event.attempt and state.started_by == room.worker
        ours = room.pool is None or state.queue.startswith(f"{room.pool}.")
        if not (is_current and ours) or state.fenced or state.ended:
            return None
        if tx.ended([report.execution_id]):
            return None
        return Granted(_wire(*place, state.attempt), state.scheduled_seq, state.scheduled)

    # ------------------------------------------------------------------ during the commit, and after
    def foretell(self, room: Room) -> None:
        """Make what will be remembered, if what was decided is committed."""
        self._advance.foretell(room.turns)

    def conclude(self, room: Room, written: Iterable[Written] = ()) -> frozenset[int]:
        """Remember what was decided and written, and send what was not handed over; which need no
        wake now.
        """
        self._advance.committed(room.turns)
        decided = {turn.execution_id for turn in room.turns}
        for execution_id, entries, key in written:
            if execution_id not in decided:
                self._foresight.wrote(execution_id, self._before(room, execution_id), entries, key)
        return frozenset(turn.execution_id for turn in room.turns if self._advance.finish(turn))

    def _before(self, room: Room, execution_id: int) -> Since:
        """What was known when the transaction began."""
        if room.foreseen is not None:
            return room.foreseen.since[execution_id]
        cached = self._advance.cached(execution_id)
        version = 0 if cached is None else cached.state.version
        if room.known.get(execution_id) is not cached or execution_id not in room.news:
            return self._foresight.since(execution_id, version)
        return Since(version, tuple(room.news[execution_id]))


def _handed(tx: LogTransaction, room: Room, turn: Turn, report: Report) -> Granted | None:
    """Append what *turn* decided, and a claim where one step follows that the worker may have."""
    drafts = [Draft(event) for event in turn.events]
    step = turn.only_scheduled()
    if step is None or not room.may_have(step):
        turn.entries = tx.append(turn.execution_id, drafts)
        return None
    claim = StepStarted(*step.key, attempt=step.attempt, worker=room.worker)
    turn.entries = tx.append(turn.execution_id, [*drafts, Draft(claim, _key_of(report))])
    turn.handed = step.key
    (seq,) = (entry.seq for entry in turn.entries if isinstance(entry.event, StepScheduled))
    new = {entry.seq: entry.event for entry in (*turn.read, *turn.entries)}
    return Granted(_wire(turn.execution_id, step.key, step.attempt), seq, event=step, new=new)


def _ends_for_others(state: Execution, events: Sequence[object]) -> bool:
    """Whether these end an execution that others are bound to: they are told, or cancelled."""
    ends = any(getattr(event, "type", "") in EXECUTION_ENDS for event in events)
    return ends and (state.caller is not None or bool(state.children))


def _key_of(report: Report) -> str:
    """The idempotency key of the claim that *report* brings along."""
    return f"handed:{report.key}"


def _goes_on(report: Report) -> bool:
    # Below are claims of cursors.
    return report.onward and report.outcome == "done" and report.iteration >= NO_LOOP


def attempt_place(pointer: PointerWire) -> Place:
    return pointer.execution_id, StepKey(pointer.step, pointer.visit, pointer.iteration)


def _wire(execution_id: int, key: StepKey, attempt: int) -> PointerWire:
    return PointerWire(execution_id=execution_id, **key._asdict(), attempt=attempt)
