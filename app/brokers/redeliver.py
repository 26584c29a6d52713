"""Messages whose actor could not reach what it needs come again instead of being lost."""

from __future__ import annotations

import random
from typing import Any

from dramatiq.broker import Broker, MessageProxy
from dramatiq.middleware import Middleware

from app.brokers.nats import NatsMessage
from app.errors import UnavailableError

#: Seconds: the first redelivery comes within this time, each further one within twice the former.
FIRST_WINDOW = 1.0


class RedeliverOnInfrastructureError(Middleware):
    """Turns *errors* of an actor into redelivery with backoff and full jitter.

    Without Dramatiq's ``Retries`` a failure is acknowledged, so an outage of the database would
    swallow messages. Anything else than *errors* is the actor's own failure and stays one. The
    delay is at least the error's ``retry_after`` and, jitter aside, at most *longest* seconds.
    Give actors ``throws=UnavailableError`` to have outages logged without a traceback each.
    """

    def __init__(
        self, *errors: type[BaseException], first: float = FIRST_WINDOW, longest: float = 30.0
    ) -> None:
        self._errors = errors or (UnavailableError,)
        self._first = first
        self._longest = longest

    def after_process_message(
        self,
        broker: Broker,
        message: MessageProxy,
        *,
        result: Any | None = None,  # noqa: ARG002 (the hook's signature)
        exception: BaseException | None = None,
    ) -> None:
        if not isinstance(exception, self._errors):
            return
        at_least = exception.retry_after if isinstance(exception, UnavailableError) else 0.0
        if isinstance(message, NatsMessage):
            message.redeliver_in = at_least + self._jitter(message.deliveries)
            message.fail()
            return
        # Other brokers cannot give a message back later: a copy goes, the original is acknowledged.
        count = message.options.get("redeliveries", 0) + 1
        again = message.copy(options={"redeliveries": count})
        broker.enqueue(again, delay=int((at_least + self._jitter(count)) * 1000))

    def _jitter(self, deliveries: int) -> float:
        window = min(self._longest, self._first * 2.0 ** min(deliveries - 1, 32))
        return random.uniform(0, window)  # noqa: S311 (jitter, not secrecy)
