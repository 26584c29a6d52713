"""The bridge between Dramatiq's threads and NATS: one event loop in one thread, one connection.

nats-py is asyncio only. Everything asynchronous in a worker happens on this loop; threads hand it
work with ``post`` and ``call`` and never touch the connection themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

import nats.errors
import structlog
from nats.aio.client import Client
from nats.errors import ConnectionClosedError

from app.brokers.errors import NatsUnreachableError

log = structlog.get_logger(__name__)

T = TypeVar("T")

CONNECT_TIMEOUT = 2
#: Seconds between two attempts to connect: doubling from the first to the second, with full jitter.
BACKOFF = (0.05, 2.0)
#: Two pings without an answer end a connection whose other end vanished without a word.
PING_INTERVAL = 10
#: Seconds between two looks whether the connection is still there, should nats-py fail to say so.
WATCH_INTERVAL = 0.25
CLOSE_TIMEOUT = 2.0


class Listener(Protocol):
    """Somebody on the loop who cares about the connection. Both run on the loop and must not block."""

    def connected(self, client: Client) -> None:
        """A new connection is up; nothing of the former one is left, neither subscription nor request."""

    def disconnected(self) -> None:
        """The connection is gone."""


class Wire(NamedTuple):
    """One message on its way to the server. *keep* holds it back while there is no connection."""

    subject: str
    payload: bytes = b""
    reply: str = ""
    headers: dict[str, str] | None = None
    keep: bool = False


class Bridge:
    """A loop thread with a connection that is opened again for ever. Starts on first use.

    Make one per process, after any fork. ``post``, ``call``, ``flush`` and ``close`` may be called
    from any thread but the loop's own; everything under "on the loop" only from the loop.
    """

    def __init__(self, url: str, *, name: str) -> None:
        self._servers = [part.strip() for part in url.split(",")]
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._posted: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._woken = False
        # On the loop from here on.
        self.client: Client | None = None
        self.down_since = time.monotonic()
        #: How many connections there were so far.
        self.connections = 0
        self._listeners: list[Listener] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._supervisor: asyncio.Task[None] | None = None
        self._outbox: deque[Wire] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._up_event = asyncio.Event()
        self._gone = asyncio.Event()
        self._closing = False
        self._reported = False

    # From any thread

    def post(self, action: Callable[..., None], *args: Any) -> None:
        """Run ``action(*args)`` on the loop soon, in the order of the posts. Returns at once.

        Posts made while the loop is busy cost no wake-up of their own. After ``close`` nothing runs.
        """
        self._posted.append((action, args))
        if not self._woken:
            self._woken = True
            with contextlib.suppress(NatsUnreachableError):
                self._started().call_soon_threadsafe(self._run_posted)

    def call(self, work: Callable[[Client], Coroutine[Any, Any, T]], *, timeout: float) -> T:
        """The result of ``work(client)``, run on the loop with a live connection.

        Raises ``NatsUnreachableError`` where NATS does not answer within *timeout* seconds.
        """
        loop = self._started()
        future = asyncio.run_coroutine_threadsafe(self._with_client(work, timeout), loop)
        try:
            return future.result()
        except (nats.errors.Error, OSError, TimeoutError, CancelledError) as exc:
            raise NatsUnreachableError(
                f"NATS at {self.address} did not answer: {_words(exc)}"
            ) from exc

    def flush(self, timeout: float = CLOSE_TIMEOUT) -> bool:
        """Wait until the server has read everything posted before; False where it did not."""
        try:
            self.call(self._flushed, timeout=timeout)
        except NatsUnreachableError:
            return False
        return True

    def close(self) -> None:
        """Flush, close the connection and end the thread. Final: a closed bridge stays closed."""
        with self._lock:
            loop, thread, self._loop, self._closed = self._loop, self._thread, None, True
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(self._stop)
            thread.join()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def address(self) -> str:
        """The servers' addresses, without user and password."""
        return ", ".join(urlsplit(url).netloc.rpartition("@")[2] or url for url in self._servers)

    # On the loop

    def listen(self, listener: Listener) -> None:
        """Tell *listener* of connections from now on, and of the present one at once.

        Also allowed before the first use of the bridge, by whoever makes it.
        """
        self._listeners.append(listener)
        if self.client is not None:
            listener.connected(self.client)

    def unlisten(self, listener: Listener) -> None:
        with contextlib.suppress(ValueError):
            self._listeners.remove(listener)

    def send(self, wire: Wire) -> None:
        """Write soon, many at a time. Without a connection only what asks to be kept is kept."""
        if self.client is None and not wire.keep:
            return
        self._outbox.append(wire)
        self._write_soon()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* as a task that is cancelled on close; its unexpected end is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    # Private

    def _started(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is not None:
            return loop
        with self._lock:
            if self._closed:
                raise NatsUnreachableError("the broker was closed")
            if self._loop is None:
                # Being away is counted from the first use on, not from when we were made.
                self.down_since = time.monotonic()
                self._loop = _new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name=f"{self._name}-nats", daemon=True
                )
                self._thread.start()
            return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        # It reports with a traceback what we report in one line, once per outage.
        logging.getLogger("nats.aio.client").setLevel(logging.CRITICAL)
        try:
            supervisor = self._supervisor = loop.create_task(self._supervise())
            with contextlib.suppress(asyncio.CancelledError):
                loop.run_until_complete(supervisor)
            loop.run_until_complete(self._wind_up())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _run_posted(self) -> None:
        # Lowered before looking: a post that comes too late for this run wakes the loop again.
        self._woken = False
        while self._posted:
            action, args = self._posted.popleft()
            action(*args)

    def _write_soon(self) -> None:
        if self._writer is None and self.client is not None and self._outbox:
            self._writer = self.spawn(self._write(self.client))

    async def _write(self, client: Client) -> None:
        """Hand the outbox to nats-py, which writes it to the socket in one go."""
        try:
            while self._outbox and client is self.client:
                wire = self._outbox.popleft()
                try:
                    await client.publish(wire.subject, wire.payload, wire.reply, wire.headers)
                except (nats.errors.Error, OSError):
                    # The connection just broke.
                    if wire.keep:
                        self._outbox.appendleft(wire)
                    self._lose(client)
                    return
        finally:
            self._writer = None
            if client is not self.client:
                self._write_soon()

    async def _with_client(
        self, work: Callable[[Client], Coroutine[Any, Any, T]], seconds: float
    ) -> T:
        async with asyncio.timeout(seconds):
            while True:
                await self._up_event.wait()
                if (client := self.client) is None:
                    continue
                task = asyncio.ensure_future(work(client))
                gone = asyncio.ensure_future(self._gone.wait())
                either: set[asyncio.Future[Any]] = {task, gone}
                try:
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                    if task.done() and not isinstance(task.exception(), ConnectionClosedError):
                        return task.result()
                finally:
                    task.cancel()
                    gone.cancel()
                # An answer cannot come over a lost connection: ask again over the next one.
                self._lose(client)

    async def _flushed(self, client: Client) -> None:
        while self._writer is not None:
            await asyncio.wait([self._writer])
        await client.flush()

    async def _supervise(self) -> None:
        failures = 0
        while not self._closing:
            client = Client()
            self._gone = gone = asyncio.Event()
            try:
                await self._connect(client, gone)
            except (nats.errors.Error, OSError, TimeoutError) as exc:
                self._report_outage(client.last_error or exc)
                await client.close()
                await asyncio.sleep(_backoff(failures))
                failures += 1
                continue
            except asyncio.CancelledError:
                # Closed while the server had not said a word yet; the socket is there already.
                await client.close()
                raise
            failures = 0
            self._up(client)
            while not gone.is_set() and not client.is_closed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(gone.wait(), WATCH_INTERVAL)
            self._lose(client)
            with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await client.close()

    async def _connect(self, client: Client, gone: asyncio.Event) -> None:
        async def closed() -> None:
            gone.set()

        async def quiet(_error: Exception) -> None:
            """Errors of a connection end it; that is where they are reported, once per outage."""

        # nats-py gives up for ever after some errors of the server, so reconnecting is ours.
        await client.connect(
            self._servers,
            name=self._name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=CONNECT_TIMEOUT,
            ping_interval=PING_INTERVAL,
            closed_cb=closed,
            error_cb=quiet,
            # Subjects are made by us (subjects.py) or by the server (reply subjects).
            skip_subject_validation=True,
        )

    def _up(self, client: Client) -> None:
        self.client = client
        self.connections += 1
        self._up_event.set()
        if self._reported:
            log.info("nats_connected", servers=self.address)
            self._reported = False
        # Kept acknowledgements leave before any listener asks for messages, which might be the same.
        self._write_soon()
        for listener in list(self._listeners):
            listener.connected(client)

    def _lose(self, client: Client) -> None:
        """Give up *client*, whoever noticed first that it is of no use any more."""
        if self.client is not client:
            return
        self._gone.set()
        self.client = None
        self._up_event.clear()
        self.down_since = time.monotonic()
        self._outbox = deque(wire for wire in self._outbox if wire.keep)
        if not self._closing:
            self._report_outage(client.last_error or ConnectionResetError("connection lost"))
        for listener in list(self._listeners):
            listener.disconnected()

    def _report_outage(self, error: Exception) -> None:
        if not self._reported:
            self._reported = True
            log.warning("nats_unreachable", servers=self.address, error=_words(error))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("nats_task_failed", exc_info=error)

    def _stop(self) -> None:
        self._closing = True
        self._run_posted()
        self.spawn(self._say_goodbye())

    async def _say_goodbye(self) -> None:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            if self.client is not None:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._flushed(self.client)
        if self._supervisor is not None:
            self._supervisor.cancel()

    async def _wind_up(self) -> None:
        client, self.client = self.client, None
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if client is not None:
            await client.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _backoff(failures: int) -> float:
    first, most = BACKOFF
    return random.uniform(first, min(most, first * 2.0 ** min(failures, 16)) + first)  # noqa: S311 (jitter, not secrecy)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
