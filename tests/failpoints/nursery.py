"""Processes forked from one that has imported everything: a start costs 20 ms instead of a second."""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from app.processes import main

#: What the processes import, also where they do it late. Nothing of it opens or starts anything.
PRELOADED = (
    "app.server",
    "app.orchestrator",
    "app.worker",
    "app.scheduler",
    "app.wiring",
    "app.client",
    "app.actors.declare",
    "app.actors.heartbeat",
    "app.actors.steps",
    "app.api.app",
    "app.brokers.dispatch",
    "app.brokers.nats",
    "app.brokers.redeliver",
    "app.embedded.stack",
    "app.keychain.keys",
    "app.store.catalog",
    "app.store.credentials",
    "app.store.database",
    "app.store.events",
    "app.store.leader",
    "app.store.output",
    "app.store.runtime",
    "app.store.tokens",
    "app.store.variables",
    "app.telemetry.logs",
    "app.telemetry.metrics",
    "app.tools.child.isolate",
    "app.tools.python",
    "apscheduler.schedulers.background",
    "apscheduler.executors.pool",
    "pytest",
    "uvicorn",
    "tests.failpoints.nursery",
)
NURSERY = multiprocessing.get_context("forkserver")
NURSERY.set_forkserver_preload(list(PRELOADED))


class Forked:
    """A process of ours that a ``subprocess.Popen`` could stand for."""

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        self._process: ForkServerProcess = NURSERY.Process(
            target=live, args=(module, dict(environment), str(log)), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, f"process {self.pid} still runs after {timeout} s"
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def live(module: str, environment: Mapping[str, str], log: str) -> None:
    """Be the process ``app.<module>``, logging to the file *log*."""
    os.environ.clear()
    os.environ.update(environment)
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    threading.Thread(target=_follow_the_tests, daemon=True).start()
    main(importlib.import_module(f"app.{module}").run)


def _follow_the_tests() -> None:
    """End with the process that asked for us, however it ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
