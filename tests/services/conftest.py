"""A control plane on the memory twins, with a dispatcher that only writes down what it was told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.actors.fetching import Asker, Fetched, Fetcher
from app.engine.entry import Entry
from app.engine.events import ChildStarted
from app.engine.language.examine import CheckedKinds
from app.engine.ports import BlobStore, CatalogEntry, Dispatch, NewId, Pointer
from app.errors import UnavailableError
from app.services.control import Control, Ports, control
from app.services.desk import Desk
from app.settings import load
from app.store.ids import Snowflake
from app.store.memory import MemoryCatalog, MemoryLog, MemoryRuntime
from app.wire import Claim, ClaimAnswer, ClaimRequest, Report, ReportAnswer, ReportRequest
from app.wiring import memory_custody
from tests.engine.driver import KINDS


@dataclass
class Recorder:
    """A dispatcher that keeps what it is told; ``down`` makes it unreachable."""

    sent: list[Dispatch] = field(default_factory=list)
    wakes: list[int] = field(default_factory=list)
    #: The delayed ones of them, with their delay in seconds.
    later: list[tuple[int, float]] = field(default_factory=list)
    #: The executions whose delayed wakes are of no use any more.
    calmed: list[int] = field(default_factory=list)
    tidied: int = 0
    down: bool = False
    born: str = "monday"
    #: Seconds that the oldest message has waited.
    oldest: float = 0.0

    def dispatch(self, steps: Sequence[Dispatch]) -> None:
        self._check()
        self.sent.extend(steps)

    def wake(self, execution_ids: Iterable[int], *, delay: float = 0.0) -> None:
        self._check()
        ids = list(execution_ids)
        self.wakes.extend(ids)
        self.later.extend((execution_id, delay) for execution_id in ids if delay)

    def calm(self, execution_ids: Iterable[int]) -> None:
        self.calmed.extend(execution_ids)

    def tidy(self) -> None:
        self._check()
        self.tidied += 1

    def waited(self, queue: str) -> float:
        return self.oldest

    def epoch(self) -> str:
        self._check()
        return self.born

    def _check(self) -> None:
        if self.down:
            raise UnavailableError("the broker is away")


@dataclass
class Bench:
    """One control plane and the hands of a worker."""

    control: Control
    ports: Ports
    dispatcher: Recorder
    now: list[float]

    def register(self, workflow: str, name: str = "t") -> CatalogEntry:
        head = f"apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {name}}}\n"
        return self.control.catalog.register(head + workflow)

    def start(self, workflow: str, payload: dict[str, Any] | None = None) -> int:
        entry = self.register(workflow)
        return self.control.executions.start(
            catalog_id=entry.catalog_id, payload=payload
        ).execution_id

    def advance(self, execution_id: int) -> list[Pointer]:
        """Decide, and the pointers that were sent for it."""
        before = len(self.dispatcher.sent)
        self.control.advance.advance(execution_id)
        return [dispatch.pointer for dispatch in self.dispatcher.sent[before:]]

    def claim(self, pointer: Pointer, *, worker: str = "w1", key: str | None = None) -> ClaimAnswer:
        claim = Claim(**pointer._asdict(), key=key or f"{worker}:{pointer}")
        response = self.control.work.claim(ClaimRequest(worker=worker, claims=[claim]))
        return response.answers[0]

    def report(
        self,
        pointer: Pointer,
        result: Any = None,
        *,
        worker: str = "w1",
        key: str | None = None,
        **extra: Any,
    ) -> ReportAnswer:
        values = {"outcome": "done", "result": result, "key": key or f"{worker}:{pointer}", **extra}
        report = Report(**pointer._asdict(), **values)
        return self.control.work.report(ReportRequest(worker=worker, reports=[report])).answers[0]

    def read(self, pointer: Pointer, value: Any) -> Any:
        """*value* of a granted claim as the worker's templates read it."""
        asker = Asker(pointer, threading.Event(), time.monotonic() + 30)
        return Fetched(Fetcher(Desk(self.control)), asker).open(value)

    def work(self, pointer: Pointer, result: Any = None) -> None:
        assert self.claim(pointer).granted
        assert self.report(pointer, result).accepted

    def settle(self, execution_id: int, result: Any = None, *, most: int = 200) -> None:
        """Do all the work of an execution, each step with *result*, until nothing is left to do."""
        for _ in range(most):
            pointers = self.advance(execution_id)
            if not pointers:
                return
            for pointer in pointers:
                self.work(pointer, result)

    def children(self, execution_id: int) -> list[int]:
        """The sub-playbooks that an execution started, in their order."""
        events = (entry.event for entry in self.log(execution_id))
        return [event.child_execution_id for event in events if isinstance(event, ChildStarted)]

    def types(self, execution_id: int) -> list[str]:
        return [entry.event.type for entry in self.log(execution_id)]

    def log(self, execution_id: int) -> list[Entry]:
        return self.ports.events.read(execution_id)


def bench_on(
    home: Path,
    *,
    kinds: CheckedKinds = KINDS,
    blobs: BlobStore | None = None,
    new_id: NewId | None = None,
    **settings: Any,
) -> Bench:
    """A bench whose clock stands still until somebody moves it; it decides when it is told to."""
    settings.setdefault("eager", False)
    now = [1_800_000_000.0]
    clock = lambda: now[0]  # noqa: E731 (one clock for everything)
    runtime = MemoryRuntime(clock=clock)
    dispatcher = Recorder()
    ports = Ports(
        events=MemoryLog(runtime, clock=clock),
        catalog=MemoryCatalog(clock=clock),
        runtime=runtime,
        dispatcher=dispatcher,
        kinds=kinds,
        clock=clock,
        new_id=new_id or Snowflake(clock=clock),
        custody=memory_custody(),
        blobs=blobs,
    )
    return Bench(control(ports, load({}, home=home, **settings).settings), ports, dispatcher, now)


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[..., Bench]:
    def make(**settings: Any) -> Bench:
        return bench_on(tmp_path, **settings)

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
