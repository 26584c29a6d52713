"""The processes of the control plane: each has services, a cache and a clock of its own, and may die."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from app.engine.entry import Entry
from app.engine.ports import Pointer
from app.errors import CallboardError, UnavailableError
from app.services.control import Control
from app.simulation.broker import Message
from app.simulation.store import UP_TO_DATE, Outdated
from app.store.rows import Row

if TYPE_CHECKING:
    from app.simulation.world import World

T = TypeVar("T")


class Process:
    """Anything that acts. ``kind`` and a number name it; whoever replaces it has the next number."""

    kind = "process"

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.name = f"{self.kind}-{number}"
        self.alive = True
        self.skew = world.random.uniform(-world.plan.skew, world.plan.skew)
        self.outdated = UP_TO_DATE
        #: Not every process has the same settings.
        self.is_eager = world.random.random() < 0.75
        self._control: Control | None = None

    @property
    def control(self) -> Control:
        """The services of this process, put together when they are first needed."""
        if self._control is None:
            self._control = self.world.services(self)
        return self._control

    def clock(self) -> float:
        """The time, as this process believes."""
        return self.world.agenda.now + self.skew

    def die(self) -> None:
        """Stop at once; a fresh one takes its place."""
        if self.alive:
            self.alive = False
            self.world.replace(self)

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Have this process do something in *seconds*, if it still lives then."""
        self.world.agenda.after(seconds, lambda: self._do(act))

    def _do(self, act: Callable[[], None]) -> None:
        if not self.alive:
            return
        if self.world.is_busy(self):
            self.later(0.01, act)
        else:
            self.world.perform(self, act)


class Api(Process):
    """Answers clients and workers."""

    kind = "api"

    def serve(self, ask: Callable[[Control], T]) -> T:
        """The answer to a request; ``UnavailableError`` where this process dies over it."""
        answers: list[T] = []
        self.world.perform(self, lambda: answers.append(ask(self.control)))
        self.outdated = UP_TO_DATE
        if not answers:
            raise UnavailableError("the connection was lost")
        return answers[0]


class Orchestrator(Process):
    """Takes wakes and moves executions on."""

    kind = "orchestrator"

    def take(self, message: Message) -> None:
        """Advance the execution that the message names; ack it when that is done."""
        world, execution_id = self.world, message.execution_id
        if self._may_decide_again(execution_id) and world.happens("stale view", str(message)):
            self.outdated = Outdated(decision=True)
        try:
            self.control.advance.advance(execution_id)
        except UnavailableError as exc:
            world.tell(f"puts the {message} back: {exc.message}")
            world.broker.nack(message)
            return
        finally:
            self.outdated = UP_TO_DATE
        world.watch.compare(self, execution_id)
        world.broker.ack(message)

    def _may_decide_again(self, execution_id: int) -> bool:
        """Whether the newest decision would come out the same, and a key refuses it then.

        Where there are deadlines another moment, or another clock, decides otherwise, and no key
        sees that: for that there is the lock.
        """
        if self.world.is_timed(execution_id):
            return False
        return self.world.log.redecidable(execution_id) is not None


class Scheduler(Process):
    """Sweeps while it believes that it leads."""

    kind = "scheduler"

    def begin(self) -> None:
        self.later(self.world.random.uniform(0, self.world.settings.sweep), self.sweep)

    def sweep(self) -> None:
        """One run of the sweeper, and the next one in a while."""
        seconds = self.world.settings.sweep
        self.later(seconds * self.world.random.uniform(0.9, 1.1), self.sweep)
        if not self.world.leads(self) or not self.world.mutant.sweeps:
            return
        if self.world.happens("stale view", "of the sweeper"):
            self.outdated = Outdated(_is_repair)
        try:
            swept = self.control.sweeper.sweep()
        except CallboardError as exc:
            self.world.tell(f"sweep failed: {exc.message}")
        else:
            self.world.tell(f"sweeps: {swept.expired} expired, {swept.resent} sent again")
        finally:
            self.outdated = UP_TO_DATE


def _is_repair(row: Row) -> bool:
    """What another sweeper has mended."""
    return (row.idempotency_key or "").startswith(("expired:", "child:"))


def describe(entry: Entry) -> str:
    """An event as a line of the story."""
    event = entry.event
    key = getattr(event, "key", None) or getattr(event, "step", "")
    attempt = getattr(event, "attempt", 0)
    tries = f" attempt {attempt}" if attempt else ""
    worker = getattr(event, "worker", None)
    by = f" by {worker}" if worker else ""
    return f"  {entry.execution_id}/{entry.seq} {event.type} {key}{tries}{by}".rstrip()


def pointer_text(pointer: Pointer) -> str:
    """A pointer as the story writes it."""
    return f"{pointer.key} attempt {pointer.attempt} of {pointer.execution_id}"
