"""Execute: start a playbook; the workers take it from there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response

from app.api.bodies import Body, answer, identity, parse, takes
from app.api.dependencies import ControlDep
from app.services.control import Control
from app.wire import Execute, Started

router = APIRouter(prefix="/api/execute", tags=["executions"])

#: Repeating a start under the same key is starting once, and gives the same answer.
Key = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[!-~]+$")
]


@router.post("", openapi_extra=takes(Execute), response_model=Started)
def execute(body: Body, control: ControlDep, key: Key = None) -> Response:
    """Accept a run of ``path`` or ``catalog_id``; it is in the log when this returns."""
    return answer(_start(control, parse(Execute, body), key))


@router.post("/playbook/{path:path}", openapi_extra=takes(Execute), response_model=Started)
def execute_path(path: str, body: Body, control: ControlDep, key: Key = None) -> Response:
    """As ``/api/execute``, with the playbook named by the URL."""
    request = parse(Execute, body).model_copy(update={"path": path, "catalog_id": None})
    return answer(_start(control, request, key))


def _start(control: Control, request: Execute, key: str | None) -> Started:
    started = control.executions.start(
        request.path,
        catalog_id=identity(request.catalog_id, "catalog_id"),
        version=None if request.version == "latest" else request.version,
        payload=request.values,
        parent_execution_id=identity(request.parent_execution_id, "parent_execution_id"),
        key=key,
    )
    return Started(
        execution_id=str(started.execution_id),
        path=started.entry.path,
        version=started.entry.version,
        catalog_id=str(started.entry.catalog_id),
    )
