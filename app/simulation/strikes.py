"""What strikes of itself, at a moment that the plan names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from app.simulation.clients import OPERATIONS

if TYPE_CHECKING:
    from app.simulation.workers import Worker
    from app.simulation.world import World


def _broker_forgets(world: World) -> None:
    world.broker.forget()


def _broker_away(world: World) -> None:
    world.broker.away_until = world.agenda.now + _outage(world)


def _postgres_killed(world: World) -> None:
    world.log.crash()


def _postgres_away(world: World) -> None:
    world.log.away_until = world.agenda.now + _outage(world)


def _two_leaders(world: World) -> None:
    world.two_lead = True


def _worker_killed(world: World) -> None:
    if (worker := _worker(world)) is not None:
        worker.die()


def _worker_paused(world: World) -> None:
    # Up to more than twice its lease: then others have its attempts, and it goes on all the same.
    if (worker := _worker(world)) is not None:
        worker.paused_until = world.agenda.now + world.random.uniform(5.0, 40.0)


def _worker_stopped(world: World) -> None:
    worker = _worker(world)
    if worker is not None and worker.is_awake and not worker.stopping:
        world.perform(worker, worker.stop)


def _operated(world: World) -> None:
    """An operator meddles with an execution that was begun."""
    known = [execution_id for execution_id in world.jobs if execution_id in world.watch.roots]
    if known and not world.is_busy(world.client):
        name = world.random.choice(sorted(OPERATIONS))
        target = world.random.choice(known)
        world.perform(world.client, lambda: world.client.operate(name, target))


def _outage(world: World) -> float:
    return world.random.uniform(1.0, 15.0)


def _worker(world: World) -> Worker | None:
    """Any worker that is not in the middle of something; that one dies at commas."""
    workers = [worker for worker in world.workers if not world.is_busy(worker)]
    return world.random.choice(workers) if workers else None


STRIKES: Mapping[str, Callable[[World], None]] = {
    "broker forgets": _broker_forgets,
    "broker away": _broker_away,
    "postgres killed": _postgres_killed,
    "postgres away": _postgres_away,
    "worker killed": _worker_killed,
    "worker paused": _worker_paused,
    "worker stopped": _worker_stopped,
    "two leaders": _two_leaders,
    "operation": _operated,
}
