"""The whole of Callboard on a stage: servers, processes, and a network of proxies between them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Self

from app.client import Client
from app.embedded.ports import kept_port
from app.errors import CallboardError
from app.settings import process_environment
from app.store.migrations import upgrade
from tests.chaos.network import Network
from tests.chaos.plan import Cast
from tests.chaos.proxy import Address
from tests.chaos.servers import Servers

ROOT = Path(__file__).parents[2]
MODULES = {"web": "server", "orchestrator": "orchestrator", "worker": "worker",
           "scheduler": "scheduler"}  # fmt: skip
#: Seconds that a process may take to end after SIGTERM: its grace period, and time to say goodbye.
OBEYS = 60.0
#: Seconds that all of them get when the stage is closed.
LEAVES = 20.0


class Stage:
    """Everything, started. Processes are called ``worker-1`` and so on, links ``worker-1>nats``.

    A process that ends by itself is started again, as a supervisor would, and counted in ``exits``.
    """

    def __init__(
        self, home: Path, *, settings: Mapping[str, str], cast: Cast | None = None
    ) -> None:
        self.home = home
        self.cast = cast or Cast()
        self.settings = dict(settings)
        self.servers = Servers(home)
        self.network = Network()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.exits: Counter[str] = Counter()
        self.stubborn: list[str] = []
        self.holds = {name: threading.RLock() for name in (*self.cast.names(), "postgres", "nats")}
        self._ports: dict[str, int] = {}
        self._logs: dict[str, IO[bytes]] = {}
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep_alive, name="keeper", daemon=True)
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as exits:
            (self.home / "logs").mkdir(parents=True)
            exits.enter_context(self.servers)
            exits.enter_context(self.network)
            exits.callback(self._stop)
            upgrade(self.servers.postgres.url)
            for name in self.cast.names():
                self.start(name)
            self._keeper.start()
            self._wait_ready()
            self._exits = exits.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._exits.close()

    # ------------------------------------------------------------------ addresses
    def api(self, who: str) -> str:
        """The API's URL as *who* reaches it: over a link of its own, to any of the web processes."""
        port = self.network.link(f"{who}>api", self._web_addresses)
        return f"http://127.0.0.1:{port}"

    def direct_api(self) -> str:
        """The URL of the first web process, without a proxy."""
        return f"http://127.0.0.1:{self._port('web-1')}"

    def _web_addresses(self) -> list[Address]:
        return [("127.0.0.1", self._port(name)) for name in self.cast.names("web")]

    def _port(self, name: str) -> int:
        if name not in self._ports:
            self._ports[name] = kept_port(self.home / f"{name}.port")
        return self._ports[name]

    def _server(self, who: str, server: str) -> str:
        port = self.network.link(f"{who}>{server}", lambda: self.servers.addresses(server))
        return self.servers.url(server, port)

    def environment(self, name: str) -> dict[str, str]:
        """What the process *name* is told; a worker has no way to the database."""
        kind = name.partition("-")[0]
        ours = {
            "CALLBOARD_HOME": str(self.home),
            "CALLBOARD_LOG_FORMAT": "json",
            "NATS_URL": self._server(name, "nats"),
            "NOETL_HOST": "127.0.0.1",
        }
        if kind == "worker":
            ours["CALLBOARD_SERVER_URL"] = self.api(name)
        else:
            ours["DATABASE_URL"] = self._server(name, "postgres")
        if kind == "web":
            ours["PORT"] = str(self._port(name))
        return {**process_environment(), **self.settings, **ours}

    # ------------------------------------------------------------------ processes
    def start(self, name: str) -> None:
        if name not in self._logs:
            self._logs[name] = (self.home / "logs" / f"{name}.log").open("ab")
        log = self._logs[name]
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", f"app.{MODULES[name.partition('-')[0]]}"],
            env=self.environment(name),
            stdout=log,
            stderr=log,
            cwd=ROOT,
            # A Ctrl-C is for us: we stop them in order.
            start_new_session=True,
        )

    def kill(self, name: str) -> None:
        """Kill -9, and wait until it is gone."""
        self.processes[name].kill()
        self.processes[name].wait()

    def pause(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        self.processes[name].send_signal(signal.SIGCONT)

    def terminate(self, name: str) -> None:
        """SIGTERM, and wait until it has ended; one that does not is noted and killed."""
        process = self.processes[name]
        process.terminate()
        try:
            process.wait(OBEYS)
        except subprocess.TimeoutExpired:
            self.stubborn.append(name)
            self.kill(name)

    def _keep_alive(self) -> None:
        while not self._over.wait(0.1):
            for name in self.cast.names():
                # Whoever holds it is about to start it.
                if self.holds[name].acquire(blocking=False):
                    try:
                        self._revive(name)
                    finally:
                        self.holds[name].release()

    def _revive(self, name: str) -> None:
        code = self.processes[name].poll()
        if code is not None and not self._over.is_set():
            self.exits[f"{name.partition('-')[0]} ended with {code}"] += 1
            self.start(name)

    # ------------------------------------------------------------------ begin and end
    def _wait_ready(self, seconds: float = 60.0) -> None:
        """Wait until the API is ready and every worker beats."""
        deadline = time.monotonic() + seconds
        with Client(self.direct_api()) as client:
            while not self._is_ready(client):
                if time.monotonic() > deadline:
                    raise AssertionError(f"not ready after {seconds} s; see {self.home}/logs")
                time.sleep(0.05)

    def _is_ready(self, client: Client) -> bool:
        try:
            ready = client.health()["status"] == "ready"
            return ready and len(client.pools()) >= self.cast.worker
        except CallboardError:
            return False

    def _stop(self) -> None:
        """Stop the processes: what works first, then the API; whoever does not obey is killed."""
        self._over.set()
        if self._keeper.is_alive():
            self._keeper.join()
        running = [process for process in self.processes.values() if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        deadline = time.monotonic() + LEAVES
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for log in self._logs.values():
            log.close()
