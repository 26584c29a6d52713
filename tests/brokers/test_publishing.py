"""What is enqueued is stored, or the sender hears why not."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Coroutine
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import BrokerConnectionError
from nats.aio.client import Client
from nats.js import api

from app.brokers.errors import MessageTooLargeError, NotStoredError
from app.brokers.nats import NatsBroker
from app.embedded.nats import EmbeddedNats
from tests.brokers.conftest import MakeBroker, Until, Working


def message(*args: Any, queue: str = "q", **options: Any) -> dramatiq.Message[Any]:
    return dramatiq.Message(queue, "a", args, {}, options)


def note(calls: list[int]) -> Callable[[int], None]:
    def a(number: int) -> None:
        calls.append(number)

    return a


def on_server(server: EmbeddedNats, work: Callable[[Client], Coroutine[Any, Any, Any]]) -> Any:
    """The result of *work* on a connection of its own."""

    async def run() -> Any:
        client = Client()
        await client.connect(server.url)
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def test_a_pointer_fits_and_anything_larger_is_refused(broker: NatsBroker) -> None:
    empty = len(message("").encode())
    fits, too_large = message("x" * (1024 - empty)), message("x" * (1025 - empty))
    assert len(fits.encode()) == 1024

    broker.enqueue(fits)
    with pytest.raises(MessageTooLargeError, match="1025 bytes encoded, the limit is 1024"):
        broker.enqueue_many([(message(1), None), (too_large, None)])

    assert broker.depth("q").waiting == 1


def test_many_are_stored_in_one_go(broker: NatsBroker) -> None:
    broker.enqueue_many([(message(n), None) for n in range(500)] + [(message(-1), 60_000)])
    assert broker.depth("q") == (500, 0, 1)
    assert broker.depth("q").total == 501


def test_nothing_is_a_batch_too(broker: NatsBroker) -> None:
    broker.enqueue_many([])


def test_the_same_message_sent_again_is_another_message(broker: NatsBroker) -> None:
    again = message(1)
    for _ in range(3):
        broker.enqueue(again)
    assert broker.depth("q").waiting == 3


def test_pending_counts_what_nobody_fetched(broker: NatsBroker, until: Until) -> None:
    assert broker.pending("q") == 0
    broker.enqueue_many([(message(n), None) for n in range(5)])
    consumer = broker.consume("q", prefetch=2, timeout=100)
    until(lambda: broker.pending("q") == 3)
    assert broker.depth("q") == (3, 2, 0)
    consumer.close()
    assert broker.depth("q").total == 5


def test_without_a_server_the_sender_hears_so_and_later_at_once(
    own_nats: EmbeddedNats, make_broker: MakeBroker, until: Until
) -> None:
    def is_known_to_be_away() -> bool:
        with pytest.raises(BrokerConnectionError) as heard:
            broker.enqueue(message(3))
        return "no connection for" in str(heard.value)

    broker = make_broker(publish_timeout=0.5)
    broker.enqueue(message(1))
    own_nats.kill()
    try:
        with pytest.raises(NotStoredError, match="did not store the message") as caught:
            broker.enqueue(message(2))
        until(is_known_to_be_away)
        started = time.monotonic()
        assert is_known_to_be_away()
        assert time.monotonic() - started < 0.25
    finally:
        own_nats.start()
    assert "127.0.0.1" in str(caught.value)
    assert "@" not in str(caught.value), "no user, no password"


def test_a_short_outage_only_costs_the_sender_time(
    own_nats: EmbeddedNats, broker: NatsBroker
) -> None:
    broker.enqueue(message(1))
    own_nats.kill()
    own_nats.start()
    broker.enqueue_many([(message(n), None) for n in range(50)])
    assert broker.depth("q").waiting == 51


def test_a_lost_store_is_made_again_for_the_sender(
    own_nats: EmbeddedNats, broker: NatsBroker
) -> None:
    broker.enqueue(message(1))
    lose_store(own_nats)
    broker.enqueue(message(2))
    assert broker.depth("q").waiting == 1


def test_a_deleted_stream_is_made_again_for_the_sender(
    own_nats: EmbeddedNats, broker: NatsBroker
) -> None:
    broker.enqueue(message(1))
    delete_streams(own_nats, broker)
    broker.enqueue_many([(message(n), None) for n in range(100)])
    assert broker.depth("q").waiting == 100


def test_a_lost_store_is_made_again_for_a_waiting_consumer(
    own_nats: EmbeddedNats, make_broker: MakeBroker, broker: NatsBroker, working: Working
) -> None:
    calls: list[int] = []
    dramatiq.actor(broker=broker, queue_name="q", actor_name="a")(note(calls))
    sender = make_broker()
    with working(broker):
        sender.enqueue(message(1))
        broker.join("q", timeout=10_000)
        lose_store(own_nats)
        sender.enqueue(message(2))
        broker.join("q", timeout=10_000)
    assert calls == [1, 2]


def test_a_deleted_stream_is_made_again_for_a_waiting_consumer(
    own_nats: EmbeddedNats, broker: NatsBroker, working: Working, until: Until
) -> None:
    calls: list[int] = []
    dramatiq.actor(broker=broker, queue_name="q", actor_name="a")(note(calls))
    with working(broker):
        broker.enqueue(message(1))
        broker.join("q", timeout=10_000)
        delete_streams(own_nats, broker)
        broker.enqueue(message(2))
        until(lambda: calls == [1, 2])


def test_numbers_of_a_new_stream_are_above_those_of_the_lost_one(
    own_nats: EmbeddedNats, broker: NatsBroker
) -> None:
    broker.enqueue_many([(message(n), None) for n in range(1000)])
    before = stream(own_nats, broker).state.last_seq
    lose_store(own_nats)
    broker.enqueue(message(1))
    assert stream(own_nats, broker).state.first_seq > before


def test_an_existing_stream_is_brought_in_line_and_keeps_its_messages(
    own_nats: EmbeddedNats, broker: NatsBroker, working: Working
) -> None:
    old = make_stream(own_nats, broker, retention=api.RetentionPolicy.WORK_QUEUE, max_bytes=10**8)
    assert not old.allow_msg_schedules
    broker.enqueue(message(1))
    broker.enqueue(message(2), delay=60_000)

    config = stream(own_nats, broker).config
    assert config.allow_msg_schedules
    assert config.max_bytes == 10**8, "what the operator set is his"
    assert broker.depth("q") == (1, 0, 1)


@pytest.mark.parametrize("name", ["steps", "wakes"])
def test_no_age_count_or_size_takes_away_what_nobody_fetched(
    own_nats: EmbeddedNats, broker: NatsBroker, name: str
) -> None:
    broker.enqueue(message(1))
    named = getattr(broker._subjects, name)
    config = on_server(own_nats, lambda c: c.jetstream().stream_info(named)).config
    assert config.retention == api.RetentionPolicy.WORK_QUEUE
    assert config.storage == api.StorageType.FILE
    assert not config.max_age
    assert (config.max_msgs, config.max_bytes) == (-1, -1)


def test_a_stream_that_cannot_serve_is_named_with_a_remedy(
    own_nats: EmbeddedNats, broker: NatsBroker
) -> None:
    make_stream(own_nats, broker, retention=api.RetentionPolicy.LIMITS)
    with pytest.raises(
        NotStoredError, match=r"_STEPS exists and cannot be changed.*choose another"
    ):
        broker.enqueue(message(1), delay=1000)


def lose_store(server: EmbeddedNats) -> None:
    server.kill()
    shutil.rmtree(server.store)
    server.start()


def stream_name(broker: NatsBroker) -> str:
    return broker._subjects.steps


def stream(server: EmbeddedNats, broker: NatsBroker) -> api.StreamInfo:
    info = on_server(server, lambda c: c.jetstream().stream_info(stream_name(broker)))
    assert isinstance(info, api.StreamInfo)
    return info


def make_stream(server: EmbeddedNats, broker: NatsBroker, **options: Any) -> api.StreamConfig:
    config = api.StreamConfig(
        name=stream_name(broker), subjects=[f"{broker._subjects.steps_root}.>"], **options
    )
    info = on_server(server, lambda c: c.jetstream().add_stream(config))
    assert isinstance(info.config, api.StreamConfig)
    return info.config


def delete_streams(server: EmbeddedNats, broker: NatsBroker) -> None:
    on_server(server, lambda c: c.jetstream().delete_stream(stream_name(broker)))
