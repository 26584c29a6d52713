"""The engine's ``Dispatcher`` on any Dramatiq broker: pointers and wakes as messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from dramatiq.broker import Broker
from dramatiq.errors import BrokerConnectionError
from dramatiq.message import Message

from app.brokers.chunks import Chunk, chunks
from app.engine.ports import Dispatch
from app.errors import UnavailableError

#: Actor and queue of the orchestrator.
ADVANCE = "advance"
ORCHESTRATE = "orchestrate"


@runtime_checkable
class Watched(Protocol):
    """A broker that can say how long a message of a queue has waited to be fetched, the longest."""

    def waited(self, queue_name: str) -> float: ...


@runtime_checkable
class Forgetful(Protocol):
    """A broker that may lose its store, and can tell by another ``epoch``."""

    def epoch(self) -> str: ...


@runtime_checkable
class Calming(Protocol):
    """A broker that can drop the delayed messages of a key."""

    def calm(self, queue_name: str, keys: Iterable[str]) -> None: ...


@runtime_checkable
class Tidying(Protocol):
    """A broker that may hold what was dealt with, and can drop it."""

    def tidy(self) -> None: ...


@runtime_checkable
class EnqueuesMany(Protocol):
    """A broker that stores many (message, delay in milliseconds) in one go."""

    def enqueue_many(self, messages: Iterable[tuple[Message[Any], int | None]]) -> None: ...


class DramatiqDispatcher:
    """Sends through *broker*; neither the actors nor the queues need to be declared here."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def dispatch(self, steps: Sequence[Dispatch]) -> None:
        """Send all of these pointers; returns when the broker holds them. Raises UnavailableError."""
        self._send([(_message(chunk), _milliseconds(chunk.first.delay)) for chunk in chunks(steps)])

    def wake(self, execution_ids: Iterable[int], *, delay: float = 0.0) -> None:
        """Ask for ``advance`` of these executions, now or after *delay* seconds.

        Many wakes of one that are due become one.
        """
        wait = _milliseconds(delay)
        self._send([(_wake(execution_id), wait) for execution_id in dict.fromkeys(execution_ids)])

    def calm(self, execution_ids: Iterable[int]) -> None:
        """Drop the wakes of these that are not due yet, where the broker can; see ``Dispatcher``."""
        if isinstance(self._broker, Calming):
            self._broker.calm(ORCHESTRATE, map(str, execution_ids))

    def tidy(self) -> None:
        """Drop what the broker holds though it was dealt with, where it can. Raises UnavailableError."""
        if isinstance(self._broker, Tidying):
            with _translated():
                self._broker.tidy()

    def waited(self, queue: str) -> float:
        """Seconds that a message of *queue* has waited to be fetched, the longest; 0 where none waits.

        0 also where the broker cannot tell: then whatever seems lost is sent again, which is
        harmless. Raises UnavailableError.
        """
        if not isinstance(self._broker, Watched):
            return 0.0
        with _translated():
            return self._broker.waited(queue)

    def epoch(self) -> str:
        """Another text than before where the broker lost everything that it held in between.

        Always the same of a broker that lives and dies with its process. Raises UnavailableError.
        """
        if not isinstance(self._broker, Forgetful):
            return ""
        with _translated():
            return self._broker.epoch()

    def _send(self, messages: list[tuple[Message[Any], int | None]]) -> None:
        with _translated():
            if isinstance(self._broker, EnqueuesMany):
                self._broker.enqueue_many(messages)
                return
            for message, delay in messages:
                self._broker.enqueue(message, delay=delay)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except BrokerConnectionError as exc:
        raise UnavailableError(
            str(exc), remedy="nothing is lost, the sweeper sends again from the log"
        ) from exc


def _message(chunk: Chunk) -> Message[Any]:
    step, length = chunk
    # The id is random, so that a broker which drops repeated ids never takes a pointer sent again
    # for the first one; the nonce is kept for people who read messages.
    options = {"nonce": step.nonce} if step.nonce else {}
    args = (*step.pointer, length) if length > 1 else tuple(step.pointer)
    return Message(step.queue, step.tool, args, {}, options)


def _wake(execution_id: int) -> Message[Any]:
    return Message(ORCHESTRATE, ADVANCE, (execution_id,), {}, {"coalesce_key": str(execution_id)})


def _milliseconds(delay: float) -> int | None:
    return round(delay * 1000) if delay > 0 else None
