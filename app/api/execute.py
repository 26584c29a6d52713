"""Execute: start a playbook; the workers take it from there."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import StringConstraints, TypeAdapter, ValidationError

from app.api.bodies import answer, complaint, identity, parse, read_body, takes
from app.api.threads import in_thread
from app.errors import BadRequestError
from app.services.control import Control
from app.wire import Execute, Started

router = APIRouter(prefix="/api/execute", tags=["executions"])

#: Repeating a start under the same key is starting once, and gives the same answer.
KEY = "Idempotency-Key"
_KEY = TypeAdapter(
    Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
)
_TAKES = {
    **takes(Execute),
    "parameters": [{"name": KEY, "in": "header", "required": False, "schema": _KEY.json_schema()}],
}


@router.post("", openapi_extra=_TAKES, response_model=Started)
async def execute(request: Request) -> Response:
    """Accept a run of ``path`` or ``catalog_id``; it is in the log when this returns."""
    return await in_thread(_execute, request, await read_body(request), {})


@router.post("/playbook/{path:path}", openapi_extra=_TAKES, response_model=Started)
async def execute_path(path: str, request: Request) -> Response:
    """As ``/api/execute``, with the playbook named by the URL."""
    named = {"path": path, "catalog_id": None}
    return await in_thread(_execute, request, await read_body(request), named)


def _execute(request: Request, body: bytes, named: dict[str, str | None]) -> Response:
    given = parse(Execute, body).model_copy(update=named)
    return answer(_start(request.app.state.control, given, _key_of(request)))


def _key_of(request: Request) -> str | None:
    """The caller's key. Raises ``BadRequestError`` for what is none."""
    key = request.headers.get(KEY)
    try:
        return None if key is None else _KEY.validate_python(key)
    except ValidationError as exc:
        raise BadRequestError(
            "; ".join(complaint(("header", KEY), error["msg"]) for error in exc.errors())
        ) from None


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
