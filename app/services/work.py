"""Claims and reports of workers: the fence between an attempt and the log.

Both come together, many at a time, and each is answered on its own. A claim is granted once per
attempt; a report counts only while its attempt is the current one. Sending either twice changes
nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog

from app import failpoints
from app.engine.ahead import Ahead
from app.engine.events import (
    AttemptLate,
    StepStarted,
)
from app.engine.ports import (
    AttemptState,
    Clock,
    Dispatch,
    Dispatcher,
    Draft,
    DuplicateEventError,
    EventLog,
    LogTransaction,
    Pointer,
)
from app.engine.references import place_of
from app.errors import CallboardError, ForbiddenError, UnavailableError
from app.services.briefing import Briefing, Granted
from app.services.eager import MOST_READ, Eager, Place, Room, Written, attempt_place
from app.services.endings import Endings
from app.services.kinship import Kinship
from app.services.large import Storage
from app.services.output import Output
from app.wire import (
    ArtifactAnswer,
    ArtifactRequest,
    Claim,
    ClaimAnswer,
    ClaimRequest,
    ClaimResponse,
    Exchange,
    ExchangeAnswer,
    Follows,
    LogAnswer,
    LogBatch,
    PointerWire,
    Report,
    ReportAnswer,
    ReportRequest,
    ReportResponse,
    SecretAnswer,
    SecretRequest,
    TokenAnswer,
    TokenPut,
    TokenPutAnswer,
    TokenRequest,
    ValueRequest,
)

log = structlog.get_logger(__name__)


class Worked(Protocol):
    """What workers ask of the control plane; the HTTP client offers the same."""

    def exchange(self, request: Exchange) -> ExchangeAnswer: ...

    def value(self, request: ValueRequest) -> bytes: ...

    def secret(self, request: SecretRequest) -> SecretAnswer: ...

    def take_token(self, request: TokenRequest) -> TokenAnswer: ...

    def put_token(self, request: TokenPut) -> TokenPutAnswer: ...

    def logs(self, batch: LogBatch) -> LogAnswer: ...

    def artifact(
        self, request: ArtifactRequest, pieces: Callable[[], Iterable[bytes]]
    ) -> ArtifactAnswer: ...


@dataclass(slots=True)
class _Judgement:
    """One transaction's worth of claims and reports, as far as they have been judged."""

    worker: str
    pool: str | None
    states: Mapping[Place, AttemptState]
    ended: Mapping[int, str]
    paused: frozenset[int]
    drafts: dict[int, list[Draft]] = field(default_factory=lambda: defaultdict(list))
    settled: dict[Place, str] = field(default_factory=dict)
    claims: list[ClaimAnswer | Granted] = field(default_factory=list)
    reports: list[ReportAnswer] = field(default_factory=list)
    late: list[Report] = field(default_factory=list)
    released: list[Granted] = field(default_factory=list)
    #: By execution the first report that counts, with its answer.
    accepted: dict[int, tuple[Report, ReportAnswer]] = field(default_factory=dict)
    #: What workers go on with, by the answer that tells them.
    onward: list[tuple[ReportAnswer, Granted]] = field(default_factory=list)
    woken: set[int] = field(default_factory=set)
    written: list[Written] = field(default_factory=list)
    answer: ExchangeAnswer | None = None


class Work:
    """The use cases behind ``/api/worker``."""

    def __init__(
        self,
        events: EventLog,
        dispatcher: Dispatcher,
        briefing: Briefing,
        eager: Eager,
        *,
        storage: Storage,
        output: Output,
        clock: Clock,
    ) -> None:
        self._log = events
        self._dispatcher = dispatcher
        self._briefing = briefing
        self._eager = eager
        self._endings = Endings(storage, clock)
        self._output = output
        self._kinship = Kinship(events)

    def claim(self, request: ClaimRequest, *, pool: str | None = None) -> ClaimResponse:
        """Claims alone; see ``exchange``."""
        both = Exchange(worker=request.worker, claims=request.claims)
        answer = self.exchange(both, pool=pool)
        return ClaimResponse(answers=answer.claims, steps=answer.steps)

    def report(self, request: ReportRequest, *, pool: str | None = None) -> ReportResponse:
        """Reports alone; see ``exchange``."""
        both = Exchange(worker=request.worker, reports=request.reports)
        return ReportResponse(answers=self.exchange(both, pool=pool).reports)

    def exchange(self, request: Exchange, *, pool: str | None = None) -> ExchangeAnswer:
        """Record how attempts ended, and grant or refuse claims of others, in one commit.

        *pool* is the one that the caller's token is limited to. Raises ``ForbiddenError`` for a
        step of another pool, ``UnavailableError`` where the database does not answer.
        """
        # First, so that whoever sees a step's end finds all that it printed.
        self._keep_output(request.reports, pool)
        judged, room = self._judged(request, pool)
        woken = judged.woken - self._eager.conclude(room, judged.written)
        if woken:
            self._wake(woken)
        self._keep_late(judged.late, request.worker)
        self._send_alone(judged.released)
        failpoints.before("exchange.answer")
        answer = judged.answer or self._answer(judged)
        failpoints.after("exchange.answer")
        return answer

    def _judged(self, request: Exchange, pool: str | None) -> tuple[_Judgement, Room]:
        """Judge by what is foreseen, else by a look at the log, else without what follows."""
        room: Room | None = self._eager.exchanging(request, pool)
        while room is not None:
            try:
                return self._judge(request, pool, room), room
            except UnavailableError:
                raise
            except Exception as exc:
                room = self._eager.narrower(room, exc)
                if room is None:
                    raise
        raise AssertionError("unreachable")

    def _foretell(self, judged: _Judgement, room: Room) -> None:
        """Make what is remembered and said if the commit that is under way succeeds."""
        self._eager.foretell(room)
        with suppress(UnavailableError):  # it takes a look at the log
            judged.answer = self._answer(judged)

    def _answer(self, judged: _Judgement) -> ExchangeAnswer:
        """What the worker is told, with what it needs to run what it was granted."""
        granted = [*judged.claims, *(granted for _, granted in judged.onward)]
        claims, steps = self._briefing.answers(granted)
        told = len(judged.claims)
        for (answer, grant), claim in zip(judged.onward, claims[told:], strict=True):
            answer.follows = Follows(pointer=grant.claim, claim=claim)
        return ExchangeAnswer(claims=claims[:told], reports=judged.reports, steps=steps)

    def _judge(self, request: Exchange, pool: str | None, room: Room) -> _Judgement:
        """Judge everything in *request*, and append what counts and what follows, in one transaction."""
        items: list[PointerWire] = [*request.reports, *request.claims, *request.released]
        ids = {item.execution_id for item in items}
        # Losing a claim only means that the step is claimed again; a report must be on disk.
        places = list(dict.fromkeys(attempt_place(item) for item in items))
        durable, foreseen = bool(request.reports), room.foreseen
        ahead = Ahead(room.ahead, places, most=MOST_READ + 1)
        if foreseen is not None:
            ahead = Ahead(assumed=foreseen.standings)
        with self._log.transaction(ids, durable=durable, ahead=ahead) as tx:
            self._eager.look(tx, room)
            states = tx.attempts(places) if foreseen is None else foreseen.attempts
            ended, paused = tx.ended(ids), tx.paused(ids)
            judged = _Judgement(request.worker, pool, states, ended, paused)
            for report in request.reports:
                self._judge_report(tx, judged, report, room)
            for claim in request.claims:
                self._judge_claim(judged, claim)
            for pointer in request.released:
                state = states[attempt_place(pointer)]
                if _refusal(pointer, state, judged) is None and state.started_key is None:
                    judged.released.append(Granted(pointer, state.scheduled_seq, state.scheduled))
            for execution_id, drafts in sorted(judged.drafts.items()):
                appended = tx.append(execution_id, drafts)
                key = None if durable else drafts[-1].idempotency_key
                judged.written.append((execution_id, appended, key))
                if execution_id in judged.accepted:
                    report, answer = judged.accepted[execution_id]
                    granted = self._eager.follow(tx, room, report, appended)
                    self._grant_onward(judged, answer, granted)
            tx.meanwhile(partial(self._foretell, judged, room))
            failpoints.before("exchange.commit")
        failpoints.after("exchange.commit")
        return judged

    def _grant_onward(
        self, judged: _Judgement, answer: ReportAnswer, granted: Granted | None
    ) -> None:
        if granted is not None:
            judged.onward.append((answer, granted))
            self._output.expect(_pointer(granted.claim), granted.queue)

    def value(self, request: ValueRequest, *, pool: str | None = None) -> bytes:
        """What an attempt refers to, as JSON. Raises ``MissingValueError``.

        It belongs to the execution that the attempt is of, or to one of its family: references are
        handed to sub-playbooks, and back. A caller limited to *pool* must be working on it now;
        else ``ForbiddenError``.
        """
        place = place_of(request.ref)
        own = self._kinship.related(place.execution_id, request.execution_id)
        if not own or (pool is not None and not self._works_for(request, pool)):
            raise ForbiddenError(
                f"this attempt may not read {place.ref} now",
                remedy="ask for values of the execution whose step is being worked on, or of its family",
            )
        return self._briefing.value(place, request.item)

    def _works_for(self, request: ValueRequest, pool: str) -> bool:
        spot = attempt_place(request)
        with self._log.transaction([request.execution_id], durable=False) as tx:
            state = tx.attempts([spot])[spot]
        runs = state.attempt == request.attempt and state.started_by and not state.fenced
        return bool(runs) and state.ended is None and state.queue.startswith(f"{pool}.")

    def _keep_output(self, reports: Sequence[Report], pool: str | None) -> None:
        printed = [chunk for report in reports for chunk in report.output]
        if not printed:
            return
        try:
            self._output.append(printed, pool=pool)
        except ForbiddenError:
            raise
        except CallboardError as exc:
            # How a step ended matters more than what it said.
            log.warning("output.lost", pieces=len(printed), error=str(exc))

    # ------------------------------------------------------------------ one claim
    def _judge_claim(self, judged: _Judgement, claim: Claim) -> None:
        place, key = attempt_place(claim), f"claim:{claim.key}"
        state = judged.states[place]
        reason = _refusal(claim, state, judged)
        if reason is None and (place in judged.settled or state.started_key not in {None, key}):
            reason = "claimed by another worker"
        if reason is None and claim.execution_id in judged.paused and state.started_key is None:
            reason = "the execution is paused"  # its pointers are sent again when it goes on
        if reason is not None:
            judged.claims.append(ClaimAnswer(granted=False, reason=reason))
            return
        judged.settled[place] = key
        if state.started_key is None:
            started = StepStarted(*place[1], attempt=claim.attempt, worker=judged.worker)
            judged.drafts[claim.execution_id].append(Draft(started, key))
        judged.claims.append(Granted(claim, state.scheduled_seq, state.scheduled))
        self._output.expect(Pointer(place[0], *place[1], claim.attempt), state.queue)

    # ------------------------------------------------------------------ one report
    def _judge_report(
        self, tx: LogTransaction, judged: _Judgement, report: Report, room: Room
    ) -> None:
        place, key = attempt_place(report), f"report:{report.key}"
        state = judged.states[place]
        if key in {state.ended_key, judged.settled.get(place)}:
            again = ReportAnswer(accepted=True, duplicate=True)
            judged.reports.append(again)
            judged.woken.add(report.execution_id)
            self._grant_onward(judged, again, self._eager.again(tx, room, report))
            return
        reason = _refusal(report, state, judged)
        if reason is None and (
            place in judged.settled or state.started_by not in {None, judged.worker}
        ):
            reason = "the attempt belongs to another worker"
        if reason is not None:
            judged.late.append(report)
            judged.reports.append(ReportAnswer(accepted=False, reason=reason))
            return
        judged.settled[place] = key
        draft = Draft(self._endings.event(tx, report, judged.worker), key)
        judged.drafts[report.execution_id].append(draft)
        judged.woken.add(report.execution_id)
        answer = ReportAnswer(accepted=True)
        judged.reports.append(answer)
        judged.accepted.setdefault(report.execution_id, (report, answer))

    def _send_alone(self, released: Sequence[Granted]) -> None:
        """Send what nobody has claimed again, so that whoever is free takes it."""
        if not released:
            return
        try:
            self._dispatcher.dispatch(
                [
                    Dispatch(
                        _pointer(item.claim),
                        item.payload["tool"],
                        item.payload["queue"],
                        pace=math.inf,
                    )
                    for item in released
                ]
            )
        except UnavailableError as exc:
            log.warning("release.not_sent", steps=len(released), error=str(exc))

    def _wake(self, ids: set[int]) -> None:
        try:
            failpoints.before("exchange.wake")
            self._dispatcher.wake(ids)
            failpoints.after("exchange.wake")
        except UnavailableError as exc:
            # The log is the outbox: the sweeper wakes them when the broker is back.
            log.warning("wake.failed", executions=len(ids), error=str(exc))

    def _keep_late(self, late: Sequence[Report], worker: str) -> None:
        for report in late:
            event = AttemptLate(
                *attempt_place(report)[1],
                attempt=report.attempt,
                worker=worker,
                outcome=report.outcome,
            )
            try:
                with self._log.transaction([report.execution_id]) as tx:
                    if tx.last_seq(report.execution_id):
                        tx.append(report.execution_id, [Draft(event, f"late:{report.key}")])
            except DuplicateEventError:
                continue  # the same late report, sent again
            except CallboardError as exc:
                log.warning(
                    "late.not_kept",
                    execution_id=report.execution_id,
                    step=report.step,
                    error=str(exc),
                )


def _pointer(wire: PointerWire) -> Pointer:
    return Pointer(wire.execution_id, wire.step, wire.visit, wire.iteration, wire.attempt)


def _refusal(pointer: PointerWire, state: AttemptState, judged: _Judgement) -> str | None:
    """Why this attempt may not go on; None where it may."""
    if state.attempt == 0:
        return "never scheduled"
    if judged.pool is not None and not state.queue.startswith(f"{judged.pool}."):
        raise ForbiddenError(
            f"this token is for the pool {judged.pool!r}", remedy="use the token of the step's pool"
        )
    if pointer.execution_id in judged.ended:
        return f"the execution has ended ({judged.ended[pointer.execution_id]})"
    if state.ended is not None:
        return f"the step has ended ({state.ended})"
    if state.attempt != pointer.attempt or state.fenced:
        return f"attempt {pointer.attempt} was given up"
    return None
