"""All links between processes and servers, each with weather of its own."""

from __future__ import annotations

import asyncio
import fnmatch
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

from tests.chaos.proxy import CLEAR, Address, Proxy, Weather

T = TypeVar("T")


class Network:
    """Proxies by the name of their link, ``worker-1>api``; they run in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)
        self._links: dict[str, Proxy] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def link(self, name: str, upstreams: Callable[[], Sequence[Address]]) -> int:
        """The port that leads to the *upstreams* over the link *name*, which is made if it is new."""
        if name not in self._links:
            self._run(self._start(name, upstreams))
        return self._links[name].port

    def names(self, pattern: str) -> list[str]:
        """The links that *pattern* means, with ``*`` for any text."""
        return sorted(fnmatch.filter(self._links, pattern))

    def become(self, pattern: str, weather: Weather) -> None:
        """Change the weather on all links that *pattern* means."""

        async def change() -> None:
            for name in self.names(pattern):
                self._links[name].become(weather)

        self._run(change())

    def connections(self, pattern: str) -> int:
        """How many connections are open over the links that *pattern* means."""

        async def count() -> int:
            return sum(self._links[name].connections for name in self.names(pattern))

        return self._run(count())

    @contextmanager
    def weather(self, pattern: str, weather: Weather) -> Iterator[None]:
        """Bad weather for as long as the block lasts."""
        self.become(pattern, weather)
        try:
            yield
        finally:
            self.become(pattern, CLEAR)

    async def _start(self, name: str, upstreams: Callable[[], Sequence[Address]]) -> None:
        proxy = Proxy(upstreams)
        await proxy.start()
        self._links[name] = proxy

    async def _stop(self) -> None:
        await asyncio.gather(*(proxy.stop() for proxy in self._links.values()))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
