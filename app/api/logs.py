"""What steps print: taken from workers while they run, and read page by page, live or afterwards."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, Field

from app.api.access import CallerDep
from app.api.bodies import Body, answer, parse, takes
from app.api.dependencies import ControlDep, ExecutionId
from app.engine.output import Kept, Lines, Selection
from app.services.output import PAGE, Output, Page
from app.wire import LogAnswer, LogBatch, LogPage, LogRow, Wire

router = APIRouter(tags=["logs"])

#: Seconds between two looks while a caller waits.
LOOK = 0.2
MEDIA_TYPE = "text/plain"


class LogQuery(Wire):
    """Which output: all of it, or that of a step, visit, iteration, attempt or stream.

    ``after`` is the ``next`` of an earlier answer; ``wait`` seconds are waited for something to
    come after it. ``tail`` asks for the last lines instead.
    """

    # FastAPI looks into query models when it adds the route, so they are built at once.
    model_config = ConfigDict(defer_build=False)

    step: str | None = None
    visit: int | None = None
    iteration: int | None = None
    attempt: int | None = None
    stream: Literal["stdout", "stderr"] | None = None
    after: int = Field(0, ge=0, lt=1 << 63)
    limit: int | None = Field(None, ge=1, le=1000)
    tail: int | None = Field(None, ge=0, le=10_000)
    wait: float = Field(0, ge=0, le=30)

    @property
    def which(self) -> Selection:
        return Selection(self.step, self.visit, self.iteration, self.attempt, self.stream)


LogQueryDep = Annotated[LogQuery, Query()]


@router.post("/api/worker/logs", openapi_extra=takes(LogBatch), response_model=LogAnswer)
def append(body: Body, caller: CallerDep, control: ControlDep) -> Response:
    """Keep what attempts printed. The same piece twice is one."""
    return answer(control.output.append(parse(LogBatch, body).chunks, pool=caller.pool))


@router.get("/api/executions/{execution_id}/logs", response_model=LogPage)
async def logs(
    request: Request, execution_id: ExecutionId, query: LogQueryDep, control: ControlDep
) -> Response:
    """What its steps printed, in the order in which it came; with ``Accept: text/plain`` as text.

    As text it is all there is, unless ``limit`` is given, and lines begin with the name of their
    step, unless one step is asked for.
    """
    page = await _page(request, execution_id, query, control.output)
    if MEDIA_TYPE not in request.headers.get("accept", ""):
        return answer(_shown(execution_id, page))
    whole = query.limit is None and query.tail is None
    rest = control.output.rest(execution_id, query.which, page) if whole else [page.pieces]
    lines = Lines(named=query.step is None)
    return StreamingResponse(_text(rest, lines), media_type=f"{MEDIA_TYPE}; charset=utf-8")


async def _page(request: Request, execution_id: int, query: LogQuery, output: Output) -> Page:
    """The page, once there is something on it, or nothing will come, or the time is over.

    A server that is told to stop waits no longer.
    """
    deadline = time.monotonic() + query.wait
    while True:
        # No thread is held while nothing happens: many may look on.
        page = await run_in_threadpool(_look, execution_id, query, output)
        left = deadline - time.monotonic()
        stopping = request.app.state.control.ends.is_closed
        over = page.pieces or page.ended or left <= 0 or stopping
        if over or await request.is_disconnected():
            return page
        await asyncio.sleep(min(LOOK, left))


def _look(execution_id: int, query: LogQuery, output: Output) -> Page:
    if query.tail is not None:
        return output.tail(execution_id, query.which, query.tail)
    return output.page(execution_id, query.which, after=query.after, limit=query.limit or PAGE)


def _shown(execution_id: int, page: Page) -> LogPage:
    return LogPage(
        execution_id=str(execution_id),
        chunks=[_row(kept) for kept in page.pieces],
        next=str(page.cursor),
        ended=page.ended,
    )


def _row(kept: Kept) -> LogRow:
    piece = kept.printed
    place = piece.pointer._asdict()
    del place["execution_id"]
    return LogRow(**place, stream=piece.stream, text=piece.text, at=piece.at)


def _text(pages: Iterable[Sequence[Kept]], lines: Lines) -> Iterator[str]:
    for pieces in pages:
        for _, piece in pieces:
            yield lines.of(piece.pointer, piece.stream, piece.text)
