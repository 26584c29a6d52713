"""Delayed messages wait on the server, in nobody's memory."""

from __future__ import annotations

import threading
import time
from typing import Any

import dramatiq
import pytest

from app.brokers.nats import NatsBroker
from app.embedded.nats import EmbeddedNats
from tests.brokers.conftest import MakeBroker, Working


def message(*args: Any) -> dramatiq.Message[Any]:
    return dramatiq.Message("q", "a", args, {}, {})


class Noted:
    def __init__(self, broker: NatsBroker) -> None:
        self.times: dict[Any, float] = {}
        dramatiq.actor(broker=broker, queue_name="q", actor_name="a")(self._run)

    def _run(self, name: Any) -> None:
        self.times[name] = time.time()


def test_a_delay_survives_its_sender_the_worker_and_the_server(
    own_nats: EmbeddedNats, make_broker: MakeBroker, working: Working
) -> None:
    sender = make_broker()
    sender.declare_queue("q")
    due = time.time() + 1.0
    sender.enqueue(message("x"), delay=1000)
    with working(sender):
        pass
    sender.close()
    own_nats.kill()
    own_nats.start()

    later = make_broker()
    noted = Noted(later)
    with working(later):
        later.join("q", timeout=10_000)
    assert due <= noted.times["x"]


def test_a_delayed_message_leaves_nothing_behind(broker: NatsBroker, working: Working) -> None:
    noted = Noted(broker)
    with working(broker):
        broker.enqueue_many([(message(n), 50 + n) for n in range(100)])
        assert broker.depth("q").delayed == 100
        broker.join("q", timeout=10_000)
    assert len(noted.times) == 100
    assert broker.depth("q") == (0, 0, 0)


@pytest.mark.parametrize("delay", [0, -5, 1])
def test_no_delay_to_speak_of_is_no_long_wait(
    broker: NatsBroker, working: Working, delay: int
) -> None:
    noted = Noted(broker)
    with working(broker):
        started = time.time()
        broker.enqueue(message("x"), delay=delay)
        broker.join("q", timeout=5000)
    assert noted.times["x"] - started < 1.0


def test_a_worker_never_holds_what_is_delayed(broker: NatsBroker, working: Working) -> None:
    before = threading.active_count()
    with working(broker) as worker:
        broker.enqueue(message("x"), delay=60_000)
        assert set(worker.consumers) == {"q", "wakes"}
        assert broker.depth("q") == (0, 0, 1)
    assert threading.active_count() <= before + 1  # the loop's thread
