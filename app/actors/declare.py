"""Declares the actors on a broker: ``advance`` for the orchestrator, one per tool for workers.

An outage is no failure of theirs, and an execution that a newer version must go on with is none of
the orchestrator's: ``throws`` keeps such tracebacks out of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import dramatiq
from dramatiq import Broker

from app.engine.entry import UnknownEventError
from app.engine.ports import Pointer
from app.errors import UnavailableError

ORCHESTRATE = "orchestrate"


def declare_orchestrator(broker: Broker, advance: Callable[[int], int]) -> None:
    """The actor that moves an execution on; a wake carries nothing but its id."""

    def run(execution_id: int) -> None:
        advance(int(execution_id))

    actor = dramatiq.actor(
        actor_name="advance",
        queue_name=ORCHESTRATE,
        broker=broker,
        throws=(UnavailableError, UnknownEventError),
    )
    actor(run)


def declare_steps(
    broker: Broker, run: Callable[[Pointer], None], kinds: Iterable[str], queues: Iterable[str]
) -> None:
    """One actor per tool kind, and the queues its messages come on."""
    names = list(queues)
    for queue in names:
        broker.declare_queue(queue)

    def perform(execution_id: int, step: str, visit: int, iteration: int, attempt: int) -> None:
        run(Pointer(execution_id, step, visit, iteration, attempt))

    for kind in kinds:
        actor = dramatiq.actor(
            actor_name=kind, queue_name=names[0], broker=broker, throws=UnavailableError
        )
        actor(perform)
