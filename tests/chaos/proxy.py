"""A TCP proxy that can be as bad as a network: slow, deaf, silent, or gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Address = tuple[str, int]

CHUNK = 65_536
#: ``SO_LINGER`` on, no time: closing sends a reset and drops what was not sent.
RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Weather:
    """What happens to bytes on a link.

    ``clear``: they pass. ``slow``: each chunk waits *delay* seconds. ``hole``: connections are
    taken, and nothing passes. ``deaf``: what the client says passes, and the connection breaks in
    place of the answer. ``down``: every connection is reset.
    """

    kind: Literal["clear", "slow", "hole", "deaf", "down"] = "clear"
    delay: float = 0.0


CLEAR = Weather()


class Proxy:
    """Listens on a port of its own and forwards to the first of *upstreams* that takes the call.

    *upstreams* is asked at each connection, and tried from another place on each time. Lives in one
    event loop; ``become`` may be called there only.
    """

    def __init__(self, upstreams: Callable[[], Sequence[Address]]) -> None:
        self._upstreams = upstreams
        self._turn = itertools.count()
        self._weather = CLEAR
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port of loopback, which is ``port`` from then on."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and reset whoever is connected."""
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._reset_all()

    def become(self, weather: Weather) -> None:
        """Change what happens to bytes from now on, those of open connections included."""
        self._weather = weather
        if weather.kind == "hole":
            self._open.clear()
        else:
            self._open.set()
        if weather.kind == "down":
            self._reset_all()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._tasks)

    # ------------------------------------------------------------------ one connection
    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._tasks.discard(task)
            self._drop(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._open.wait()
        if self._weather.kind == "down":
            return
        upstream_reader, upstream_writer = await self._connect()
        self._writers.add(upstream_writer)
        ways = [
            asyncio.create_task(self._pump(reader, upstream_writer, answers=False)),
            asyncio.create_task(self._pump(upstream_reader, writer, answers=True)),
        ]
        try:
            # Neither protocol that passes here says anything after one side has closed.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._drop(upstream_writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to an upstream. Raises ``OSError`` where none takes it."""
        addresses = list(self._upstreams())
        first = next(self._turn) % len(addresses)
        for host, port in (*addresses[first:], *addresses[:first]):
            with contextlib.suppress(OSError):
                return await asyncio.open_connection(host, port)
        raise ConnectionRefusedError(f"nobody listens at {addresses}")

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        while data := await source.read(CHUNK):
            if self._weather.kind == "slow":
                await asyncio.sleep(self._weather.delay)
            await self._open.wait()
            if answers and self._weather.kind == "deaf":
                return
            sink.write(data)
            await sink.drain()

    # ------------------------------------------------------------------ ends
    def _reset_all(self) -> None:
        for writer in list(self._writers):
            self._drop(writer, reset=True)

    def _drop(self, writer: asyncio.StreamWriter, *, reset: bool = False) -> None:
        self._writers.discard(writer)
        if reset:
            connection = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
        else:
            writer.close()
