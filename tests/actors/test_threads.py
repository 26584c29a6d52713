"""What is at work when a worker is told to stop is waited for, whichever thread it is on."""

from __future__ import annotations

import threading

import dramatiq
from dramatiq.brokers.stub import StubBroker

from app.actors.threads import Worker

THREADS = 8


def test_the_last_thread_is_waited_for_where_the_first_take_long() -> None:
    broker = StubBroker(middleware=[])
    broker.emit_after("process_boot")
    began = threading.Barrier(THREADS + 1)
    done: list[str] = []

    def work() -> None:
        me = threading.current_thread()
        began.wait(timeout=20)
        threading.Event().wait(1.6 if me is worker.workers[-1] else 0.8)
        done.append(me.name)

    actor = dramatiq.actor(broker=broker)(work)
    worker = Worker(broker, worker_threads=THREADS)
    worker.start()
    for _ in range(THREADS):
        actor.send()
    began.wait(timeout=20)
    worker.stop(timeout=3_000)
    assert len(done) == THREADS
    broker.close()


def test_it_does_not_wait_for_ever() -> None:
    broker = StubBroker(middleware=[])
    broker.emit_after("process_boot")
    begun, over = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        over.wait(timeout=60)

    actor = dramatiq.actor(broker=broker)(work)
    worker = Worker(broker, worker_threads=2)
    worker.start()
    actor.send()
    assert begun.wait(timeout=20)
    worker.stop(timeout=100)
    assert not over.is_set()
    over.set()
    broker.close()
