"""Pointers and wakes travel as messages of any Dramatiq broker."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
import pytest
from dramatiq.broker import Broker, Consumer
from dramatiq.brokers.stub import StubBroker

from app.brokers.dispatch import DramatiqDispatcher
from app.embedded.nats import EmbeddedNats
from app.engine.ports import MAX_POINTER_BYTES, Dispatch, Dispatcher, Pointer
from app.errors import UnavailableError
from tests.brokers.conftest import MakeBroker
from tests.brokers.test_publishing import lose_store

POINTER = Pointer(2**62, "load_customers", 1, -1, 1)


def everything(consumer: Consumer) -> list[dramatiq.Message[Any]]:
    found = []
    while (message := next(consumer)) is not None:
        consumer.ack(message)
        found.append(message._message)
    return found


@pytest.fixture(params=["stub", "nats"])
def broker(request: pytest.FixtureRequest, make_broker: MakeBroker) -> Broker:
    made = StubBroker(middleware=[]) if request.param == "stub" else make_broker(coalescing={"x"})
    for queue in ("default.io", "default.cpu", "orchestrate"):
        made.declare_queue(queue)
    return made


def test_each_pointer_goes_to_its_actor_on_its_queue(broker: Broker) -> None:
    dispatcher: Dispatcher = DramatiqDispatcher(broker)
    dispatcher.dispatch(
        [Dispatch(POINTER, "http", "default.io"), Dispatch(POINTER, "python", "default.cpu")]
    )
    for queue, tool in (("default.io", "http"), ("default.cpu", "python")):
        consumer = broker.consume(queue, prefetch=5, timeout=300)
        (message,) = everything(consumer)
        assert (message.actor_name, message.queue_name) == (tool, queue)
        assert Pointer(*message.args) == POINTER
        assert len(message.encode()) < MAX_POINTER_BYTES / 3
        consumer.close()


def test_the_epoch_is_the_same_until_the_store_is_lost(
    own_nats: EmbeddedNats, make_broker: MakeBroker
) -> None:
    dispatcher = DramatiqDispatcher(make_broker(coalescing={"x"}))
    first = dispatcher.epoch()
    assert first
    assert dispatcher.epoch() == first
    own_nats.kill()
    own_nats.start()
    assert dispatcher.epoch() == first
    lose_store(own_nats)
    second = dispatcher.epoch()
    assert second != first
    assert dispatcher.epoch() == second
    assert DramatiqDispatcher(StubBroker()).epoch() == ""


def test_a_pointer_sent_again_is_another_message(broker: Broker) -> None:
    dispatcher = DramatiqDispatcher(broker)
    for nonce in (0, 1, 1):
        dispatcher.dispatch([Dispatch(POINTER, "http", "default.io", nonce=nonce)])
    consumer = broker.consume("default.io", prefetch=5, timeout=300)
    messages = everything(consumer)
    assert [message.options.get("nonce", 0) for message in messages] == [0, 1, 1]
    assert len({message.message_id for message in messages}) == 3
    consumer.close()


def test_nothing_to_send_is_no_error(broker: Broker) -> None:
    dispatcher = DramatiqDispatcher(broker)
    dispatcher.dispatch([])
    dispatcher.wake([])


def test_wakes_go_to_the_orchestrator_once_per_execution(broker: Broker) -> None:
    DramatiqDispatcher(broker).wake([7, 8, 7])
    consumer = broker.consume("orchestrate", prefetch=5, timeout=300)
    messages = everything(consumer)
    assert [(message.actor_name, message.args) for message in messages] == [
        ("advance", (7,)),
        ("advance", (8,)),
    ]
    consumer.close()


def test_many_wakes_of_one_execution_become_one(make_broker: MakeBroker) -> None:
    broker = make_broker(coalescing={"orchestrate"})
    dispatcher = DramatiqDispatcher(broker)
    for _ in range(20):
        dispatcher.wake([7])
    assert broker.depth("orchestrate").waiting == 1


def test_a_delay_in_seconds_is_a_delayed_message(make_broker: MakeBroker) -> None:
    broker = make_broker()
    DramatiqDispatcher(broker).dispatch([Dispatch(POINTER, "http", "io", delay=60.0)])
    assert broker.depth("io") == (0, 0, 1)


def test_a_queue_tells_how_long_its_oldest_message_waits_to_be_fetched(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()
    broker.declare_queue("io")
    dispatcher = DramatiqDispatcher(broker)
    assert dispatcher.waited("io") == 0
    begin = time.monotonic()
    for _ in range(2):
        dispatcher.dispatch([Dispatch(POINTER, "http", "io")])
    first = dispatcher.waited("io")
    assert 0 < first <= time.monotonic() - begin + 0.1, "though no worker ever came"
    consumer = broker.consume("io", prefetch=2, timeout=5000)
    message = next(consumer)
    assert message is not None
    assert next(consumer) is not None
    assert dispatcher.waited("io") == 0, "what is at work does not wait"
    dispatcher.dispatch([Dispatch(POINTER, "http", "other")])
    assert dispatcher.waited("io") == 0, "other queues do not count"
    consumer.nack(message)
    consumer.close()


def test_only_what_was_not_fetched_counts_as_waiting(make_broker: MakeBroker) -> None:
    broker = make_broker()
    broker.declare_queue("io")
    dispatcher = DramatiqDispatcher(broker)
    dispatcher.dispatch([Dispatch(POINTER, "http", "io")])
    consumer = broker.consume("io", prefetch=1, timeout=5000)
    held = next(consumer)
    assert held is not None
    begin = time.monotonic()
    dispatcher.dispatch([Dispatch(POINTER, "http", "io") for _ in range(3)])
    assert 0 < dispatcher.waited("io") <= time.monotonic() - begin + 0.1
    consumer.ack(held)
    consumer.close()


def test_a_broker_that_cannot_tell_says_that_nothing_waits() -> None:
    broker = StubBroker(middleware=[])
    broker.declare_queue("io")
    DramatiqDispatcher(broker).dispatch([Dispatch(POINTER, "http", "io")])
    assert DramatiqDispatcher(broker).waited("io") == 0


def test_a_broker_that_is_away_is_an_unavailable_service() -> None:
    from app.brokers.nats import NatsBroker

    broker = NatsBroker("nats://127.0.0.1:1", publish_timeout=0.2)
    with pytest.raises(UnavailableError, match="did not store"):
        DramatiqDispatcher(broker).wake([7])
    broker.close()
