"""Threads for the routes that are asked for most: the framework's own take twice the time to be reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

#: As many as the framework has.
_threads = ThreadPoolExecutor(40, thread_name_prefix="api")


async def in_thread(call: Callable[..., T], *arguments: object) -> T:
    """What *call* returns, without holding up other requests."""
    return await asyncio.get_running_loop().run_in_executor(_threads, call, *arguments)
