"""Requests that wait for the end of an execution, and hold no thread meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.concurrency import run_in_threadpool

from app.api.admission import aside
from app.api.dependencies import ControlDep, ExecutionId
from app.services.executions import duration_seconds

#: Seconds between two looks: a part of the execution's age, within bounds.
SHORTEST_LOOK, PART, LONGEST_LOOK = 0.02, 0.2, 1.0


async def _wait_for_end(
    request: Request,
    execution_id: ExecutionId,
    control: ControlDep,
    wait: Annotated[float, Query(ge=0, le=30)] = 0,
) -> None:
    """Return once the execution has ended, the time is over, or nobody waits for the answer.

    Ends that this process writes are known at once, others by looking. A server that is told to stop
    waits no longer. Raises ``NotFoundError``.
    """
    if not wait:
        return
    deadline, loop, told = time.monotonic() + wait, asyncio.get_running_loop(), asyncio.Event()
    with control.ends.watching(execution_id, lambda: loop.call_soon_threadsafe(told.set)):
        while not told.is_set():
            summary = await run_in_threadpool(control.executions.get, execution_id)
            left = deadline - time.monotonic()
            if summary.status != "RUNNING" or left <= 0 or await request.is_disconnected():
                return
            age = duration_seconds(summary, datetime.now(UTC))
            look = min(max(SHORTEST_LOOK, PART * age), LONGEST_LOOK, left)
            with aside(request.scope), contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), look)


#: For routes that answer what is so then; ``?wait=`` says for how many seconds.
AT_ITS_END = [Depends(_wait_for_end)]
