"""Credentials: what is secret in them goes in here, and never comes out.

Their values leave the control plane for the worker of an attempt only (``POST /api/worker/secret``).
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from app.api.bodies import Body, answer, parse, takes
from app.api.dependencies import ControlDep
from app.engine.custody import CredentialRow as Row
from app.wire import (
    CredentialDeleted,
    CredentialFilter,
    CredentialList,
    CredentialPut,
    CredentialRow,
    CredentialScope,
    CredentialTest,
)

router = APIRouter(prefix="/api/credentials", tags=["credentials"])


@router.post("", openapi_extra=takes(CredentialPut), response_model=CredentialRow)
def put(body: Body, control: ControlDep) -> Response:
    """Keep a credential, sealed; one of the same name is replaced and keeps its id."""
    return answer(_row(control.credentials.put(parse(CredentialPut, body))))


@router.get("", response_model=CredentialList)
def credentials(
    control: ControlDep,
    type: str | None = None,  # noqa: A002 (the name of the parameter)
    q: str | None = None,
) -> Response:
    """Credentials by name: those of a type, those with *q* in name, description or a tag."""
    rows = [_row(row) for row in control.credentials.list(type=type, q=q)]
    return answer(CredentialList(items=rows, filter=CredentialFilter(type=type, q=q)))


@router.get("/{name}", response_model=CredentialRow)
def credential(name: str, control: ControlDep, *, include_data: bool = False) -> Response:
    """One credential by name or id; with *include_data* its fields, each secret one as ``***``."""
    row = control.credentials.get(name)
    return answer(_row(row, control.credentials.shown(row) if include_data else None))


@router.delete("/{name}", response_model=CredentialDeleted)
def delete(name: str, control: ControlDep) -> Response:
    """Forget the credential of that name or id."""
    row = control.credentials.delete(name)
    return answer(CredentialDeleted(id=str(row.id), name=row.name))


@router.post("/{name}/test", status_code=202, response_model=CredentialTest)
def test(name: str, control: ControlDep) -> Response:
    """Start a playbook in which a worker connects with the credential."""
    started = control.credentials.test(name)
    told = answer(CredentialTest(name=name, execution_id=str(started.execution_id)))
    told.status_code = 202
    return told


def _row(row: Row, data: dict[str, Any] | None = None) -> CredentialRow:
    return CredentialRow(
        id=str(row.id),
        name=row.name,
        type=row.type,
        meta=dict(row.meta) if row.meta is not None else None,
        tags=list(row.tags),
        description=row.description,
        scope=CredentialScope(**row.scope) if row.scope else None,
        created_at=row.created_at.isoformat(),
        updated_at=row.updated_at.isoformat(),
        data=data,
    )
