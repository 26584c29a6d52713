"""A NATS server that these tests may kill, brokers on it, and workers that are always stopped."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import Any, Protocol

import dramatiq
import pytest

from app.brokers.nats import NatsBroker
from app.embedded.nats import EmbeddedNats

SOON = 10.0  # seconds within which anything expected must happen

Working = Callable[..., AbstractContextManager[dramatiq.Worker]]
Until = Callable[[Callable[[], Any]], None]


class MakeBroker(Protocol):
    def __call__(self, **options: Any) -> NatsBroker: ...


@pytest.fixture(scope="session")
def own_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """One server for all tests of this folder; whoever stops it starts it again."""
    with EmbeddedNats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def make_broker(own_nats: EmbeddedNats) -> Iterator[MakeBroker]:
    """Brokers that share one set of streams, closed at the end."""
    prefix = f"test-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:

        def make(**options: Any) -> NatsBroker:
            options = {"prefix": prefix, "middleware": [], **options}
            return stack.enter_context(closing(NatsBroker(own_nats.url, **options)))

        yield make


@pytest.fixture
def broker(make_broker: MakeBroker) -> NatsBroker:
    made = make_broker(coalescing={"wakes"})
    made.declare_queue("q")
    made.declare_queue("wakes")
    return made


@pytest.fixture
def working() -> Working:
    """``with working(broker, threads=2):`` runs a worker on the broker."""

    @contextmanager
    def run(broker: NatsBroker, *, threads: int = 2) -> Iterator[dramatiq.Worker]:
        worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=100)
        worker.start()
        try:
            yield worker
        finally:
            worker.stop()

    return run


@pytest.fixture
def until() -> Until:
    """Wait until a condition holds, and fail where it does not soon."""

    def wait(condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < deadline, "it never became true"
            time.sleep(0.005)

    return wait
