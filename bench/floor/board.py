"""What the floor's processes share: where things are, the table, the streams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from psycopg_pool import AsyncConnectionPool

DATABASE, NATS, PORT = "FLOOR_DATABASE_URL", "FLOOR_NATS_URL", "FLOOR_PORT"
WAKES, POINTERS = "FLOOR_WAKES", "FLOOR_POINTERS"
POINTER = "floor.pointers.step"
THREADS = 8
#: Seconds until a message comes again: longer than any round, the floor repeats nothing.
ACK_WAIT = 300.0
#: Seconds that NATS may take for an answer; for the same reason more than a busy machine's pauses.
ANSWER = 60.0

SCHEMA = """
CREATE SEQUENCE execution;
CREATE TABLE event (
    execution bigint NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    type text NOT NULL,
    unit int NOT NULL,
    payload jsonb,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (execution, id)
);
"""


@dataclass(frozen=True, slots=True)
class Board:
    """Connections of one process."""

    rows: AsyncConnectionPool
    nats: Client
    streams: JetStreamContext

    async def wake(self, execution: int) -> None:
        """Ask the orchestrator to look; a later wake replaces one that still waits."""
        await self.streams.publish(f"floor.wakes.{execution}", str(execution).encode())


class Tasks:
    """What a process does at once. Where one fails the process ends, as nobody would repeat it."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._error: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
            self._stop.set()

    async def stopped(self) -> None:
        """Return at SIGTERM. Raises what the first task that failed did."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop.set)
        await self._stop.wait()
        if self._error is not None:
            raise self._error


@contextlib.asynccontextmanager
async def board() -> AsyncIterator[Board]:
    """The connections that the environment names, and the streams."""
    client = await nats.connect(os.environ[NATS])
    streams = client.jetstream(timeout=ANSWER)
    for name, subject, most in ((WAKES, "floor.wakes.*", 1), (POINTERS, "floor.pointers.*", -1)):
        await streams.add_stream(
            api.StreamConfig(
                name=name,
                subjects=[subject],
                retention=api.RetentionPolicy.WORK_QUEUE,
                storage=api.StorageType.FILE,
                discard=api.DiscardPolicy.OLD,
                max_msgs_per_subject=most,
            )
        )
    pool = AsyncConnectionPool(
        os.environ[DATABASE], min_size=8, max_size=8, kwargs={"autocommit": True}, open=False
    )
    async with pool:
        yield Board(pool, client, streams)
    await client.close()
