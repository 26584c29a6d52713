"""Removing old executions, and what is written of them before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from app.api.bodies import Body, answer, identity, parse, takes
from app.api.dependencies import ControlDep, ExecutionId
from app.engine.retention import Expiry, Member
from app.errors import BadRequestError
from app.services.retention import Retention
from app.wire.retention import Prune, Pruned, PruneMember

router = APIRouter(prefix="/api/executions", tags=["executions"])

#: Seconds that executions stay where only their number was said: a start may still be repeated.
LEAST = 3600.0


@router.post("/prune", openapi_extra=takes(Prune), response_model=Pruned)
def prune(body: Body, control: ControlDep) -> Response:
    """Remove a batch of executions that ended long ago. Call it again with ``behind`` as ``after``."""
    request = parse(Prune, body)
    before = _moment(request, control.retention)
    if request.executions is not None:
        found, behind = _those(request, before, control.retention), None
    else:
        found, behind = _next(request, before, control.retention)
    return answer(
        Pruned(
            executions=found,
            behind=None if behind is None else str(behind),
            ended_before=before,
            dry_run=request.dry_run,
        )
    )


@router.get("/{execution_id}/archive", response_class=StreamingResponse)
def archive(execution_id: ExecutionId, control: ControlDep) -> Response:
    """All that is known of it, as one line of JSON: events, values, variables, output."""
    return StreamingResponse(control.archives.line(execution_id), media_type="application/x-ndjson")


def _next(
    request: Prune, before: datetime, retention: Retention
) -> tuple[list[PruneMember], int | None]:
    """What goes, or would go, behind the last call's."""
    expiry = Expiry(before, request.keep, tuple(request.status), request.path)
    after = identity(request.after, "after") or 0
    if request.dry_run:
        expired = retention.expired(expiry, after=after)
        return _members(expired.members), expired.behind
    turn = retention.prune(expiry, after=after, batch=request.batch)
    return _members(turn.removed), turn.behind


def _those(request: Prune, before: datetime, retention: Retention) -> list[PruneMember]:
    if request.dry_run:
        raise BadRequestError("'dry_run' finds executions, and these are named already")
    named = {
        identity(each.execution_id, "execution_id") or 0: each for each in request.executions or ()
    }
    events = {execution_id: each.events for execution_id, each in named.items()}
    gone = set(retention.remove(events, ended_before=before))
    return [each for execution_id, each in named.items() if execution_id in gone]


def _moment(request: Prune, retention: Retention) -> datetime:
    """What ended before it may go. Raises ``BadRequestError`` where nothing says so."""
    if request.ended_before is not None:
        at = request.ended_before
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    if request.older_than is None and request.keep is None:
        raise BadRequestError(
            "nothing says which executions may go",
            remedy="send 'older_than', in seconds, or 'keep'",
        )
    return retention.moment(LEAST if request.older_than is None else request.older_than)


def _members(members: Sequence[Member]) -> list[PruneMember]:
    return [
        PruneMember(execution_id=str(each.execution_id), events=each.events) for each in members
    ]
