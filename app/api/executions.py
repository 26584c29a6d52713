"""Executions: list them, look at one, read its result, cancel it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter

from app.api.bodies import Body, answer, identity, parse, takes
from app.api.dependencies import ControlDep, ExecutionId
from app.api.events import EventQueryDep, page_of
from app.api.results import outline_row
from app.api.threads import in_thread
from app.api.waiting import AtItsEnd
from app.engine.ports import ExecutionFilter, ExecutionSummary
from app.errors import BadRequestError, ConflictError
from app.services.control import Control
from app.services.executions import StatusView, duration_seconds
from app.wire import (
    Cancel,
    CancellationCheck,
    Cancelled,
    ExecutionDetail,
    ExecutionRow,
    ExecutionStatus,
    StepResult,
    StepRow,
    Wire,
)

router = APIRouter(prefix="/api/executions", tags=["executions"])
#: The older name of one execution.
alias = APIRouter(prefix="/api/execute", tags=["executions"])

MAX_OFFSET = 10_000
#: Variables above this size are only mentioned in a status, unless all of them are asked for.
COMPACT_BYTES = 4_096
ROWS = TypeAdapter(list[ExecutionRow])
#: By the type of the event that brought it there.
STATUS = {
    "execution.completed": "COMPLETED",
    "execution.failed": "FAILED",
    "execution.cancelled": "CANCELLED",
}
ENDS = {
    "COMPLETED": "playbook.completed",
    "FAILED": "playbook.failed",
    "CANCELLED": "execution.cancelled",
}

Status = Annotated[
    Literal["RUNNING", "COMPLETED", "FAILED", "CANCELLED"],
    BeforeValidator(lambda text: text.upper() if isinstance(text, str) else text),
]


class ExecutionQuery(Wire):
    """Which executions, newest first: by page, or after ``cursor`` (stable while new ones start)."""

    # FastAPI looks into query models when it adds the route, so they are built at once.
    model_config = ConfigDict(defer_build=False)

    status: Status | None = None
    path: str | None = None
    started_after: datetime | None = None
    started_before: datetime | None = None
    parent_execution_id: str | None = None
    page: int = Field(1, ge=1)
    page_size: int = Field(50, ge=1, le=500)
    cursor: str | None = None
    limit: int | None = Field(None, ge=1, le=500)


@router.get("", response_model=list[ExecutionRow])
def executions(
    query: Annotated[ExecutionQuery, Query()], request: Request, control: ControlDep
) -> Response:
    """A list; where more follow, ``Link: <…>; rel="next"`` and ``X-Next-Cursor`` lead on."""
    size = query.limit or query.page_size
    found = control.executions.find(_filter(query, size))
    rows = [ExecutionRow(**_row(summary)) for summary in found[:size]]
    response = Response(ROWS.dump_json(rows), media_type="application/json")
    if len(found) > size:
        cursor = rows[-1].execution_id
        names = [
            (k, v) for k, v in request.query_params.multi_items() if k not in {"page", "cursor"}
        ]
        target = f"{request.url.path}?{urlencode([*names, ('cursor', cursor)])}"
        response.headers["link"] = f'<{target}>; rel="next"'
        response.headers["x-next-cursor"] = cursor
    return response


@alias.get("/{execution_id}", response_model=ExecutionDetail)
@router.get("/{execution_id}", response_model=ExecutionDetail)
def execution(execution_id: ExecutionId, query: EventQueryDep, control: ControlDep) -> Response:
    """One execution with a page of its events."""
    view = control.executions.status(execution_id)
    events, pagination = (
        page_of(control.executions, view.summary, query) if query.include_events else ([], None)
    )
    fields = _row(view.summary) | {"progress": _progress(view), "result": _outline(control, view)}
    return answer(
        ExecutionDetail(
            **fields,
            retry_of=_retry_of(view),
            events=events,
            events_included=query.include_events,
            events_endpoint=f"/api/executions/{execution_id}/events",
            pagination=pagination,
        )
    )


@router.get("/{execution_id}/status", response_model=ExecutionStatus)
def status(
    execution_id: ExecutionId,
    control: ControlDep,
    _end: AtItsEnd,
    full: bool = False,
    variables: bool = True,
) -> Response:
    """Where it stands, step by step; ``variables=false`` leaves the values out.

    With ``wait`` the answer waits for the end of the execution, so many seconds at the most.
    """
    view = control.executions.status(execution_id)
    summary, states = view.summary, view.state.steps
    done = sorted(
        (name for name, step in states.items() if step.status == "done"),
        key=lambda name: states[name].ended_seq,
    )
    running = [step.name for step in view.steps if step.name in view.state.running]
    values = control.executions.variables(execution_id) if variables else {}
    seconds = duration_seconds(summary, datetime.now(UTC))
    return answer(
        ExecutionStatus(
            execution_id=str(execution_id),
            status=summary.status,
            path=summary.path,
            version=summary.version,
            catalog_id=str(summary.catalog_id),
            current_step=running[-1] if running else view.final_step,
            final_step=view.final_step,
            completed_steps=done,
            failed=summary.status == "FAILED",
            completed=summary.status in {"COMPLETED", "CANCELLED"},
            variables=values if full else {name: _compact(value) for name, value in values.items()},
            steps=[StepRow.model_validate(step, from_attributes=True) for step in view.steps],
            start_time=summary.started_at,
            end_time=summary.ended_at,
            duration_seconds=seconds,
            duration_human=human(seconds),
            error=summary.error,
            paused_at=summary.paused_at if summary.ended_at is None else None,
            retry_of=_retry_of(view),
        )
    )


@router.get("/{execution_id}/result", response_model=StepResult)
def result(
    execution_id: ExecutionId,
    control: ControlDep,
    step: str | None = None,
    outline: bool = False,
    raw: bool = False,
) -> Response:
    """The result of *step*, by default of the one that ended last.

    With *outline* what it is like instead of the value, with *raw* the value and nothing else.
    """
    found = control.results.outline(execution_id, step)
    if outline:
        return answer(outline_row(found))
    head = {"execution_id": str(execution_id), "step": found.step, "status": found.status}
    # The text goes out as it is kept: large ones would cost seconds to take apart and write again.
    text = control.results.text(execution_id, found.step)
    if raw:
        return Response(text, media_type="application/json")
    body = b"".join((orjson.dumps(head)[:-1], b',"result":', text, b"}"))
    return Response(body, media_type="application/json")


@router.post("/{execution_id}/cancel", openapi_extra=takes(Cancel), response_model=Cancelled)
def cancel(execution_id: ExecutionId, body: Body, control: ControlDep) -> Response:
    """End it, and its children; running tools are stopped at their worker's next heartbeat."""
    request = parse(Cancel, body)
    try:
        ids = control.executions.cancel(
            execution_id, reason=request.reason, cascade=request.cascade
        )
    except ConflictError as exc:
        return answer(
            Cancelled(
                status="already_completed", execution_id=str(execution_id), message=exc.message
            )
        )
    return answer(
        Cancelled(
            status="cancelled",
            execution_id=str(execution_id),
            cancelled_executions=[str(cancelled) for cancelled in ids],
            message=f"{len(ids)} execution{'s' if len(ids) > 1 else ''} cancelled",
        )
    )


@router.get("/{execution_id}/cancellation-check", response_model=CancellationCheck)
async def cancellation_check(
    execution_id: ExecutionId, control: ControlDep, end: AtItsEnd
) -> Response:
    """Whether it has ended, and how; cheap. ``wait`` as for its status."""
    now = STATUS.get(end or "")
    if now is None:
        now = (await in_thread(control.executions.get, execution_id)).status
    return answer(
        CancellationCheck(
            execution_id=str(execution_id),
            status=now,
            event_type=ENDS.get(now),
            cancelled=now == "CANCELLED",
            completed=now == "COMPLETED",
            failed=now == "FAILED",
        )
    )


def human(seconds: float) -> str:
    """A duration for people: ``420ms``, ``3.2s``, ``1m 3s``, ``2h 5m``, ``3d 4h``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


def _filter(query: ExecutionQuery, size: int) -> ExecutionFilter:
    by_cursor = query.cursor is not None
    offset = 0 if by_cursor else (query.page - 1) * size
    if offset > MAX_OFFSET:
        raise BadRequestError(
            f"page: more than {MAX_OFFSET} executions would be skipped",
            remedy="follow the Link header (cursor) instead of counting pages",
        )
    return ExecutionFilter(
        status=query.status,
        path=query.path,
        started_after=query.started_after,
        started_before=query.started_before,
        before=identity(query.cursor, "cursor"),
        parent_execution_id=identity(query.parent_execution_id, "parent_execution_id"),
        limit=size + 1,
        offset=offset,
    )


def _row(summary: ExecutionSummary) -> dict[str, Any]:
    """The fields of ``ExecutionRow``."""
    seconds = duration_seconds(summary, datetime.now(UTC))
    parent = summary.parent_execution_id
    return {
        "execution_id": str(summary.execution_id),
        "catalog_id": str(summary.catalog_id),
        "path": summary.path,
        "version": summary.version,
        "status": summary.status,
        "start_time": summary.started_at,
        "end_time": summary.ended_at,
        "duration_seconds": seconds,
        "duration_human": human(seconds),
        "progress": 100 if summary.ended_at else 0,
        "error": summary.error,
        "parent_execution_id": None if parent is None else str(parent),
        "paused_at": summary.paused_at if summary.ended_at is None else None,
    }


def _retry_of(view: StatusView) -> str | None:
    before = view.state.retry_of
    return None if before is None else str(before)


def _progress(view: StatusView) -> int:
    """Steps that ended, in percent; 100 only once the execution has ended."""
    if view.summary.ended_at:
        return 100
    ended = sum(step.is_ended for step in view.state.steps.values())
    return min(99, 100 * ended // max(1, len(view.steps)))


def _outline(control: Control, view: StatusView) -> Any:
    """The last result of an ended execution as its event holds it: a large one by reference."""
    if not view.summary.ended_at or view.final_step is None:
        return None
    seq = view.state.steps[view.final_step].result_seq
    entry = control.executions.events(view.summary.execution_id, after=seq - 1, limit=1)[0]
    return getattr(entry.event, "result", None)


def _compact(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    size = len(orjson.dumps(value))
    return value if size <= COMPACT_BYTES else {"_truncated": True, "_size_bytes": size}
