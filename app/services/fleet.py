"""The processes that beat, and what their heartbeats say of the queues they serve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from app.engine.ports import RuntimeEntry

#: Seconds without a claim after which a worker with free slots and waiting messages is stuck.
STUCK_AFTER = 10.0

Condition = Literal["absent", "busy", "stuck", "moving"]


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as of its last heartbeat. Times in seconds; None: it did not say.

    ``silent`` and ``known`` count from its last and its first heartbeat. ``clock_ahead`` is its
    clock minus the database's. ``idle`` is the time since it last claimed, ``in_progress`` what it
    worked on, of ``capacity`` at once.
    """

    name: str
    kind: str
    status: str = "ready"
    silent: float = 0.0
    known: float = 0.0
    version: str | None = None
    host: str | None = None
    clock_ahead: float | None = None
    pool: str | None = None
    queues: tuple[str, ...] = ()
    capacity: int | None = None
    in_progress: int | None = None
    idle: float | None = None

    @property
    def has_room(self) -> bool:
        """It could claim one more."""
        return self.capacity is None or (self.in_progress or 0) < self.capacity


@dataclass(frozen=True, slots=True)
class Fleet:
    """All of them. A process that was silent for longer than ``lease`` counts for dead."""

    processes: Sequence[Process]
    lease: float

    def alive(self, kind: str | None = None) -> list[Process]:
        return [
            process
            for process in self.processes
            if kind in {None, process.kind} and process.silent <= self.lease
        ]

    def silent(self) -> list[Process]:
        return [process for process in self.processes if process.silent > self.lease]

    def serving(self, queue: str) -> list[Process]:
        """The live workers that fetch from *queue*."""
        return [process for process in self.alive("worker_pool") if queue in process.queues]

    def named(self, worker: str) -> Process | None:
        workers = (process for process in self.processes if process.kind == "worker_pool")
        return next((process for process in workers if process.name == worker), None)

    def condition(self, queue: str, waited: float) -> Condition:
        """Why something may wait in *queue* for *waited* seconds."""
        workers = self.serving(queue)
        if not workers:
            return "absent"
        free = [worker for worker in workers if worker.has_room]
        if not free:
            return "busy"
        # A worker that has just begun to wait cannot be blamed, nor can one for a new message.
        patient = waited > STUCK_AFTER
        stuck = patient and all((worker.idle or 0.0) > STUCK_AFTER for worker in free)
        return "stuck" if stuck else "moving"


def fleet_of(entries: Iterable[RuntimeEntry], now: datetime, *, lease: float) -> Fleet:
    """The fleet as of *now*, which is the clock that the heartbeats are stamped with."""
    return Fleet([_process(entry, now) for entry in entries], lease)


def _process(entry: RuntimeEntry, now: datetime) -> Process:
    told, labels = entry.runtime, entry.labels
    beat = entry.heartbeat or now
    clock = _number(told.get("clock"))
    queues = labels.get("queues")
    return Process(
        name=entry.name,
        kind=entry.kind,
        status=entry.status,
        silent=max(0.0, (now - beat).total_seconds()),
        known=max(0.0, (now - (entry.created_at or now)).total_seconds()),
        version=_text(told.get("version")),
        host=_text(told.get("host")),
        clock_ahead=None if clock is None else clock - beat.timestamp(),
        pool=_text(labels.get("pool")),
        queues=tuple(map(str, queues)) if isinstance(queues, list | tuple) else (),
        capacity=entry.capacity,
        in_progress=_whole(told.get("in_progress")),
        idle=_number(told.get("idle")),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    """Heartbeats come over HTTP: what is no number says nothing."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None  # type: ignore[arg-type]  # mypy does not follow the name


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
