"""What a worker's life means for the messages it holds: begin one, or give all back."""

from __future__ import annotations

from collections.abc import Callable

from dramatiq.broker import Broker, MessageProxy
from dramatiq.common import iter_queue
from dramatiq.middleware import Middleware, SkipMessage
from dramatiq.worker import Worker

from app.brokers.delivery import NAK, Delivery
from app.brokers.session import Session


class Custody(Middleware):
    """The first middleware of every ``NatsBroker``; *session* gives that of this process.

    Dramatiq gives prefetched messages back only when the last actor has finished; others could
    work on them meanwhile, so here they go back as soon as the worker is told to stop, or when they
    have waited for a free thread for long.
    """

    def __init__(self, session: Callable[[], Session]) -> None:
        self._session = session

    def before_worker_boot(
        self,
        broker: Broker,  # noqa: ARG002 (the hook's signature)
        worker: Worker,
    ) -> None:
        self._session().slots.total = worker.worker_threads

    def before_process_message(
        self,
        broker: Broker,  # noqa: ARG002 (the hook's signature)
        message: MessageProxy,
    ) -> None:
        delivery: Delivery = message.delivery
        if not delivery.begin():
            raise SkipMessage("it was given back while it waited for a free thread")

    def before_worker_shutdown(
        self,
        broker: Broker,  # noqa: ARG002 (the hook's signature)
        worker: Worker,
    ) -> None:
        self._session().stop_pulling()
        prefetched = iter_queue(worker.work_queue)  # type: ignore[no-untyped-call]  # no types there
        for item in prefetched:
            item.message.delivery.end(NAK)
            worker.work_queue.task_done()
