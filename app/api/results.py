"""Results as they are: JSON text of any size, found by execution and step or by reference."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api.bodies import answer
from app.api.dependencies import ControlDep, ExecutionId
from app.services.results import Outline
from app.wire import ResultList, ResultOutline

router = APIRouter(prefix="/api/result", tags=["results"])


@router.get("/resolve", response_class=Response)
def resolve(ref: str, control: ControlDep) -> Response:
    """The value that *ref* (noetl://execution/…, from ``_ref``) stands for."""
    return Response(control.results.resolve(ref), media_type="application/json")


@router.get("/{execution_id}/list", response_model=ResultList)
def results(execution_id: ExecutionId, control: ControlDep) -> Response:
    """What results there are, in the order in which their steps ended; not the values."""
    rows = [outline_row(outline) for outline in control.results.outlines(execution_id)]
    return answer(ResultList(execution_id=str(execution_id), results=rows, count=len(rows)))


@router.get("/{execution_id}/{step}", response_class=Response)
def result(execution_id: ExecutionId, step: str, control: ControlDep) -> Response:
    """The result of a step. Of one named ``list``: see ``/api/executions/{execution_id}/result``."""
    return Response(control.results.text(execution_id, step), media_type="application/json")


def outline_row(outline: Outline) -> ResultOutline:
    """*outline* as clients read it."""
    return ResultOutline(
        step=outline.step,
        status=outline.status,
        visit=outline.visit,
        ref=outline.ref,
        store=outline.store,
        size_bytes=outline.size,
        preview=outline.preview,
    )
