"""What a running stage uses: memory, descriptors, threads, connections, files, messages, rows."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import nats
import psutil
import psycopg

from app.errors import CallboardError
from tests.chaos.growth import Point
from tests.chaos.stage import Stage

MEGABYTE = 1024 * 1024
#: Rows that must not pile up; those of the log and of what it refers to do, by design.
FLAT_TABLES = ("runtime", "keychain")

#: Seconds that a child waits for its next run where gauges are read, and that what has ended gets to
#: be cleared away.
WARM_FOR = 10.0
REST = WARM_FOR + 3.0

Reading = tuple[str, str, float]


class Gauges:
    """Reads all gauges every *interval* seconds; ``series`` has the points by (what, of what)."""

    def __init__(self, stage: Stage, temporary: Path, *, interval: float) -> None:
        self._stage = stage
        self._temporary = temporary
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gauges", daemon=True)
        self._begin = time.monotonic()
        self.series: dict[tuple[str, str], list[Point]] = defaultdict(list)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Read once more, a moment after the work has ended: what is there at rest."""
        self._over.set()
        self._thread.join()
        time.sleep(REST)
        self.read()

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            self.read()

    def read(self) -> None:
        """One point for every gauge that can be read just now; a server may be away."""
        now = time.monotonic() - self._begin
        for source in (self._processes, self._files, self._database, self._streams):
            for what, of, value in _readable(source):
                self.series[what, of].append((now, value))

    # ------------------------------------------------------------------ sources
    def _processes(self) -> Iterator[Reading]:
        for name, popen in list(self._stage.processes.items()):
            process = psutil.Process(popen.pid)
            with process.oneshot():
                memory = process.memory_full_info()
                yield "RSS MB", name, memory.rss / MEGABYTE
                yield "PSS MB", name, getattr(memory, "pss", memory.uss) / MEGABYTE
                yield "descriptors", name, process.num_fds()
                yield "threads", name, process.num_threads()
                yield "children", name, len(process.children(recursive=True))

    def _files(self) -> Iterator[Reading]:
        yield "temporary files", "all", sum(1 for _ in self._temporary.rglob("*"))

    def _database(self) -> Iterator[Reading]:
        with psycopg.connect(self._stage.servers.postgres.url, connect_timeout=2) as connection:
            rows = connection.execute(
                "SELECT application_name, count(*) FROM pg_stat_activity"
                " WHERE application_name LIKE 'callboard %' GROUP BY 1"
            ).fetchall()
            yield from (("connections", name, count) for name, count in rows)
            for table in FLAT_TABLES:
                count = connection.execute(f"SELECT count(*) FROM noetl.{table}").fetchone()
                yield "rows", table, count[0] if count else 0
            running = connection.execute(
                "SELECT count(*) FROM noetl.execution WHERE status = 'RUNNING'"
            ).fetchone()
            yield "running executions", "all", running[0] if running else 0

    def _streams(self) -> Iterator[Reading]:
        for stream, count in messages(self._stage.servers.nats.url).items():
            yield "messages", stream, count
        links = self._stage.network.connections("*>nats")
        yield "connections", "nats", links


def messages(nats_url: str) -> dict[str, int]:
    """How many messages each stream holds. Raises the errors of nats-py where NATS is away."""

    async def count() -> dict[str, int]:
        client = await nats.connect(
            nats_url, connect_timeout=2, allow_reconnect=False, error_cb=_raised
        )
        try:
            streams = await client.jetstream().streams_info()
            return {str(stream.config.name): int(stream.state.messages) for stream in streams}
        finally:
            await client.close()

    return asyncio.run(count())


async def _raised(_error: Exception) -> None:
    """Nothing: ``connect`` raises it as well."""


def _readable(source: Callable[[], Iterator[Reading]]) -> list[Reading]:
    try:
        return list(source())
    except (psutil.Error, psycopg.Error, nats.errors.Error, OSError, CallboardError):
        return []  # broken on purpose just now; the next point will be there
