"""Workers: they claim, run and report through the API, beat, pause beyond their lease, and die."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.engine.events import STEP_ENDS
from app.engine.ports import Pointer
from app.errors import CallboardError, UnavailableError
from app.simulation.agenda import Act
from app.simulation.broker import Message
from app.simulation.fates import fate
from app.simulation.playbooks import KINDS
from app.simulation.processes import Process, pointer_text
from app.simulation.store import Outdated
from app.store.rows import Row
from app.wire import (
    Beat,
    Claim,
    ClaimAnswer,
    Exchange,
    ExchangeAnswer,
    Follows,
    PointerWire,
    Report,
    ReportAnswer,
    Serves,
    Variables,
)

if TYPE_CHECKING:
    from app.simulation.world import World


#: What workers say they serve; an older one does not say.
SERVES = (
    Serves(queues=["default.cpu", "default.io"], tools=sorted(KINDS)),
    Serves(queues=["default.io"], tools=["noop", "postgres"]),
    None,
)


@dataclass(slots=True)
class Attempt:
    """A pointer in the hands of a worker: to be claimed, running, or (with a report) to be told of."""

    pointer: Pointer
    message: Message
    claimed: bool = False
    report: Report | None = None


class Worker(Process):
    """Several attempts at once; one exchange settles all that is ready."""

    kind = "worker"
    SLOTS = 4

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.attempts: dict[Pointer, Attempt] = {}
        self.paused_until = 0.0
        self.stopping = False
        self._turn_is_due = False
        self.serves = world.random.choice(SERVES)
        self._said: list[Report] = []

    def begin(self) -> None:
        self.later(0.0, self.beat)

    @property
    def is_awake(self) -> bool:
        return self.alive and self.world.agenda.now >= self.paused_until

    @property
    def takes_more(self) -> bool:
        """Whether it is there for another message."""
        return self.is_awake and not self.stopping and len(self.attempts) < self.SLOTS

    def holds(self, number: int) -> bool:
        """Whether it tells the broker that it still works on that message."""
        return self.is_awake and any(a.message.number == number for a in self.attempts.values())

    def take(self, message: Message) -> None:
        """A pointer was delivered."""
        assert message.pointer is not None
        if message.pointer in self.attempts:
            self.world.broker.ack(message)  # the same pointer, while it is worked on
            return
        self.attempts[message.pointer] = Attempt(message.pointer, message)
        self.soon()

    # ------------------------------------------------------------------ exchanging
    def soon(self, seconds: float = 0.02) -> None:
        """Have a turn soon."""
        if not self._turn_is_due:
            self._turn_is_due = True
            self.later(self.world.random.uniform(0, seconds), self.turn)

    def _do(self, act: Act) -> None:
        if self.alive and not self.is_awake:
            self.later(self.paused_until - self.world.agenda.now, act)
            return
        super()._do(act)

    def turn(self) -> None:
        """Claim what is new and report what has ended, in one request."""
        self._turn_is_due = False
        claims = [a for a in self.attempts.values() if not a.claimed]
        reports = [a for a in self.attempts.values() if a.report is not None]
        told = [a.report for a in reports if a.report is not None]
        if self._said and self.world.happens("report repeated"):
            told.append(self.world.random.choice(self._said))
        if not claims and not told:
            return
        request = Exchange(
            worker=self.name,
            claims=[self._claim(a.pointer) for a in claims],
            reports=told,
            serves=self.serves,
        )
        try:
            answer = self._ask(request)
        except CallboardError as exc:
            self.world.tell(f"was not answered: {exc.message}")
            self.soon(3.0)
            return
        for attempt, answered in zip(claims, answer.claims, strict=True):
            self._claimed(attempt, answered)
        for attempt, settled in zip(reports, answer.reports, strict=False):
            self._reported(attempt, settled)

    def _ask(self, request: Exchange) -> ExchangeAnswer:
        self.world.comma("before a request")
        api = self.world.api()
        if self.world.happens("stale view", "of the log"):
            api.outdated = Outdated(blind_spot(request))
        answer = api.serve(lambda control: control.work.exchange(request))
        for report in request.reports:
            self.world.watch.compare(api, report.execution_id)
        if self.world.happens("answer lost"):
            raise UnavailableError("the answer was lost")
        self.world.comma("after a request")
        return answer

    def _claim(self, pointer: Pointer) -> Claim:
        return Claim(**pointer._asdict(), key=f"{self.name}:{pointer_text(pointer)}")

    def _claimed(self, attempt: Attempt, answer: ClaimAnswer) -> None:
        if not answer.granted:
            self.world.tell(f"may not do {pointer_text(attempt.pointer)}: {answer.reason}")
            self._let_go(attempt)
            return
        if answer.variables is None:
            self.world.find("briefing", f"{pointer_text(attempt.pointer)}: {answer.reason}")
        attempt.claimed = True
        self._run(attempt, answer.variables or Variables())

    def _run(self, attempt: Attempt, variables: Variables) -> None:
        pointer = attempt.pointer
        end = fate(pointer, variables, self.world.variant_of(pointer.execution_id))
        seconds = self.world.random.uniform(0.05, 1.5) * end.slowness
        if self.world.happens("long step", pointer_text(pointer)):
            seconds += self.world.random.uniform(10, 30)
        self.world.watch.ran(pointer)
        claim = self._claim(pointer).model_dump()
        report = Report(**claim, **end.report, onward=self.serves is not None)

        def finish() -> None:
            if self.attempts.get(pointer) is attempt and attempt.report is None:
                attempt.report = report
                self.soon()

        self.later(seconds, finish)

    def _reported(self, attempt: Attempt, answer: ReportAnswer) -> None:
        assert attempt.report is not None
        if not answer.accepted:
            self.world.tell(f"was late with {pointer_text(attempt.pointer)}: {answer.reason}")
        self._said.append(attempt.report)
        if answer.follows is None:
            self._let_go(attempt)
        else:
            self._go_on(attempt, answer.follows)

    def _go_on(self, attempt: Attempt, follows: Follows) -> None:
        """Do what was handed over, before the message is acked that brought the first step."""
        pointer = Pointer(**follows.pointer.model_dump())
        self.world.tell(f"goes on with {pointer_text(pointer)}")
        del self.attempts[attempt.pointer]
        following = self.attempts[pointer] = Attempt(pointer, attempt.message)
        self._claimed(following, follows.claim)
        if self.stopping:
            self._give_back(following)
            self.soon()

    def _let_go(self, attempt: Attempt) -> None:
        # Out of hand first: if it dies over the ack, the message comes again, to somebody else.
        self.attempts.pop(attempt.pointer, None)
        self.world.broker.ack(attempt.message)
        if self.stopping and not self.attempts:
            self._leave()

    # ------------------------------------------------------------------ beating, stopping
    def beat(self) -> None:
        """Give a sign of life, and stop what is to be stopped."""
        self.later(self.world.settings.heartbeat * self.world.random.uniform(0.8, 1.2), self.beat)
        running = [PointerWire(**a.pointer._asdict()) for a in self.attempts.values() if a.claimed]
        beat = Beat(name=self.name, running=running)
        try:
            answer = self.world.api().serve(lambda control: control.presence.beat(beat))
        except CallboardError:
            return
        for wire in answer.stop:
            attempt = self.attempts.get(Pointer(**wire.model_dump()))
            if attempt is not None:
                self.world.tell(f"stops {pointer_text(attempt.pointer)}")
                self._let_go(attempt)

    def stop(self) -> None:
        """Stop in good order: hand back what runs, then leave."""
        self.stopping = True
        for attempt in list(self.attempts.values()):
            if not attempt.claimed:
                del self.attempts[attempt.pointer]
                self.world.broker.nack(attempt.message)
            elif attempt.report is None:
                self._give_back(attempt)
        if self.attempts:
            self.soon()
        else:
            self._leave()

    def _give_back(self, attempt: Attempt) -> None:
        claim = self._claim(attempt.pointer).model_dump()
        attempt.report = Report(**claim, outcome="interrupted")

    def _leave(self) -> None:
        try:
            self.world.api().serve(lambda control: control.presence.leave("worker_pool", self.name))
        except CallboardError as exc:
            self.world.tell(f"could not sign off: {exc.message}")
        self.die()


def blind_spot(request: Exchange) -> Callable[[Row], bool]:
    """What an outdated view of *request* lacks: only what a unique key guards against.

    A claim does not see who claimed before (U7), a report neither that it was sent before (U2) nor
    how its step ended (U4). Fences and the end of an execution have no key of their own: for these
    there is the lock.
    """
    keys = {f"report:{report.key}" for report in request.reports}
    ends = not request.claims and all(_ends(report) for report in request.reports)

    def hides(row: Row) -> bool:
        if row.idempotency_key in keys:
            return True
        if not keys:
            return row.type == "step.started"
        return ends and (row.type == "step.started" or row.type in STEP_ENDS)

    return hides


def _ends(report: Report) -> bool:
    return report.outcome == "done" or (report.outcome == "failed" and report.retry_in is None)
