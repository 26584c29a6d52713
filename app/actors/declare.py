"""Declares the actors on a broker: ``advance`` for the orchestrator, one per tool for workers.

An outage is no failure of theirs, and an execution that a newer version must go on with is none of
the orchestrator's: ``throws`` keeps such tracebacks out of the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
    broker: Broker, run: Callable[[Pointer, int], None], kinds: Iterable[str], queues: Iterable[str]
) -> None:
    """One actor per tool kind, and the queues its messages come on.

    ``run(pointer, count)``: *count* iterations of a loop from that of *pointer* on, or one step.
    """
    names = list(queues)
    for queue in names:
        broker.declare_queue(queue)

    def perform(*pointer: Any) -> None:
        *place, count = pointer if len(pointer) > len(Pointer._fields) else (*pointer, 1)
        run(Pointer(*place), count)

    for kind in kinds:
        actor = dramatiq.actor(
            actor_name=kind, queue_name=names[0], broker=broker, throws=UnavailableError
        )
        actor(perform)
