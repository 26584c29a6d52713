"""What a worker's life means for the messages it holds: begin one, or give all back."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq.broker import Broker, MessageProxy
from dramatiq.common import iter_queue
from dramatiq.middleware import Middleware
from dramatiq.worker import Worker

from app.brokers.puller import NAK, Delivery


class Custody(Middleware):
    """The first middleware of every ``NatsBroker``. *stop_pulling* ends fetching on all its queues.

    Dramatiq gives prefetched messages back only when the last actor has finished; others could
    work on them meanwhile, so here they go back as soon as the worker is told to stop.
    """

    def __init__(self, stop_pulling: Callable[[], None]) -> None:
        self._stop_pulling = stop_pulling

    def before_process_message(
        self,
        broker: Broker,  # noqa: ARG002 (the hook's signature)
        message: MessageProxy,
    ) -> None:
        delivery: Delivery = message.delivery
        delivery.begin()

    def before_worker_shutdown(
        self,
        broker: Broker,  # noqa: ARG002 (the hook's signature)
        worker: Worker,
    ) -> None:
        self._stop_pulling()
        prefetched = iter_queue(worker.work_queue)  # type: ignore[no-untyped-call]  # no types there
        for item in prefetched:
            item.message.delivery.end(NAK)
            worker.work_queue.task_done()
