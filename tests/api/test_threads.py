"""Threads of the express routes: which one works next, what they hand back, and to whom."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.api.threads import Threads


def test_hands_back_what_is_returned_or_raised() -> None:
    threads = Threads(2)

    async def scenario() -> None:
        assert await threads.run(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await threads.run(divmod, 7, 0)
        # A coroutine cannot raise this one, and must not wait for ever for it either.
        with pytest.raises(RuntimeError):
            await threads.run(next, iter(()))

    asyncio.run(scenario())


def test_the_thread_that_was_idle_last_works_next() -> None:
    threads = Threads(3)
    together = threading.Barrier(3)

    async def scenario() -> None:
        idents = await asyncio.gather(*(threads.run(_ident, together) for _ in range(3)))
        assert len(set(idents)) == 3
        last = await threads.run(threading.get_ident)
        assert {await threads.run(threading.get_ident) for _ in range(20)} == {last}

    asyncio.run(scenario())


def _ident(together: threading.Barrier) -> int:
    together.wait()
    return threading.get_ident()


def test_what_finds_no_thread_waits_in_order() -> None:
    threads = Threads(1)
    go = threading.Event()
    seen: list[int] = []

    async def scenario() -> None:
        first = asyncio.ensure_future(threads.run(go.wait))
        others = [asyncio.ensure_future(threads.run(seen.append, number)) for number in range(5)]
        await asyncio.sleep(0)
        assert seen == []
        go.set()
        await asyncio.gather(first, *others)

    asyncio.run(scenario())
    assert seen == [0, 1, 2, 3, 4]


def test_who_gave_up_is_not_told_and_takes_no_thread_along() -> None:
    threads = Threads(1)
    go = threading.Event()

    async def scenario() -> None:
        left = asyncio.ensure_future(threads.run(go.wait))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        go.set()
        assert await threads.run(abs, -1) == 1

    asyncio.run(scenario())


def test_a_loop_that_has_ended_takes_no_thread_along() -> None:
    threads = Threads(1)
    go = threading.Event()

    async def leaves() -> None:
        asyncio.ensure_future(threads.run(go.wait))  # noqa: RUF006 (nobody shall wait for it)
        await asyncio.sleep(0)

    async def comes() -> int:
        return await threads.run(abs, -1)

    asyncio.run(leaves())
    go.set()
    assert asyncio.run(comes()) == 1
