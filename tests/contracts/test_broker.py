"""One contract for three brokers: Dramatiq's StubBroker and RedisBroker (the reference), and ours.

Where a broker legitimately differs, a flag says so, with its reason, and the test expects the
difference instead of looking away.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import dramatiq
import fakeredis
import pytest
from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import DecodeError, QueueJoinTimeout, QueueNotFound
from dramatiq.middleware import Middleware, Retries

from app.brokers.nats import NatsBroker
from app.brokers.publisher import Parcel
from app.brokers.subjects import Subjects
from app.embedded.nats import EmbeddedNats

IDLE = 100  # milliseconds that consumers of these tests wait for a message
SOON = 10.0  # seconds within which anything expected must happen


@dataclass(frozen=True)
class Traits:
    """How a broker legitimately differs from the contract."""

    #: Lives in the process and looks queues up in a dict; the others may not know another's queues.
    refuses_unknown_queue: bool = False
    #: Keeps names in a set on the client and never asks.
    consumes_unknown_queue: bool = False
    #: Dramatiq's own consumers raise on a bad message and leave its fate to the worker's restart.
    raises_undecodable: bool = False
    #: ``requeue`` is the default, which does nothing: messages of a stopped worker are gone.
    forgets_prefetched: bool = False
    #: Delays are messages in a second queue that a worker holds in memory.
    delays_in_worker: bool = True
    #: ``flush`` takes the queue by name only; ``flush_all`` reaches the delayed messages too.
    flush_spares_delayed: bool = False
    #: Has a server that can go away and come back with what it stored.
    has_server: bool = True


class Twin:
    """A broker under test, with the backdoors that a contract needs."""

    traits: ClassVar[Traits]

    def broker(self, *middleware: Middleware) -> Broker:
        """Another client of the same messages."""
        raise NotImplementedError

    def put_raw(self, broker: Broker, queue: str, data: bytes) -> None:
        raise NotImplementedError

    def outage(self) -> AbstractContextManager[None]:
        """The server is down inside, and back afterwards."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what the twin itself holds."""


class StubTwin(Twin):
    traits = Traits(
        refuses_unknown_queue=True,
        raises_undecodable=True,
        forgets_prefetched=True,
        flush_spares_delayed=True,
        has_server=False,
    )

    def broker(self, *middleware: Middleware) -> Broker:
        return StubBroker(middleware=list(middleware), fail_fast_default=False)

    def put_raw(self, broker: Broker, queue: str, data: bytes) -> None:
        broker.queues[queue].put(data)


class RedisTwin(Twin):
    traits = Traits(consumes_unknown_queue=True, raises_undecodable=True)

    def __init__(self) -> None:
        self._server = fakeredis.FakeServer()
        self._clients: list[fakeredis.FakeRedis] = []

    def broker(self, *middleware: Middleware) -> Broker:
        client = fakeredis.FakeRedis(server=self._server)
        self._clients.append(client)
        options = {"client": client, "middleware": list(middleware)}
        return RedisBroker(**options)  # type: ignore[no-untyped-call]  # dramatiq has no types here

    def put_raw(self, broker: Broker, queue: str, data: bytes) -> None:
        client = self._clients[-1]
        client.hset(f"dramatiq:{queue}.msgs", "raw", data)
        client.rpush(f"dramatiq:{queue}", "raw")

    @contextmanager
    def outage(self) -> Iterator[None]:
        self._server.connected = False
        yield
        self._server.connected = True

    def close(self) -> None:
        for client in self._clients:
            client.close()


class NatsTwin(Twin):
    traits = Traits(delays_in_worker=False)

    def __init__(self, server: EmbeddedNats) -> None:
        self._server = server
        self._prefix = f"contract-{uuid.uuid4().hex[:8]}"

    def broker(self, *middleware: Middleware) -> Broker:
        return NatsBroker(self._server.url, middleware=list(middleware), prefix=self._prefix)

    def put_raw(self, broker: Broker, queue: str, data: bytes) -> None:
        assert isinstance(broker, NatsBroker)
        subject = Subjects(self._prefix, frozenset()).target(queue, "")
        broker.session.publisher.publish([Parcel(subject, data)])

    @contextmanager
    def outage(self) -> Iterator[None]:
        self._server.kill()
        yield
        self._server.start()


@pytest.fixture(scope="module")
def own_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """A server that these tests may kill."""
    folder: Path = tmp_path_factory.mktemp("nats")
    with EmbeddedNats(folder) as server:
        yield server


@pytest.fixture(params=["stub", "redis", "nats"])
def twin(request: pytest.FixtureRequest) -> Iterator[Twin]:
    made: Twin
    match request.param:
        case "stub":
            made = StubTwin()
        case "redis":
            made = RedisTwin()
        case _:
            made = NatsTwin(request.getfixturevalue("own_nats"))
    with closing(made):
        yield made


@pytest.fixture
def broker(twin: Twin) -> Iterator[Broker]:
    with closing(twin.broker()) as made:
        made.declare_queue("q")
        yield made


@contextmanager
def working(broker: Broker, threads: int = 2) -> Iterator[dramatiq.Worker]:
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=IDLE)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def message(
    *args: Any, queue: str = "q", actor: str = "a", **options: Any
) -> dramatiq.Message[Any]:
    return dramatiq.Message(queue, actor, args, {}, options)


def receive(consumer: Consumer, *, within: float = SOON) -> MessageProxy:
    """The next message; a consumer may say None meanwhile."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if (found := next(consumer)) is not None:
            return found
    pytest.fail("no message came")


def until(condition: Callable[[], bool], *, within: float = SOON) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.005)


class Recorder:
    """An actor that notes its calls and can be told to wait inside."""

    def __init__(self, broker: Broker, *, gated: bool = False) -> None:
        self.calls: list[Any] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        if not gated:
            self.gate.set()
        declare = dramatiq.actor(broker=broker, queue_name="q", actor_name="a")
        declare(self._run)

    def _run(self, *args: Any) -> None:
        self.entered.release()
        assert self.gate.wait(SOON)
        self.calls.append(args[0])


def test_a_queue_is_declared_once(twin: Twin) -> None:
    class Declared(Middleware):
        seen: ClassVar[list[str]] = []

        def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
            self.seen.append(queue_name)

    with closing(twin.broker(Declared())) as broker:
        broker.declare_queue("q")
        broker.declare_queue("q")

        assert Declared.seen == ["q"]
        assert "q" in broker.get_declared_queues()
        assert bool(broker.get_declared_delay_queues()) is twin.traits.delays_in_worker


def test_a_queue_nobody_declared_cannot_be_consumed(twin: Twin, broker: Broker) -> None:
    if twin.traits.consumes_unknown_queue:
        assert next(broker.consume("nobody", timeout=IDLE)) is None
        return
    with pytest.raises(QueueNotFound):
        broker.consume("nobody")


def test_a_sender_need_not_know_the_queue(twin: Twin, broker: Broker) -> None:
    sent = message(1, queue="elsewhere")
    if twin.traits.refuses_unknown_queue:
        with pytest.raises(QueueNotFound):
            broker.enqueue(sent)
        return
    broker.enqueue(sent)
    broker.declare_queue("elsewhere")
    with closing(broker.consume("elsewhere", timeout=IDLE)) as consumer:
        found = receive(consumer)
        assert found.message_id == sent.message_id
        consumer.ack(found)


def test_what_is_sent_is_what_arrives(broker: Broker) -> None:
    sent: dramatiq.Message[Any] = dramatiq.Message(
        "q", "a", (1, "zwei", None), {"drei": [3.5, True]}, {"note": "ü"}
    )

    returned = broker.enqueue(sent)

    assert returned.message_id == sent.message_id
    with closing(broker.consume("q", timeout=IDLE)) as consumer:
        found = receive(consumer)
        assert (found.message_id, found.actor_name, found.queue_name) == (sent.message_id, "a", "q")
        assert (found.args, found.kwargs) == (sent.args, sent.kwargs)
        assert found.options["note"] == "ü"
        consumer.ack(found)


def test_messages_come_in_the_order_they_were_sent(broker: Broker) -> None:
    for number in range(20):
        broker.enqueue(message(number))
    with closing(broker.consume("q", prefetch=8, timeout=IDLE)) as consumer:
        order = []
        for _ in range(20):
            found = receive(consumer)
            order.append(found.args[0])
            consumer.ack(found)
    assert order == list(range(20))


def test_an_idle_consumer_says_none_in_time(broker: Broker) -> None:
    with closing(broker.consume("q", timeout=IDLE)) as consumer:
        started = time.monotonic()
        assert next(consumer) is None
        assert time.monotonic() - started < 5 * IDLE / 1000


def test_emits_before_and_after_enqueue(twin: Twin) -> None:
    seen: list[tuple[str, int | None]] = []

    class Enqueued(Middleware):
        def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            seen.append(("before", delay))

        def after_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            seen.append(("after", delay))

    with closing(twin.broker(Enqueued())) as broker:
        broker.declare_queue("q")
        broker.enqueue(message(1))
        broker.enqueue(message(2), delay=60_000)
        broker.flush_all()
    assert seen == [("before", None), ("after", None), ("before", 60_000), ("after", 60_000)]


def test_a_delayed_message_comes_when_it_is_due(broker: Broker) -> None:
    recorder = Recorder(broker)
    due = time.time() + 0.6
    with working(broker):
        broker.enqueue(message("later"), delay=600)
        broker.enqueue(message("now"))
        until(lambda: recorder.calls == ["now", "later"])
        assert due <= time.time() < due + 2.0
        broker.join("q", timeout=5000)


def test_delays_need_not_be_sent_in_order(broker: Broker) -> None:
    recorder = Recorder(broker)
    with working(broker, threads=1):
        for name, delay in (("third", 1200), ("first", 200), ("second", 700)):
            broker.enqueue(message(name), delay=delay)
        until(lambda: len(recorder.calls) == 3)
    assert recorder.calls == ["first", "second", "third"]


def test_an_acknowledged_message_is_gone(broker: Broker) -> None:
    broker.enqueue(message(1))
    with closing(broker.consume("q", timeout=IDLE)) as consumer:
        consumer.ack(receive(consumer))
        broker.join("q", timeout=5000)
        assert next(consumer) is None


def test_a_rejected_message_is_off_the_queue(broker: Broker) -> None:
    broker.enqueue(message("bad"))
    broker.enqueue(message("good"))
    with closing(broker.consume("q", timeout=IDLE)) as consumer:
        bad = receive(consumer)
        bad.fail()
        consumer.nack(bad)
        good = receive(consumer)
        assert good.args == ("good",)
        consumer.ack(good)
        broker.join("q", timeout=5000)
        assert next(consumer) is None


def test_a_requeued_message_goes_to_another_consumer(twin: Twin, broker: Broker) -> None:
    broker.enqueue(message(1))
    with closing(broker.consume("q", timeout=IDLE)) as first:
        found = receive(first)
        first.requeue([found])
    with closing(broker.consume("q", timeout=IDLE)) as second:
        if twin.traits.forgets_prefetched:
            assert next(second) is None
            return
        again = receive(second)
        assert again.message_id == found.message_id
        second.ack(again)
    broker.join("q", timeout=5000)


def test_prefetch_is_the_most_a_consumer_holds(broker: Broker) -> None:
    for number in range(4):
        broker.enqueue(message(number))
    with closing(broker.consume("q", prefetch=2, timeout=IDLE)) as consumer:
        held = [receive(consumer), receive(consumer)]
        assert next(consumer) is None

        consumer.ack(held.pop(0))

        held.append(receive(consumer))
        assert [each.args[0] for each in held] == [1, 2]
        for each in held:
            consumer.ack(each)
        consumer.ack(receive(consumer))
    broker.join("q", timeout=5000)


def test_an_unknown_actor_does_not_hold_up_the_others(broker: Broker) -> None:
    recorder = Recorder(broker)
    broker.enqueue(message(1, actor="nobody"))
    broker.enqueue(message(2))
    with working(broker):
        until(lambda: recorder.calls == [2])
        broker.join("q", timeout=5000)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"{", b"[]", b"{}"])
def test_an_undecodable_message_does_not_hold_up_the_others(
    twin: Twin, broker: Broker, data: bytes
) -> None:
    twin.put_raw(broker, "q", data)
    broker.enqueue(message(1))
    with closing(broker.consume("q", prefetch=2, timeout=IDLE)) as consumer:
        if twin.traits.raises_undecodable:
            with pytest.raises(DecodeError):
                next(consumer)
        found = receive(consumer)
        assert found.args == (1,)
        consumer.ack(found)
        if not twin.traits.raises_undecodable:
            broker.join("q", timeout=5000)


def test_flush_drops_what_waits_and_what_is_delayed(twin: Twin, broker: Broker) -> None:
    broker.declare_queue("other")
    broker.enqueue(message(1))
    broker.enqueue(message(2), delay=60_000)
    broker.enqueue(message(3, queue="other"))

    broker.flush("q")

    if twin.traits.flush_spares_delayed:
        broker.flush("q.DQ")
    broker.join("q", timeout=5000)
    with closing(broker.consume("other", timeout=IDLE)) as consumer:
        consumer.ack(receive(consumer))


def test_flush_all_drops_everything(broker: Broker) -> None:
    broker.declare_queue("other")
    for queue in ("q", "other"):
        broker.enqueue(message(1, queue=queue))
        broker.enqueue(message(2, queue=queue), delay=60_000)

    broker.flush_all()

    for queue in ("q", "other"):
        broker.join(queue, timeout=5000)


def test_join_waits_for_the_message_at_work(broker: Broker) -> None:
    recorder = Recorder(broker, gated=True)
    broker.enqueue(message(1))
    with working(broker):
        assert recorder.entered.acquire(timeout=SOON)
        with pytest.raises(QueueJoinTimeout):
            broker.join("q", timeout=300)
        recorder.gate.set()
        broker.join("q", timeout=5000)
    assert recorder.calls == [1]


def test_join_waits_for_delayed_messages(broker: Broker) -> None:
    recorder = Recorder(broker)
    with working(broker):
        broker.enqueue(message(1), delay=500)
        broker.join("q", timeout=5000)
    assert recorder.calls == [1]


def test_many_threads_do_each_message_once(broker: Broker) -> None:
    recorder = Recorder(broker)
    for number in range(200):
        broker.enqueue(message(number))
    with working(broker, threads=8):
        until(lambda: len(recorder.calls) >= 200)
        broker.join("q", timeout=5000)
    assert sorted(recorder.calls) == list(range(200))


def test_retries_come_back_through_the_broker(twin: Twin) -> None:
    with closing(twin.broker(Retries(max_retries=3, min_backoff=20, max_backoff=40))) as broker:
        attempts: list[int] = []

        @dramatiq.actor(broker=broker, queue_name="q")
        def flaky() -> None:
            attempts.append(1)
            if len(attempts) < 3:
                raise ValueError("not yet")

        with working(broker):
            flaky.send()
            until(lambda: len(attempts) == 3)
            broker.join("q", timeout=5000)


def test_a_stopped_worker_finishes_what_it_began_and_gives_back_the_rest(
    twin: Twin, broker: Broker
) -> None:
    first = Recorder(broker, gated=True)
    for number in range(6):
        broker.enqueue(message(number))
    with working(broker, threads=1) as worker:
        assert first.entered.acquire(timeout=SOON)
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        first.gate.set()
        stopping.join(SOON)
    assert first.calls[0] == 0
    if twin.traits.forgets_prefetched:
        return

    with closing(twin.broker()) as other:
        second = Recorder(other)
        with working(other):
            until(lambda: len(first.calls) + len(second.calls) >= 6)
            other.join("q", timeout=5000)
    assert sorted(first.calls + second.calls) == list(range(6))


def test_messages_survive_a_restart_of_the_server(twin: Twin, broker: Broker) -> None:
    recorder = Recorder(broker)
    broker.enqueue(message("before"))
    if twin.traits.has_server:
        with twin.outage():
            pass
    broker.enqueue(message("after"))
    with working(broker):
        until(lambda: sorted(recorder.calls) == ["after", "before"])
        broker.join("q", timeout=5000)


def test_a_worker_lives_through_a_restart_of_the_server(twin: Twin, broker: Broker) -> None:
    recorder = Recorder(broker)
    with working(broker):
        broker.enqueue(message("before"))
        until(lambda: recorder.calls == ["before"])
        # An acknowledgement lost with the server means redelivery, which is another test's.
        broker.join("q", timeout=5000)
        if twin.traits.has_server:
            with twin.outage():
                pass
        broker.enqueue(message("after"))
        until(lambda: recorder.calls == ["before", "after"])
        broker.join("q", timeout=5000)
