"""Who is alive: processes beat, and are told in return which attempts to stop."""

from __future__ import annotations

from collections.abc import Sequence

from app.engine.events import StepKey
from app.engine.ports import EventLog, RuntimeEntry, RuntimeRegistry
from app.wire import Beat, BeatAnswer, PointerWire


class Presence:
    """The use cases behind ``/api/worker/pool/*`` and ``/api/worker/beat``."""

    def __init__(self, runtime: RuntimeRegistry, events: EventLog) -> None:
        self._runtime = runtime
        self._log = events

    def beat(self, beat: Beat) -> BeatAnswer:
        """Record a sign of life; the answer names the attempts to stop."""
        entry, fresh = self._runtime.beat(
            RuntimeEntry(
                name=beat.name,
                kind=beat.kind,
                status=beat.status,
                uri=beat.uri,
                labels=beat.labels,
                capacity=beat.capacity,
                runtime=beat.runtime,
            )
        )
        stop = self._to_stop(beat.name, beat.running)
        return BeatAnswer(
            status="recreated" if fresh else "ok",
            name=entry.name,
            runtime_id=str(entry.runtime_id),
            stop=stop,
        )

    def leave(self, kind: str, name: str) -> bool:
        """Forget a process that stops in good order; whether it was known."""
        return self._runtime.remove(kind, name)

    def entries(self, *, kind: str | None = None, status: str | None = None) -> list[RuntimeEntry]:
        return self._runtime.entries(kind=kind, status=status)

    def silence(self, kind: str, status: str) -> float | None:
        """Seconds since any process of that kind and status beat; None where none is known."""
        beats = [entry.heartbeat for entry in self.entries(kind=kind, status=status)]
        known = [beat for beat in beats if beat is not None]
        return (self._runtime.now() - max(known)).total_seconds() if known else None

    def _to_stop(self, worker: str, running: Sequence[PointerWire]) -> list[PointerWire]:
        if not running:
            return []
        ids = {pointer.execution_id for pointer in running}
        places = [
            (pointer.execution_id, StepKey(pointer.step, pointer.visit, pointer.iteration))
            for pointer in running
        ]
        with self._log.transaction(ids, durable=False) as tx:
            ended = tx.ended(ids)
            states = tx.attempts(places)
        stop = []
        for pointer, place in zip(running, places, strict=True):
            state = states[place]
            lost = (
                state.attempt != pointer.attempt
                or state.fenced
                or state.started_by not in {None, worker}
            )
            if pointer.execution_id in ended or lost:
                stop.append(pointer)
        return stop
