"""Why an execution does not go on, or why it failed."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api.bodies import answer
from app.api.dependencies import ControlDep, ExecutionId
from app.services.attempts import Attempt, History
from app.services.reasons import Reason
from app.services.why import StepWhy
from app.wire import AttemptRow, ReasonRow, StepWhyRow, UnitRow, WhyAnswer

router = APIRouter(tags=["inspection"])


@router.get("/api/executions/{execution_id}/why", response_model=WhyAnswer)
def why(execution_id: ExecutionId, control: ControlDep, step: str | None = None) -> Response:
    """What the execution waits for, or failed with; of ``step`` alone, or of all not through."""
    found = control.whys.why(execution_id, step)
    return answer(
        WhyAnswer(
            execution_id=str(execution_id),
            path=found.summary.path,
            version=found.summary.version,
            status=found.summary.status,
            reason=_reason(found.reason),
            steps=[_step(one) for one in found.steps],
        )
    )


def _reason(reason: Reason) -> ReasonRow:
    return ReasonRow.model_validate(reason, from_attributes=True)


def _step(step: StepWhy) -> StepWhyRow:
    return StepWhyRow(
        name=step.name,
        status=step.status,
        visit=step.visit,
        reason=_reason(step.reason),
        units=[_unit(history) for history in step.histories],
        error=dict(step.error) if step.error else None,
        written=step.written,
        tail=step.tail,
    )


def _unit(history: History) -> UnitRow:
    attempts = [_attempt(attempt) for attempt in history.attempts]
    return UnitRow(iteration=history.key.iteration, attempts=attempts)


def _attempt(attempt: Attempt) -> AttemptRow:
    return AttemptRow(
        attempt=attempt.number,
        outcome=attempt.outcome,
        queue=attempt.queue,
        worker=attempt.worker,
        due=attempt.due,
        started=attempt.started,
        ended=attempt.ended,
        duration_ms=attempt.duration_ms,
        error=(attempt.error or {}).get("message"),
        resumes=attempt.resumes,
        child_execution_id=str(attempt.child) if attempt.child else None,
        late=attempt.late,
    )
