"""On a coalescing queue a key has one message at most; none is ever lost."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
from nats.aio.client import Client

from app.brokers.nats import NatsBroker
from app.embedded.nats import EmbeddedNats
from tests.brokers.conftest import SOON, MakeBroker, Until, Working


def wake(key: int) -> dramatiq.Message[Any]:
    return dramatiq.Message("wakes", "advance", (key,), {}, {"coalesce_key": str(key)})


class Orchestrator:
    """Counts its calls per key; the first one waits at the gate."""

    def __init__(self, broker: NatsBroker, *, gated: bool = False) -> None:
        self.calls: list[int] = []
        self.at_work: dict[int, int] = {}
        self.most_at_once = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self._lock = threading.Lock()
        if not gated:
            self.gate.set()
        dramatiq.actor(broker=broker, queue_name="wakes", actor_name="advance")(self._run)

    def _run(self, key: int) -> None:
        with self._lock:
            self.at_work[key] = self.at_work.get(key, 0) + 1
            self.most_at_once = max(self.most_at_once, self.at_work[key])
        self.entered.set()
        assert self.gate.wait(SOON)
        with self._lock:
            self.at_work[key] -= 1
            self.calls.append(key)


def test_a_thousand_wakes_become_one(broker: NatsBroker, working: Working) -> None:
    orchestrator = Orchestrator(broker)
    broker.enqueue_many([(wake(1), None) for _ in range(1000)])
    assert broker.depth("wakes").waiting == 1
    with working(broker):
        broker.join("wakes", timeout=10_000)
    assert orchestrator.calls == [1]


def test_wakes_during_the_work_become_exactly_one_more(
    broker: NatsBroker, working: Working, until: Until
) -> None:
    orchestrator = Orchestrator(broker, gated=True)
    with working(broker, threads=4):
        broker.enqueue(wake(1))
        assert orchestrator.entered.wait(SOON)
        broker.enqueue_many([(wake(1), None) for _ in range(1000)])
        until(lambda: broker.pending("wakes") == 0)  # those that came meanwhile, and no later ones
        orchestrator.gate.set()
        broker.join("wakes", timeout=10_000)
    assert orchestrator.calls == [1, 1]
    assert orchestrator.most_at_once == 1


def test_wakes_that_reached_a_busy_worker_one_by_one_become_one(
    broker: NatsBroker, working: Working, until: Until
) -> None:
    orchestrator = Orchestrator(broker, gated=True)
    with working(broker, threads=2):
        broker.enqueue_many([(wake(2), None), (wake(3), None)])
        until(lambda: sum(orchestrator.at_work.values()) == 2)
        for _ in range(20):
            broker.enqueue(wake(1))
            until(lambda: broker.pending("wakes") == 0)
        orchestrator.gate.set()
        broker.join("wakes", timeout=10_000)
    assert sorted(orchestrator.calls) == [1, 2, 3]


def test_wakes_of_other_keys_do_not_wait(
    broker: NatsBroker, working: Working, until: Until
) -> None:
    orchestrator = Orchestrator(broker, gated=True)
    with working(broker, threads=4):
        broker.enqueue_many([(wake(key), None) for key in (1, 2, 3)])
        until(lambda: sum(orchestrator.at_work.values()) == 3)
        orchestrator.gate.set()
        broker.join("wakes", timeout=10_000)
    assert sorted(orchestrator.calls) == [1, 2, 3]


def test_a_wake_parked_behind_the_one_at_work_is_given_back_on_stop(
    make_broker: MakeBroker, working: Working, until: Until
) -> None:
    first, second = make_broker(coalescing={"wakes"}), make_broker(coalescing={"wakes"})
    busy, free = Orchestrator(first, gated=True), Orchestrator(second)
    with working(first, threads=2) as worker:
        first.enqueue(wake(1))
        assert busy.entered.wait(SOON)
        first.enqueue(wake(1))
        until(lambda: first.depth("wakes").waiting == 0)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        with working(second):
            until(lambda: free.calls == [1])
        busy.gate.set()
        stopping.join(SOON)
    second.join("wakes", timeout=10_000)
    assert busy.calls == [1]


def test_the_arguments_are_the_key_where_none_is_named(broker: NatsBroker) -> None:
    def plain(key: int) -> dramatiq.Message[Any]:
        return dramatiq.Message("wakes", "advance", (key,), {}, {})

    broker.enqueue_many([(plain(key), None) for key in (1, 1, 2)])
    assert broker.depth("wakes").waiting == 2


def test_delayed_wakes_of_one_key_all_come(
    broker: NatsBroker, working: Working, until: Until
) -> None:
    orchestrator = Orchestrator(broker)
    broker.enqueue(wake(1), delay=1200)
    broker.enqueue(wake(1), delay=300)
    assert broker.depth("wakes").delayed == 2
    with working(broker):
        broker.join("wakes", timeout=10_000)
    assert orchestrator.calls == [1, 1]


def test_what_a_key_had_for_later_can_be_dropped(broker: NatsBroker, until: Until) -> None:
    broker.enqueue_many([(wake(1), 60_000), (wake(1), 90_000), (wake(11), 60_000), (wake(1), None)])
    assert broker.depth("wakes") == (1, 0, 3)
    broker.calm("wakes", ["1", "7"])
    until(lambda: broker.depth("wakes") == (1, 0, 1))


def test_what_was_dropped_does_not_come(broker: NatsBroker, working: Working, until: Until) -> None:
    orchestrator = Orchestrator(broker)
    with working(broker):
        broker.enqueue_many([(wake(1), 500), (wake(2), 1500)])
        broker.calm("wakes", ["1"])
        until(lambda: 2 in orchestrator.calls)
    assert orchestrator.calls == [2]


def test_what_a_killed_server_brings_back_is_dropped(
    own_nats: EmbeddedNats, make_broker: MakeBroker, working: Working, until: Until
) -> None:
    # An acknowledgement that the server did not live to read is given again after ack_wait.
    broker = make_broker(coalescing={"wakes"}, ack_wait=1.0)
    broker.declare_queue("wakes")
    # As long as something waits, the file of the stream stays, and in it all that was removed.
    broker.enqueue(wake(0), delay=600_000)
    orchestrator = Orchestrator(broker)
    with working(broker):
        for key in range(1, 300):
            broker.enqueue_many([(wake(key), None), (wake(key), 60_000), (wake(key), None)])
            broker.calm("wakes", [str(key)])
        until(lambda: set(orchestrator.calls) == set(range(1, 300)))
        until(lambda: broker.depth("wakes") == (0, 0, 1))
        own_nats.kill()
        own_nats.start()

        def tidied() -> bool:
            broker.tidy()
            return stored(broker) == 1

        until(tidied)
    assert broker.depth("wakes") == (0, 0, 1)


def stored(broker: NatsBroker) -> int:
    """Messages in the stream, also those that no consumer waits for any more."""

    async def count(client: Client) -> int:
        return (await client.jetstream().stream_info(stream)).state.messages

    stream = broker._subjects.wakes
    return broker.session.bridge.call(count, timeout=SOON)
