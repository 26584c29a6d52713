"""What a person does about an execution: pause it, let it go on, try again, run again."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api.bodies import Body, answer, parse, takes
from app.api.dependencies import ControlDep, ExecutionId
from app.services.executions import Started
from app.wire import Pause, Paused, Rerun, Retried, Retry

router = APIRouter(prefix="/api/executions", tags=["executions"])


@router.post("/{execution_id}/pause", openapi_extra=takes(Pause), response_model=Paused)
def pause(execution_id: ExecutionId, body: Body, control: ControlDep) -> Response:
    """Start nothing new in it; what runs may end. Twice is once. 409 where it has ended."""
    request = parse(Pause, body)
    ids = control.intervention.pause(execution_id, reason=request.reason, cascade=request.cascade)
    return answer(_paused("paused", execution_id, ids))


@router.post("/{execution_id}/resume", openapi_extra=takes(Pause), response_model=Paused)
def resume(execution_id: ExecutionId, body: Body, control: ControlDep) -> Response:
    """Let it go on where it was paused. Twice is once. 409 where it has ended."""
    ids = control.intervention.resume(execution_id, cascade=parse(Pause, body).cascade)
    return answer(_paused("running", execution_id, ids))


@router.post("/{execution_id}/retry", openapi_extra=takes(Retry), response_model=Retried)
def retry(execution_id: ExecutionId, body: Body, control: ControlDep) -> Response:
    """Try again what failed: one that has ended is followed by another, which takes over its work."""
    request = parse(Retry, body)
    retried = control.intervention.retry(execution_id, step=request.step, version=request.version)
    if retried.started is not None:
        return answer(_started(retried.started, execution_id, "takes over what was done in"))
    count = f"{retried.resent} attempt{'s' if retried.resent > 1 else ''} sent now"
    return answer(Retried(status="resent", execution_id=str(execution_id), message=count))


@router.post("/{execution_id}/rerun", openapi_extra=takes(Rerun), response_model=Retried)
def rerun(execution_id: ExecutionId, body: Body, control: ControlDep) -> Response:
    """Start its playbook again from the beginning, with the same workload."""
    started = control.intervention.rerun(execution_id, version=parse(Rerun, body).version)
    return answer(_started(started, None, f"begins again what {execution_id} was"))


def _paused(status: str, execution_id: int, ids: list[int]) -> Paused:
    verb = "paused" if status == "paused" else "resumed"
    count = f"{len(ids)} execution{'s' if len(ids) != 1 else ''} {verb}"
    return Paused(
        status=status,
        execution_id=str(execution_id),
        executions=[str(each) for each in ids],
        message=count if ids else f"it was {status} already",
    )


def _started(started: Started, before: int | None, how: str) -> Retried:
    told = f"execution {started.execution_id} {how}"
    return Retried(
        status="started",
        execution_id=str(started.execution_id),
        retry_of=None if before is None else str(before),
        path=started.entry.path,
        version=started.entry.version,
        message=told if before is None else f"{told} {before}",
    )
