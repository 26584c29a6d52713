"""A worker: a Dramatiq process with one actor per tool; it knows the API and NATS, no database."""

from __future__ import annotations

import threading

import structlog

from app.processes import Stop, keep_memory_flat, main, signs
from app.settings import Settings, process_name, secret_variables

log = structlog.get_logger(__name__)


def run(settings: Settings) -> None:
    """Serve the pool's queues until told to stop; then finish, or give back, what still runs."""
    from app.actors.declare import declare_steps
    from app.actors.heartbeat import Heartbeat
    from app.actors.steps import Runner
    from app.actors.threads import Worker
    from app.client import Client
    from app.errors import CallboardError
    from app.telemetry.logs import conceal
    from app.tools import kinds
    from app.wire import Beat, Serves
    from app.wiring import ToolKinds, nats_broker, pool_queues, protect_servers, urls

    stop = Stop().listen()
    name = process_name("worker")
    # Little patience of its own: the runner and the heartbeat come back by themselves.
    client = Client(settings.url, settings.worker_token or settings.api_token, patience=1.0)
    broker = nats_broker(settings, settings.nats_url or urls(settings)[1])
    queues = pool_queues(settings)
    runner = Runner(
        client,
        settings,
        ToolKinds(),
        secret_variables(),
        name=name,
        serves=Serves(queues=queues, tools=list(kinds())),
        on_secret=conceal,
    )
    protect_servers(settings)
    declare_steps(broker, runner.run, kinds(), queues)
    worker = Worker(broker, queues=set(queues), worker_threads=settings.worker_threads)
    heartbeat = Heartbeat(
        client.beat,
        lambda: Beat(
            name=name,
            capacity=settings.worker_threads,
            labels={"pool": settings.pool, "queues": queues},
            runtime=signs(**runner.activity()),
            running=runner.running(),
        ),
        lambda answer: runner.fence(answer.stop),
        interval=settings.heartbeat,
    )
    heartbeat.start()
    worker.start()
    log.info(
        "worker.started",
        name=name,
        pool=settings.pool,
        queues=queues,
        threads=settings.worker_threads,
    )
    keep_memory_flat()
    stop.wait()
    runner.begin_shutdown()
    # Steps get the grace period; what still runs then is stopped and given back.
    alarm = threading.Timer(settings.grace, runner.interrupt)
    alarm.start()
    worker.stop(timeout=int((settings.grace + 20) * 1000))
    alarm.cancel()
    heartbeat.stop()
    try:
        client.leave("worker_pool", name)
    except CallboardError as exc:
        log.info("worker.leave_failed", error=str(exc))
    broker.close()
    client.close()
    log.info("worker.stopped", name=name)


if __name__ == "__main__":
    main(run)
