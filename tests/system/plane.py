"""The whole of Callboard as real processes on embedded servers, for tests that break it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from app.client import Client
from app.embedded.stack import EmbeddedStack
from app.errors import CallboardError
from app.settings import process_environment
from app.store.migrations import upgrade
from tests.nursery import Launch, Process, spawned

MODULES = ("server", "orchestrator", "worker", "scheduler")
#: Quick recovery, so that a test of it takes seconds; otherwise the defaults.
QUICK = {
    "CALLBOARD_HEARTBEAT": "0.5",
    "CALLBOARD_LEASE": "3",
    "CALLBOARD_SWEEP": "1",
    "CALLBOARD_UNCLAIMED_AFTER": "3",
    "CALLBOARD_ACK_WAIT": "3",
    "CALLBOARD_GRACE": "5",
}


class System:
    """Starts, kills and watches the processes; ``client`` talks to their API."""

    #: Seconds between two looks at what is waited for.
    pause = 0.02

    def __init__(
        self,
        home: Path,
        *,
        settings: Mapping[str, str] = QUICK,
        database_url: str | None = None,
        launch: Launch = spawned,
    ) -> None:
        self.home = home
        self.stack = EmbeddedStack(home, database_url=database_url)
        self.port = free_port()
        self.settings = settings
        #: How a process is started; may be changed in between.
        self.launch = launch
        self.processes: dict[str, Process] = {}
        self.client = Client(f"http://127.0.0.1:{self.port}")

    def __enter__(self) -> Self:
        self.stack.start()
        self.migrate()
        for module in MODULES:
            self.start(module)
        self.until_ready()
        return self

    def __exit__(self, *_: object) -> None:
        # The worker cleans up behind itself. The others keep nothing, and stop in tests of their own.
        self.terminate("worker")
        for module in self.processes:
            self.kill(module)
        self.client.close()
        self.stack.stop()

    def migrate(self) -> None:
        upgrade(self.stack.database_url)

    def environment(self) -> dict[str, str]:
        ours = {
            "CALLBOARD_HOME": str(self.home),
            "NOETL_HOST": "127.0.0.1",
            "PORT": str(self.port),
            "CALLBOARD_LOG_FORMAT": "json",
        }
        return {**process_environment(), **self.stack.environment(), **ours, **self.settings}

    # ------------------------------------------------------------------ processes
    def start(self, module: str, **variables: str) -> None:
        """Start it, with *variables* over the environment that all have."""
        environment = {**self.environment(), **variables}
        self.processes[module] = self.launch(module, environment, self.home / f"{module}.log")

    def kill(self, module: str) -> None:
        """Kill -9, and wait until it is gone."""
        self.processes[module].kill()
        self.processes[module].wait(10)

    def terminate(self, module: str) -> int:
        """Ask it to stop; its exit code."""
        self.processes[module].terminate()
        return self.processes[module].wait(60)

    def log(self, module: str) -> list[dict[str, Any]]:
        """The lines that a process logged."""
        lines = (self.home / f"{module}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    # ------------------------------------------------------------------ executions
    def run(
        self, playbook: str, payload: Mapping[str, Any] | None = None, *, seconds: float = 60
    ) -> dict[str, Any]:
        """Register and run to the end; the status as the API tells it."""
        return self.wait(self.begin(playbook, payload), seconds=seconds)

    def begin(self, playbook: str, payload: Mapping[str, Any] | None = None) -> str:
        path = self.client.register(playbook).path
        return self.client.execute(path, payload=dict(payload or {})).execution_id

    def wait(self, execution_id: str, *, seconds: float = 60) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            status: dict[str, Any] = self.client.status(execution_id)
            return status if status["completed"] or status["failed"] else None

        status: dict[str, Any] = self.until(
            ended, f"execution {execution_id} to end", seconds=seconds
        )
        return status

    def until(self, condition: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:
        """Wait for *condition*, and give what it gave; trouble in between is part of the test."""
        deadline = time.monotonic() + seconds
        trouble: object = None
        while time.monotonic() < deadline:
            try:
                if found := condition():
                    return found
            except CallboardError as exc:
                trouble = exc
            time.sleep(self.pause)
        raise AssertionError(
            f"waited {seconds} s for {what}; last trouble: {trouble}\n{self._tails()}"
        )

    def until_ready(self) -> None:
        """Wait until the API answers, and has all it needs."""
        self.until(lambda: self.client.health()["status"] == "ready", "the API to be ready")

    def _tails(self) -> str:
        logs = sorted(self.home.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text()[-2000:]}" for log in logs)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def readable_home(path: Path) -> Path:
    """A folder that an unprivileged server can reach, whatever the umask."""
    path.chmod(0o755)
    return path
