"""Kept values of keychains: clients may see that they are there, replace them and forget them.

What a value holds leaves the control plane for the worker of an attempt only
(``POST /api/worker/keychain/take``): whoever may read here could read every token otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response

from app.api.bodies import Body, answer, identity, parse, takes
from app.api.dependencies import ControlDep
from app.services.control import Control
from app.services.tokens import Value, masked, renewal
from app.wire import KeychainDeleted, KeychainKept, KeychainList, KeychainPut, KeychainRow

router = APIRouter(prefix="/api/keychain", tags=["keychain"])

CatalogId = Annotated[int, Path(ge=1, lt=1 << 63)]
Scope = Literal["local", "shared", "global"]


@router.get("/catalog/{catalog_id}", response_model=KeychainList)
def values(catalog_id: CatalogId, control: ControlDep) -> Response:
    """All values that are kept for one version of a playbook, the newest first, masked."""
    rows = [_row(control, value) for value in control.tokens.values(catalog_id)]
    return answer(KeychainList(catalog_id=str(catalog_id), entries=rows, count=len(rows)))


@router.get("/{catalog_id}/{name}", response_model=KeychainRow)
def value(
    catalog_id: CatalogId,
    name: str,
    control: ControlDep,
    *,
    execution_id: str | None = None,
    scope_type: Scope | None = None,
) -> Response:
    """Whether a value is kept and holds (``status``), and its fields by name, each as ``***``."""
    owner = identity(execution_id, "execution_id")
    found = control.tokens.get(catalog_id, name, scope_type, owner)
    if found is None:
        row = KeychainRow(status="not_found", keychain_name=name, catalog_id=str(catalog_id))
        return answer(row)
    return answer(_row(control, found))


@router.post("/{catalog_id}/{name}", openapi_extra=takes(KeychainPut), response_model=KeychainKept)
def keep(
    catalog_id: CatalogId,
    name: Annotated[str, Path(max_length=500)],
    body: Body,
    control: ControlDep,
    *,
    execution_id: str | None = None,
    scope_type: Scope | None = None,
) -> Response:
    """Keep a value, sealed, in place of one that is there; what the query says, the body need not."""
    given = parse(KeychainPut, body)
    asked: dict[str, Any] = {"execution_id": execution_id, "scope_type": scope_type}
    said = {
        key: value for key, value in asked.items() if value and key not in given.model_fields_set
    }
    row = control.tokens.keep(catalog_id, name, given.model_copy(update=said))
    return answer(KeychainKept(cache_key=row.cache_key, expires_at=row.expires_at))


@router.delete("/{catalog_id}/{name}", response_model=KeychainDeleted)
def forget(
    catalog_id: CatalogId,
    name: str,
    control: ControlDep,
    *,
    execution_id: str | None = None,
    scope_type: Scope | None = None,
) -> Response:
    """Forget the values of that entry: all of them, or those of a scope or an execution."""
    owner = identity(execution_id, "execution_id")
    count = control.tokens.forget(catalog_id, name, scope_type, owner)
    return answer(KeychainDeleted(status="success" if count else "not_found", deleted=count))


def _row(control: Control, found: Value) -> KeychainRow:
    row, place = found.row, found.row.place
    left = control.tokens.left(row)
    return KeychainRow(
        status="success" if left > 0 else "expired",
        keychain_name=place.name,
        catalog_id=str(place.catalog_id),
        cache_key=row.cache_key,
        scope_type=place.scope,
        execution_id=None if place.execution_id is None else str(place.execution_id),
        parent_execution_id=(
            None if row.parent_execution_id is None else str(row.parent_execution_id)
        ),
        credential_type=row.credential_type,
        cache_type=row.cache_type,
        token_data=masked(found.data),
        expires_at=row.expires_at,
        ttl_seconds=round(left, 3),
        created_at=row.created_at,
        accessed_at=row.accessed_at,
        access_count=row.access_count,
        auto_renew=row.auto_renew,
        renew_config=renewal(found.renew_config),
    )
