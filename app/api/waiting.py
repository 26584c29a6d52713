"""Requests that wait for the end of an execution, and hold no thread meanwhile."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from fastapi import Depends, Query, Request

from app.api.admission import aside
from app.api.dependencies import ControlDep, ExecutionId
from app.api.threads import in_thread, tell
from app.services.executions import duration_seconds

#: Seconds between two looks: a part of the execution's age, within bounds.
SHORTEST_LOOK, PART, LONGEST_LOOK = 0.02, 0.2, 1.0


async def _wait_for_end(
    request: Request,
    execution_id: ExecutionId,
    control: ControlDep,
    wait: Annotated[float, Query(ge=0, le=30)] = 0,
) -> str | None:
    """Return once the execution has ended, the time is over, or nobody waits for the answer.

    Ends that this process writes are known at once, and returned: the type of the event. Others are
    known by looking. A server that is told to stop waits no longer. Raises ``NotFoundError``.
    """
    if not wait:
        return None
    deadline, loop = time.monotonic() + wait, asyncio.get_running_loop()
    told: asyncio.Future[str | None] = loop.create_future()
    with control.ends.watching(execution_id, partial(tell, loop, told)):
        known = control.advance.known(execution_id)
        # Of one that runs as far as this process knows, a look would most likely say the same.
        look = 0.0 if known is None or not known.is_running else min(SHORTEST_LOOK, wait)
        while True:
            with aside(request.scope):
                await asyncio.wait([told], timeout=look)
            if told.done():
                return told.result()
            summary = await in_thread(control.executions.get, execution_id)
            left = deadline - time.monotonic()
            if summary.status != "RUNNING" or left <= 0 or await request.is_disconnected():
                return None
            age = duration_seconds(summary, datetime.now(UTC))
            look = min(max(SHORTEST_LOOK, PART * age), LONGEST_LOOK, left)


#: For routes that answer what is so then; ``?wait=`` says for how many seconds. What they get is the
#: type of the event that ended the execution, if that is known.
AtItsEnd = Annotated[str | None, Depends(_wait_for_end)]
