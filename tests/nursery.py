"""Starts our processes: as everybody does, or forked from one that has imported everything.

A fork costs 20 ms instead of nearly two seconds of a core, and is the same process from there on.
"""

from __future__ import annotations

import atexit
import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Protocol

from app.processes import main

ROOT = Path(__file__).parents[1]
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
    "tests.nursery",
)
NURSERY = multiprocessing.get_context("forkserver")
NURSERY.set_forkserver_preload(list(PRELOADED))


#: Held to fork and to ask: a fork asks after all processes, and only one may read how one has ended.
_FORK = threading.Lock()


class Process(Protocol):
    """What is asked of a running process."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises ``subprocess.TimeoutExpired``."""

    def send_signal(self, number: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


#: Starts ``app.<module>`` with an environment, logging to a file.
Launch = Callable[[str, Mapping[str, str], Path], Process]


def spawned(module: str, environment: Mapping[str, str], log: Path) -> Process:
    """``python -m app.<module>``, as it is started in earnest."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", f"app.{module}"],
            env=environment,
            stdout=file,
            stderr=file,
            cwd=ROOT,
            # A Ctrl-C is for us: we stop them in order.
            start_new_session=True,
        )


class Forked:
    """A process of ours that a ``subprocess.Popen`` could stand for."""

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        self._process: ForkServerProcess = NURSERY.Process(
            target=live, args=(module, dict(environment), str(log)), daemon=True
        )
        with _FORK:
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        with _FORK:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        multiprocessing.connection.wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def live(module: str, environment: Mapping[str, str], log: str) -> None:
    """Be the process ``app.<module>``, logging to the file *log*."""
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # asked for while importing, it would be that of the tests
    os.setsid()
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    threading.Thread(target=_follow_the_tests, daemon=True).start()
    try:
        main(importlib.import_module(f"app.{module}").run)
    finally:
        # What ends by itself runs them; a process of multiprocessing does not (before Python 3.14).
        atexit._run_exitfuncs()


def _follow_the_tests() -> None:
    """End with the process that asked for us, however it ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
