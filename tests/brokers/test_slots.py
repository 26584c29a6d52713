"""A worker holds what it has free threads for: what waits behind slow work is for others."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq

from app.brokers.nats import NatsBroker
from tests.brokers.conftest import SOON, MakeBroker, Until, Working


def message(number: int, queue: str = "q") -> dramatiq.Message[Any]:
    return dramatiq.Message(queue, "a", (number,), {}, {})


class Slow:
    """An actor on ``q`` and ``other`` whose calls wait for their gate, but for negative numbers."""

    def __init__(self, broker: NatsBroker) -> None:
        broker.declare_queue("other")
        self.begun: list[int] = []
        self.gate = threading.Event()
        dramatiq.actor(broker=broker, queue_name="q", actor_name="a")(self._run)

    def _run(self, number: int) -> None:
        self.begun.append(number)
        assert number < 0 or self.gate.wait(4 * SOON)


def test_what_waits_behind_slow_work_goes_to_a_worker_with_free_threads(
    make_broker: MakeBroker, working: Working, until: Until
) -> None:
    full, free = make_broker(), make_broker()
    slow, other = Slow(full), Slow(free)
    with working(full, threads=2):
        full.enqueue_many([(message(n), None) for n in range(6)])
        until(lambda: len(slow.begun) == 2)
        until(lambda: full.depth("q").held > 2)  # it took some ahead
        with working(free, threads=4):
            until(lambda: len(other.begun) == 4)
            assert sorted(slow.begun + other.begun) == list(range(6))
            slow.gate.set()
            other.gate.set()
            full.join("q", timeout=10_000)
    assert sorted(slow.begun + other.begun) == list(range(6))


def test_a_thread_that_slow_work_freed_is_used_again_by_any_queue(
    make_broker: MakeBroker, working: Working, until: Until
) -> None:
    broker = make_broker()
    slow = Slow(broker)
    with working(broker, threads=1):
        broker.enqueue(message(0))
        until(lambda: slow.begun == [0])
        broker.enqueue_many([(message(n, "other"), None) for n in (-1, -2)])
        broker.enqueue(message(-3))
        until(lambda: broker.session.slots.is_slow)
        slow.gate.set()
        for queue in ("q", "other"):
            broker.join(queue, timeout=10_000)
    assert sorted(slow.begun) == [-3, -2, -1, 0]


def test_while_messages_pass_quickly_some_are_held_ahead(
    make_broker: MakeBroker, working: Working, until: Until
) -> None:
    broker = make_broker()
    slow = Slow(broker)
    with working(broker, threads=4):
        broker.enqueue_many([(message(-n), None) for n in range(1, 201)])
        until(lambda: len(slow.begun) == 200)
        broker.join("q", timeout=10_000)
        assert not broker.session.slots.is_slow
        assert broker.session.slots.free == 4
