"""An outage of what an actor needs delays its message; the actor's own failure ends it."""

from __future__ import annotations

from typing import Any

import dramatiq
import pytest
from dramatiq.broker import MessageProxy
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware

from app.brokers.nats import NatsMessage
from app.brokers.redeliver import RedeliverOnInfrastructureError
from app.errors import ConflictError, UnavailableError
from tests.brokers.conftest import MakeBroker, Until, Working


class Failing:
    """An actor that raises the given errors, one per call, and then succeeds."""

    def __init__(self, broker: dramatiq.Broker, *errors: Exception) -> None:
        self.calls = 0
        self._errors = list(errors)
        dramatiq.actor(broker=broker, queue_name="q", actor_name="a")(self._run)

    def _run(self) -> None:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)


MESSAGE: dramatiq.Message[Any] = dramatiq.Message("q", "a", (), {}, {})
OUTAGE = UnavailableError("no database", retry_after=0.05)


def test_an_outage_is_waited_out(make_broker: MakeBroker, working: Working, until: Until) -> None:
    deliveries: list[int] = []

    class Deliveries(Middleware):
        def before_process_message(self, broker: Any, message: MessageProxy) -> None:
            assert isinstance(message, NatsMessage)
            deliveries.append(message.deliveries)

    broker = make_broker(middleware=[Deliveries(), RedeliverOnInfrastructureError(first=0.05)])
    actor = Failing(broker, OUTAGE, OUTAGE)
    with working(broker):
        broker.enqueue(MESSAGE)
        until(lambda: actor.calls == 3)
        broker.join("q", timeout=5000)
    assert deliveries == [1, 2, 3]


def test_the_actors_own_failure_does_not_come_again(
    make_broker: MakeBroker, working: Working
) -> None:
    broker = make_broker(middleware=[RedeliverOnInfrastructureError(first=0.05)])
    actor = Failing(broker, ConflictError("fenced"))
    with working(broker):
        broker.enqueue(MESSAGE)
        broker.join("q", timeout=5000)
    assert actor.calls == 1


def test_other_errors_may_be_named(make_broker: MakeBroker, working: Working) -> None:
    broker = make_broker(middleware=[RedeliverOnInfrastructureError(OSError, first=0.05)])
    actor = Failing(broker, ConnectionResetError("gone"), OUTAGE)
    with working(broker):
        broker.enqueue(MESSAGE)
        broker.join("q", timeout=5000)
    assert actor.calls == 2, "and then only those come again"


def test_on_another_broker_a_copy_is_sent_later(working: Working, until: Until) -> None:
    broker = StubBroker(middleware=[RedeliverOnInfrastructureError(first=0.05)])
    actor = Failing(broker, OUTAGE, OUTAGE)
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=50)
    worker.start()
    broker.enqueue(MESSAGE)
    until(lambda: actor.calls == 3)
    worker.stop()


@pytest.mark.parametrize(
    ("deliveries", "most"), [(1, 0.5), (2, 1.0), (3, 2.0), (8, 30.0), (10_000, 30.0)]
)
def test_the_wait_grows_with_full_jitter_up_to_a_limit(deliveries: int, most: float) -> None:
    middleware = RedeliverOnInfrastructureError(first=0.5, longest=30.0)
    waits = [middleware._jitter(deliveries) for _ in range(300)]
    assert 0 <= min(waits) < most * 0.2
    assert most * 0.8 < max(waits) <= most
