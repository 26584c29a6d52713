"""The orchestrator: a Dramatiq process with one actor, ``advance(execution_id)``."""

from __future__ import annotations

import structlog

from app.processes import Stop, keep_memory_flat, main, signs
from app.settings import Settings, process_name

log = structlog.get_logger(__name__)


def run(settings: Settings) -> None:
    """Serve wakes until told to stop; what is being decided is finished first."""
    from app.actors.declare import ORCHESTRATE, declare_orchestrator
    from app.actors.heartbeat import Heartbeat
    from app.actors.lanes import Lanes
    from app.actors.threads import Worker
    from app.wire import Beat
    from app.wiring import control_plane

    stop = Stop().listen()
    name = process_name("orchestrator")
    with control_plane(settings, "orchestrator", threads=settings.orchestrator_threads) as plane:
        advance = plane.control.advance
        declare_orchestrator(plane.broker, Lanes(advance.decide_many, advance.conclude))
        heartbeat = Heartbeat(
            plane.control.presence.beat,
            lambda: Beat(
                name=name,
                kind="orchestrator",
                capacity=settings.orchestrator_threads,
                runtime=signs(),
            ),
            lambda _: None,
            interval=settings.heartbeat,
        )
        worker = Worker(
            plane.broker, queues={ORCHESTRATE}, worker_threads=settings.orchestrator_threads
        )
        worker.start()
        heartbeat.start()
        log.info("orchestrator.started", name=name, threads=settings.orchestrator_threads)
        keep_memory_flat()
        stop.wait()
        worker.stop(timeout=int(settings.grace * 1000))
        heartbeat.stop()
        plane.control.presence.leave("orchestrator", name)
    log.info("orchestrator.stopped", name=name)


if __name__ == "__main__":
    main(run)
