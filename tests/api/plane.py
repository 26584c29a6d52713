"""The real API on the memory twins; messages are recorded instead of sent."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.api.app import Check, create_app
from app.engine.ports import Dispatch
from app.services.control import Control, Ports, control
from app.services.observed import ObservedLog
from app.settings import Settings
from app.store.ids import Snowflake
from app.store.memory import MemoryCatalog, MemoryLog, MemoryRuntime
from app.store.memory_retention import MemoryRetention
from app.telemetry.metrics import Metrics
from app.tools import load_tool
from app.wiring import memory_custody

CHAIN = """\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: chain, path: tests/chain}
workload: {greeting: hello, items: [1, 2, 3]}
workflow:
  - step: start
    tool: {kind: noop, message: "{{ workload.greeting }}"}
    next: {arcs: [{step: work}]}
  - step: work
    loop: {in: "{{ workload['items'] }}", iterator: item, spec: {mode: parallel}}
    tool: {kind: noop, message: "{{ iter.item }}"}
    next: {arcs: [{step: finish}]}
  - step: finish
    tool: {kind: noop, message: "{{ start.message }}"}
"""


@dataclass(slots=True)
class Recorder:
    """A dispatcher that remembers what it was given."""

    steps: list[Dispatch] = field(default_factory=list)
    woken: list[int] = field(default_factory=list)

    def dispatch(self, steps: Sequence[Dispatch]) -> None:
        self.steps.extend(steps)

    def wake(self, execution_ids: Iterable[int], *, delay: float = 0.0) -> None:
        self.woken.extend(execution_ids)

    def calm(self, execution_ids: Iterable[int]) -> None:
        pass

    def tidy(self) -> None:
        pass

    def waited(self, queue: str) -> float:
        return 0.0

    def epoch(self) -> str:
        return ""


@dataclass(slots=True)
class Probe:
    """Readiness as a test wants it."""

    failing: list[Check] = field(default_factory=list)

    def checks(self) -> Sequence[Check]:
        good = [Check(name, ok=True) for name in ("postgres", "nats", "migrations")]
        return [*(c for c in good if c.name not in {f.name for f in self.failing}), *self.failing]


@dataclass(slots=True)
class Plane:
    """A control plane in memory, and its API."""

    settings: Settings
    control: Control
    dispatcher: Recorder
    health: Probe
    app: FastAPI
    ports: Ports
    _keys: Iterator[int] = field(default_factory=itertools.count)

    def client(self, token: str | None = None, **headers: str) -> TestClient:
        """A client on ``localhost``, as programs of the same machine come in."""
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return TestClient(self.app, base_url="http://localhost:8082", headers=headers)

    def started(self, path: str = "tests/chain", **payload: Any) -> int:
        """A new execution of *path*, with its first step scheduled."""
        execution_id = self.control.executions.start(path, payload=payload).execution_id
        self.control.advance.advance(execution_id)
        return execution_id

    def pointers(self) -> list[dict[str, Any]]:
        """What was dispatched since the last call, as workers name it."""
        taken = [step.pointer._asdict() for step in self.dispatcher.steps]
        self.dispatcher.steps.clear()
        return taken

    def key(self) -> str:
        return f"key-{next(self._keys)}"

    def work(self, execution_id: int, client: TestClient, *, rounds: int = 1000) -> None:
        """Work on what is due over HTTP, at most *rounds* times, each step returning its place."""
        for _ in range(rounds):
            pointers = self.pointers()
            if not pointers:
                return
            claims = [{**pointer, "key": self.key()} for pointer in pointers]
            answer = client.post("/api/worker/claim", json={"worker": "w", "claims": claims})
            assert [claim["granted"] for claim in answer.json()["answers"]] == [True] * len(claims)
            reports = [
                {
                    **pointer,
                    "key": self.key(),
                    "outcome": "done",
                    "result": {"step": pointer["step"], "index": pointer["iteration"]},
                    "duration_ms": 1500,
                }
                for pointer in pointers
            ]
            answer = client.post("/api/worker/report", json={"worker": "w", "reports": reports})
            assert all(report["accepted"] for report in answer.json()["answers"])
            self.control.advance.advance(execution_id)


def build(**settings: Any) -> Plane:
    """A plane with these settings."""
    chosen = Settings(**settings)
    metrics, recorder, probe = Metrics(), Recorder(), Probe()
    runtime = MemoryRuntime()
    kinds = {kind: load_tool(kind) for kind in ("noop", "python")}
    log = MemoryLog(runtime)
    ports = Ports(
        events=ObservedLog(log, metrics.appended),
        retention=MemoryRetention(log),
        catalog=MemoryCatalog(),
        runtime=runtime,
        dispatcher=recorder,
        kinds=kinds,
        clock=time.time,
        new_id=Snowflake(),
        custody=memory_custody(),
    )
    built = control(ports, chosen)
    app = create_app(built, chosen, health=probe, metrics=metrics)
    return Plane(chosen, built, recorder, probe, app, ports)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """*app* under a real uvicorn on a free port; its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(app, log_config=None, lifespan="off", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
