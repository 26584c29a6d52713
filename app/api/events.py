"""Events of an execution, page by page."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import ConfigDict, Field

from app.api.bodies import answer
from app.api.dependencies import ControlDep, ExecutionId
from app.api.vocabulary import event_row, our_types
from app.engine.entry import Entry
from app.engine.ports import ExecutionSummary
from app.services.executions import Executions
from app.wire import EventRow, ExecutionEvents, Pagination, Wire

router = APIRouter(prefix="/api/executions", tags=["executions"])


class EventQuery(Wire):
    """Which events: those after ``since_event_id`` (or ``since_seq``) of type ``event_type``."""

    # FastAPI looks into query models when it adds the route, so they are built at once.
    model_config = ConfigDict(defer_build=False)

    page: int = Field(1, ge=1, le=1_000_000)
    page_size: int = Field(100, ge=1, le=500)
    since_event_id: int | None = Field(None, ge=0)
    since_seq: int | None = Field(None, ge=0)
    event_type: str | None = None
    include_events: bool = True


EventQueryDep = Annotated[EventQuery, Query()]


@router.get("/{execution_id}/events", response_model=ExecutionEvents)
def events(execution_id: ExecutionId, query: EventQueryDep, control: ControlDep) -> Response:
    """The events in order of their ``seq``."""
    summary = control.executions.get(execution_id)
    rows, pagination = page_of(control.executions, summary, query)
    return answer(
        ExecutionEvents(
            execution_id=str(execution_id),
            status=summary.status,
            events=rows,
            pagination=pagination,
        )
    )


def page_of(
    executions: Executions, summary: ExecutionSummary, query: EventQuery
) -> tuple[list[EventRow], Pagination]:
    """A page of rows. Without a type it reads just that page, however long the execution is."""
    execution_id, size = summary.execution_id, query.page_size
    total = executions.count_events(execution_id)
    start = _start(executions, execution_id, query, total)
    skipped = (query.page - 1) * size
    found: list[Entry]
    if query.event_type is None:
        total = max(0, total - start)
        found = executions.events(execution_id, after=start + skipped, limit=size)
    else:
        matching = executions.events(execution_id, after=start, types=our_types(query.event_type))
        total = len(matching)
        found = matching[skipped : skipped + size]
    pages = math.ceil(total / size)
    pagination = Pagination(
        page=query.page,
        page_size=size,
        total_events=total,
        total_pages=pages,
        has_next=query.page < pages,
        has_prev=query.page > 1,
    )
    return [event_row(entry, summary) for entry in found], pagination


def _start(executions: Executions, execution_id: int, query: EventQuery, total: int) -> int:
    """The seq after which the pages begin."""
    start = query.since_seq or 0
    if query.since_event_id:
        start = max(start, _seq_of(executions, execution_id, query.since_event_id, total))
    return start


def _seq_of(executions: Executions, execution_id: int, event_id: int, total: int) -> int:
    """The seq of the last event with an id up to *event_id*.

    Ids grow with seq and seqs have no gaps, so a few single reads find it.
    """
    low, high = 0, total
    while low < high:
        middle = (low + high + 1) // 2
        entries = executions.events(execution_id, after=middle - 1, limit=1)
        if entries and entries[0].event_id <= event_id:
            low = middle
        else:
            high = middle - 1
    return low
