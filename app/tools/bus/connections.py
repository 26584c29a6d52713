"""NATS connections of this process: one event loop in one thread, one connection per server and user.

nats-py is asyncio only. Steps hand their work over and wait; any number may share a connection.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client

from app.errors import ToolError
from app.tools import Context
from app.tools.bus.servers import Server, options, public_key

T = TypeVar("T")

#: Connections that nobody used for so long are closed, in seconds.
KEEP = 60.0
CONNECT = 5.0
#: How often a waiting step looks whether it was cancelled, in seconds.
GLANCE = 0.05
CLOSING = 2.0


@dataclass(eq=False, slots=True)
class Connected:
    """A live connection in use. Lives on the loop."""

    client: Client
    users: int = 0
    used: float = 0.0
    #: It is closed when its last user is done: something on it was broken off.
    spent: bool = False
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=50))

    def denied(self, subject: str) -> bool:
        """Whether the server said that *subject* is not for this user. It says so out of turn."""
        wanted = f'"{subject}"'.lower()
        return any("permissions violation" in text and wanted in text for text in self.errors)


class Connections:
    """Starts on first use. Every method may be called from any thread but the loop's own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._owner = os.getpid()
        # On the loop from here on.
        self._open: dict[Server, Connected] = {}
        self._opening: dict[Server, asyncio.Lock] = {}

    def run(
        self,
        server: Server,
        work: Callable[[Connected], Awaitable[T]],
        context: Context,
        timeout: float,
    ) -> T:
        """What ``work(connected)`` gives, run on the loop within *timeout* seconds.

        Raises ``ToolError`` (kind cancelled), ``TimeoutError``, and the errors of nats-py.
        """
        future = asyncio.run_coroutine_threadsafe(
            self._work(server, work, timeout), self._started()
        )
        try:
            while not future.done():
                concurrent.futures.wait([future], timeout=GLANCE)
                if context.cancelled.is_set() and not future.done():
                    raise ToolError(
                        "the step was cancelled and its request given up", kind="cancelled"
                    )
            return future.result()
        finally:
            future.cancel()

    def count(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def close(self) -> None:
        """Close all connections and end the thread; the next use starts another."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None or self._owner != os.getpid():
            return
        asyncio.run_coroutine_threadsafe(self._close_all(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    # ------------------------------------------------------------------ the thread
    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._owner != os.getpid():
                # They belong to the process we were forked from, as does the thread.
                self._loop, self._open, self._opening = None, {}, {}
                self._owner = os.getpid()
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="nats-tool", daemon=True
                )
                self._thread.start()
            return self._loop

    # ------------------------------------------------------------------ on the loop
    async def _work(
        self, server: Server, work: Callable[[Connected], Awaitable[T]], seconds: float
    ) -> T:
        async with asyncio.timeout(seconds):
            connected = await self._connected(server, seconds)
            connected.users += 1
            try:
                return await work(connected)
            except (TimeoutError, asyncio.CancelledError):
                # What was broken off may have left subscriptions behind.
                connected.spent = True
                raise
            finally:
                connected.users -= 1
                connected.used = time.monotonic()
                await self._let_go(server, connected)

    async def _connected(self, server: Server, seconds: float) -> Connected:
        async with self._opening.setdefault(server, asyncio.Lock()):
            known = self._open.get(server)
            if known is not None and known.client.is_connected and not known.spent:
                return known
            connected = Connected(Client())
            await _connect(connected, server, seconds)
            self._open[server] = connected
            asyncio.get_running_loop().call_later(KEEP, self._close_idle)
            return connected

    async def _let_go(self, server: Server, connected: Connected) -> None:
        if connected.users or not (connected.spent or connected.client.is_closed):
            return
        if self._open.get(server) is connected:
            del self._open[server]
        await _closed(connected)

    def _close_idle(self) -> None:
        limit = time.monotonic() - KEEP
        for server, connected in list(self._open.items()):
            if not connected.users and connected.used <= limit:
                connected.spent = True
                task = asyncio.ensure_future(self._let_go(server, connected))
                _tasks.add(task)
                task.add_done_callback(_tasks.discard)
        if self._open:
            asyncio.get_running_loop().call_later(KEEP, self._close_idle)

    async def _close_all(self) -> None:
        held, self._open, self._opening = list(self._open.values()), {}, {}
        for connected in held:
            await _closed(connected)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


#: The loop itself holds tasks weakly.
_tasks: set[asyncio.Future[None]] = set()


async def _connect(connected: Connected, server: Server, seconds: float) -> None:
    async def heard(error: Exception) -> None:
        connected.errors.append(str(error).lower())

    client = connected.client
    given: dict[str, Any] = options(server)
    if server.seed is not None and server.jwt is None:
        # nats-py asks for the package nkeys to find out what we know already.
        client._public_nkey = public_key(server.seed)  # noqa: SLF001 (there is no other way in)
    try:
        await client.connect(
            **given,
            name="callboard step",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=max(1, int(min(seconds, CONNECT))),
            error_cb=heard,
        )
    except BaseException:
        await _closed(connected)
        raise


async def _closed(connected: Connected) -> None:
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
        async with asyncio.timeout(CLOSING):
            await connected.client.close()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


connections = Connections()
atexit.register(connections.close)
