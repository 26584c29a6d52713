"""The broker of a simulated world: it loses, repeats, reorders, delays, and forgets everything at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from app.engine.ports import Dispatch, Pointer
from app.errors import UnavailableError
from app.simulation.store import Surroundings

#: Seconds after which a message that nobody acked or holds is delivered again.
ACK_WAIT = 10.0
#: Seconds until a message is offered again that nobody could take.
PATIENCE = 0.5


@dataclass(slots=True)
class Message:
    """A wake (``pointer`` is None) or a pointer. ``held_by`` asks its consumer whether it works on it."""

    number: int
    execution_id: int
    pointer: Pointer | None = None
    queue: str = "orchestrate"
    deliveries: int = 0
    #: Wakes that nobody took yet become one.
    waits: bool = False
    kept_at: float = 0.0

    def __str__(self) -> str:
        if self.pointer is None:
            return f"wake of {self.execution_id}"
        return f"pointer {self.pointer.key} attempt {self.pointer.attempt} of {self.execution_id}"


#: Hands a message to a process; False where none can take it now.
Deliver = Callable[[Message], bool]


class BrokerTwin:
    """``Dispatcher`` for the services, and ack and nack for those that take messages."""

    def __init__(self, world: Surroundings, random: Random, deliver: Deliver) -> None:
        self._world = world
        self._random = random
        self._deliver = deliver
        self._numbers = itertools.count(1)
        self._held: dict[int, Message] = {}
        self._wakes: dict[int, Message] = {}
        self._stores = 1
        self.away_until = 0.0
        #: Whether the consumer of a message, by its number, still works on it.
        self.is_worked_on: Callable[[int], bool] = lambda _: False

    # ------------------------------------------------------------------ Dispatcher
    def dispatch(self, steps: Sequence[Dispatch]) -> None:
        self._world.comma("before publishing")
        self._answer()
        for each in steps:
            message = Message(0, each.pointer.execution_id, each.pointer, each.queue)
            self._publish(message, each.delay)
        self._published()

    def wake(self, execution_ids: Iterable[int], *, delay: float = 0.0) -> None:
        ids = sorted(set(execution_ids))
        if not ids:
            return
        self._world.comma("before publishing")
        self._answer()
        for execution_id in ids:
            self._wake(execution_id, delay)
        self._published()

    def calm(self, execution_ids: Iterable[int]) -> None:
        """Nothing: to drop them is no promise, so all that is delayed comes."""

    def tidy(self) -> None:
        self._answer()

    def waited(self, queue: str) -> float:
        self._answer()
        waiting = [m for m in self._held.values() if m.queue == queue and not m.deliveries]
        return max((self._world.agenda.now - m.kept_at for m in waiting), default=0.0)

    def epoch(self) -> str:
        self._answer()
        return str(self._stores)

    def _wake(self, execution_id: int, delay: float) -> None:
        waiting = self._wakes.get(execution_id)
        if delay == 0.0 and waiting is not None and waiting.waits:
            return
        message = Message(0, execution_id, waits=delay == 0.0)
        if self._publish(message, delay) and message.waits:
            self._wakes[execution_id] = message

    def _answer(self) -> None:
        if self._world.agenda.now < self.away_until or self._world.happens("publish refused"):
            raise UnavailableError("the broker does not answer")

    def _published(self) -> None:
        if self._world.happens("publish unanswered"):
            raise UnavailableError("the broker took it and did not say so")
        self._world.comma("after publishing")

    def _publish(self, message: Message, delay: float) -> bool:
        """Keep *message*; False where it is lost at once."""
        if self._world.happens("message lost", str(message)):
            return False
        self._keep(message, delay)
        if self._world.happens("message repeated", str(message)):
            self._keep(Message(0, message.execution_id, message.pointer, message.queue), delay)
        return True

    def _keep(self, message: Message, delay: float) -> None:
        message.number, message.kept_at = next(self._numbers), self._world.agenda.now
        self._held[message.number] = message
        late = 5.0 if self._world.happens("message delayed", str(message)) else 0.05
        self._offer(message, delay + self._random.uniform(0.001, late))

    # ------------------------------------------------------------------ delivering
    def _offer(self, message: Message, seconds: float) -> None:
        # As of now: once it was delivered, or put back, meanwhile, this offer is none any more. Else
        # a message that is delivered twice and put back twice would be two from then on.
        deliveries = message.deliveries
        self._world.agenda.after(seconds, lambda: self._try(message, deliveries))

    def _try(self, message: Message, deliveries: int) -> None:
        if message.number not in self._held or message.deliveries != deliveries:
            return  # acked, forgotten, or delivered meanwhile
        if self.is_worked_on(message.number):
            self._offer(message, ACK_WAIT)
            return
        message.deliveries += 1
        message.waits = False
        taken = self._deliver(message)
        if taken and self._world.happens("delivered twice", str(message)):
            self._deliver(message)
        if message.number in self._held and message.deliveries == deliveries + 1:
            self._offer(message, ACK_WAIT if taken else PATIENCE)

    def ack(self, message: Message) -> None:
        """The message was dealt with."""
        self._world.comma("before an ack")
        if not self._world.happens("ack lost", str(message)):
            self._held.pop(message.number, None)

    def nack(self, message: Message) -> None:
        """The message was not dealt with: it comes again soon."""
        if message.number in self._held:
            message.deliveries += 1
            self._offer(message, self._random.uniform(0.1, 2.0))

    def forget(self) -> None:
        """The broker's store is gone, and everything in it."""
        self._held.clear()
        self._wakes.clear()
        self._stores += 1
