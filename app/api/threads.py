"""Threads for the routes that are asked for most: the framework's own take twice the time to be reached."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

#: As many as the framework has.
MOST = 40

#: What a thread does; what it returns is to be called, to tell who waits for it.
_Job = Callable[[], Callable[[], None]]


class Threads:
    """Up to *most* threads, made when they are needed. Safe to share between event loops.

    Of those that are idle the last one works next: its stack, its heap and its connection are still
    in the processor's caches. A pool that takes them in turn, as executors do, is half as fast to reach.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._made = 0
        self._idle: list[SimpleQueue[_Job]] = []
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """What *call* returns or raises, in a thread."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Callable[[], T]] = loop.create_future()
        self._do(partial(_call, loop, ended, partial(call, *arguments)))
        outcome = await ended
        return outcome()

    def _do(self, job: _Job) -> None:
        with self._lock:
            box = self._idle.pop() if self._idle else None
            is_new = box is None and self._made < self._most
            if box is None and not is_new:
                self._waiting.append(job)
            self._made += is_new
        if box is not None:
            box.put(job)
        elif is_new:
            self._start(job)

    def _start(self, job: _Job) -> None:
        try:
            # What is unfinished when the process ends is answered to nobody.
            threading.Thread(target=self._work, args=(job,), name="api", daemon=True).start()
        except BaseException:
            with self._lock:
                self._made -= 1
            raise

    def _work(self, job: _Job) -> None:
        box: SimpleQueue[_Job] = SimpleQueue()
        while True:
            answer = job()
            with self._lock:
                after = self._waiting.popleft() if self._waiting else None
                if after is None:
                    # Before anybody is told, who may have something to do next.
                    self._idle.append(box)
            answer()
            # Nothing of it stays in memory while this thread has nothing to do.
            del job, answer
            job = box.get() if after is None else after


def _call(
    loop: asyncio.AbstractEventLoop, ended: asyncio.Future[Callable[[], T]], call: Callable[[], T]
) -> Callable[[], None]:
    outcome: Callable[[], T]
    try:
        outcome = partial(_given, call())
    except BaseException as exc:  # noqa: BLE001 (whoever waits gets it)
        outcome = partial(_raised, exc)
    return partial(tell, loop, ended, outcome)


def _given(value: T) -> T:
    return value


def _raised(error: BaseException) -> Any:
    raise error


def tell(loop: asyncio.AbstractEventLoop, told: asyncio.Future[T], what: T) -> None:
    """Give *what* to who waits for *told* on *loop*, unless it is given up or has it; from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
        loop.call_soon_threadsafe(_set, told, what)


def _set(told: asyncio.Future[T], what: T) -> None:
    if not told.done():
        told.set_result(what)


_threads = Threads(MOST)


async def in_thread(call: Callable[..., T], *arguments: object) -> T:
    """What *call* returns, without holding up other requests."""
    return await _threads.run(call, *arguments)
