"""A message that somebody holds is nobody else's; one that nobody holds any more comes again."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import dramatiq
import pytest
from dramatiq.broker import Consumer
from nats.aio.client import Client
from structlog.testing import capture_logs

from app.brokers.bridge import Wire
from app.brokers.delivery import ACK
from app.brokers.nats import NatsBroker, NatsMessage
from app.brokers.publisher import Parcel
from app.embedded.nats import EmbeddedNats
from tests.brokers.conftest import SOON, MakeBroker, Until, Working


def message(*args: Any, actor: str = "a") -> dramatiq.Message[Any]:
    return dramatiq.Message("q", actor, args, {}, {})


def receive(consumer: Consumer) -> NatsMessage:
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        found = next(consumer)
        if found is not None:
            assert isinstance(found, NatsMessage)
            return found
    pytest.fail("no message came")


def delete_consumer(broker: NatsBroker) -> None:
    subjects = broker._subjects

    async def delete(client: Client) -> None:
        await client.jetstream().delete_consumer(subjects.stream("q"), subjects.durable("q"))

    broker.session.bridge.call(delete, timeout=5.0)


class Gated:
    """An actor whose calls wait until the gate opens."""

    def __init__(self, broker: NatsBroker) -> None:
        self.begun: list[int] = []
        self.done: list[int] = []
        self.gate = threading.Event()
        dramatiq.actor(broker=broker, queue_name="q", actor_name="a")(self._run)

    def _run(self, number: int) -> None:
        self.begun.append(number)
        assert self.gate.wait(SOON)
        self.done.append(number)


def test_what_is_held_longer_than_ack_wait_stays_ours_prefetched_or_not(
    make_broker: MakeBroker,
) -> None:
    broker, rival = make_broker(ack_wait=0.6), make_broker(ack_wait=0.6)
    for each in (broker, rival):
        each.declare_queue("q")
    broker.enqueue_many([(message(n), None) for n in (1, 2, 3)])
    ours = broker.consume("q", prefetch=3, timeout=100)
    first = receive(ours)  # two more are prefetched
    theirs = rival.consume("q", prefetch=3, timeout=2000)

    assert next(theirs) is None, "three times ack_wait and nothing came"

    ours.ack(first)
    for expected in (2, 3):
        found = receive(ours)
        assert (found.args, found.deliveries) == ((expected,), 1)
        ours.ack(found)
    broker.join("q", timeout=5000)
    ours.close()
    theirs.close()


def test_a_killed_consumers_messages_come_again(
    own_nats: EmbeddedNats, make_broker: MakeBroker
) -> None:
    broker = make_broker(ack_wait=1.0)
    broker.declare_queue("q")
    broker.enqueue_many([(message(n), None) for n in (1, 2)])
    program = f"""
        from app.brokers.nats import NatsBroker
        broker = NatsBroker({own_nats.url!r}, prefix={broker._subjects.prefix!r}, ack_wait=1.0)
        broker.declare_queue("q")
        consumer = broker.consume("q", prefetch=2, timeout=60_000)
        print("holds", next(consumer).args[0], flush=True)
        next(consumer), next(consumer)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        lines = iter(victim.stdout.readline, "")
        assert any(line.startswith("holds 1") for line in lines)
        victim.send_signal(signal.SIGKILL)

    consumer = broker.consume("q", prefetch=2, timeout=100)
    again = [receive(consumer), receive(consumer)]
    assert sorted(each.args[0] for each in again) == [1, 2]
    assert [each.deliveries for each in again] == [2, 2]
    for each in again:
        consumer.ack(each)
    broker.join("q", timeout=5000)
    consumer.close()


def test_a_server_that_forgot_its_consumer_makes_nobody_run_twice(
    own_nats: EmbeddedNats, broker: NatsBroker, working: Working, until: Until
) -> None:
    gated = Gated(broker)
    with working(broker, threads=2):
        broker.enqueue_many([(message(n), None) for n in range(2)])
        until(lambda: len(gated.begun) == 2)
        delete_consumer(broker)
        until(lambda: broker.depth("q").held == 2)  # delivered afresh, to the one that has them
        gated.gate.set()
        broker.join("q", timeout=10_000)
    assert sorted(gated.begun) == [0, 1]


def test_a_lost_acknowledgement_is_repeated_not_the_work(
    make_broker: MakeBroker, working: Working, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = make_broker(ack_wait=0.5)
    gated = Gated(broker)
    gated.gate.set()
    bridge = broker.session.bridge
    send = bridge.send
    lost: list[Wire] = []

    def lose_the_first(wire: Wire) -> None:
        if wire.payload == ACK and not lost:
            lost.append(wire)
        else:
            send(wire)

    monkeypatch.setattr(bridge, "send", lose_the_first)
    with working(broker):
        broker.enqueue(message(1))
        broker.join("q", timeout=10_000)
    assert len(lost) == 1
    assert gated.begun == [1]


def test_a_killed_server_delivers_again_and_the_same_worker_does_not_run_it_twice(
    own_nats: EmbeddedNats, make_broker: MakeBroker, working: Working, until: Until
) -> None:
    # What was just delivered may not be on the server's disk yet, so after kill -9 it may deliver
    # afresh, to whoever asks first. Another process would run it again; this one knows what it has.
    broker = make_broker(ack_wait=0.6)
    gated = Gated(broker)
    with working(broker, threads=2):
        broker.enqueue_many([(message(n), None) for n in range(4)])
        until(lambda: len(gated.begun) == 2 and broker.depth("q").held == 4)
        own_nats.kill()
        own_nats.start()
        gated.gate.set()
        broker.join("q", timeout=10_000)
    assert sorted(gated.begun) == [0, 1, 2, 3]


def test_what_was_done_while_the_server_was_away_is_acknowledged_later(
    own_nats: EmbeddedNats, broker: NatsBroker, working: Working, until: Until
) -> None:
    gated = Gated(broker)
    with working(broker, threads=2):
        broker.enqueue_many([(message(n), None) for n in range(2)])
        until(lambda: len(gated.begun) == 2)
        own_nats.kill()
        gated.gate.set()
        until(lambda: len(gated.done) == 2)
        own_nats.start()
        broker.join("q", timeout=10_000)
    assert sorted(gated.begun) == [0, 1]


def test_a_late_acknowledgement_never_hits_a_message_of_a_new_store(
    own_nats: EmbeddedNats, make_broker: MakeBroker, broker: NatsBroker
) -> None:
    broker.enqueue(message("old"))
    consumer = broker.consume("q", prefetch=1, timeout=100)
    old = receive(consumer)
    own_nats.kill()
    shutil.rmtree(own_nats.store)
    own_nats.start()
    sender = make_broker()
    sender.enqueue(message("new"))

    consumer.ack(old)

    new = receive(consumer)
    assert new.args == ("new",)
    assert sender.depth("q").total == 1
    consumer.ack(new)
    broker.join("q", timeout=5000)
    consumer.close()


def test_a_stopped_worker_gives_back_at_once_while_it_still_works(
    make_broker: MakeBroker, working: Working, until: Until
) -> None:
    leaving, staying = make_broker(), make_broker()
    slow, quick = Gated(leaving), Gated(staying)
    quick.gate.set()
    with working(leaving, threads=2) as worker:
        leaving.enqueue_many([(message(n), None) for n in range(4)])
        until(lambda: len(slow.begun) == 2 and leaving.depth("q") == (0, 4, 0))
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        with working(staying):
            until(lambda: len(quick.done) == 2)
        assert stopping.is_alive(), "and the two at work are still at it"
        slow.gate.set()
        stopping.join(SOON)
        staying.join("q", timeout=5000)
    assert sorted(slow.done + quick.done) == [0, 1, 2, 3]


def test_a_closed_broker_gives_back_what_was_still_at_work(make_broker: MakeBroker) -> None:
    first, second = make_broker(), make_broker()
    for each in (first, second):
        each.declare_queue("q")
    first.enqueue(message(1))
    receive(first.consume("q", timeout=100))

    first.close()

    consumer = second.consume("q", timeout=100)
    again = receive(consumer)
    assert again.deliveries == 2
    consumer.ack(again)
    second.join("q", timeout=5000)
    consumer.close()


def test_a_closed_broker_connects_again_when_used(broker: NatsBroker) -> None:
    broker.enqueue(message(1))
    broker.close()
    broker.enqueue(message(2))
    assert broker.depth("q").waiting == 2


def test_rejected_and_undecodable_messages_are_told_and_gone(broker: NatsBroker) -> None:
    target = broker._subjects.target("q", "")
    broker.session.publisher.publish([Parcel(target, b"rubbish")])
    broker.enqueue(message(1, actor="poison"))
    consumer = broker.consume("q", prefetch=2, timeout=100)
    with capture_logs() as logs:
        bad = receive(consumer)
        bad.fail()
        consumer.nack(bad)
        broker.join("q", timeout=5000)
    consumer.close()

    events = {log["event"]: log for log in logs}
    assert events["undecodable_message"]["data"] == b"rubbish"
    assert events["message_rejected"]["actor"] == "poison"
    assert events["message_rejected"]["message_id"] == bad.message_id


def test_a_message_filed_under_another_name_is_worked_on_all_the_same(
    broker: NatsBroker, working: Working, until: Until
) -> None:
    gated = Gated(broker)
    gated.gate.set()
    strayed = dramatiq.Message[Any]("q.DQ", "a", (7,), {}, {})
    target = broker._subjects.target("q", "")
    broker.session.publisher.publish([Parcel(target, strayed.encode())])
    with working(broker):
        until(lambda: gated.done == [7])
        broker.join("q", timeout=5000)
