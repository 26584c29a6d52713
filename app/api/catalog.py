"""Catalog: register, check, list and read playbooks and other resources."""

from __future__ import annotations

from fastapi import APIRouter, Response

from app.api.bodies import Body, PlaybookBody, TooLargeError, answer, identity, parse, plain, takes
from app.api.dependencies import ControlDep, SettingsDep
from app.engine.ports import CatalogEntry
from app.services.catalog import envelope_of
from app.settings import Settings
from app.wire import (
    CatalogList,
    CatalogQuery,
    CatalogRow,
    Checked,
    FindingRow,
    Registered,
    ResourceQuery,
)

router = APIRouter(prefix="/api/catalog", tags=["catalog"])

#: Plurals and lower case, as existing clients write them.
KINDS = {"playbook": "Playbook", "playbooks": "Playbook", "agent": "Agent", "agents": "Agent"}


@router.post("/register")
def register(body: PlaybookBody, control: ControlDep, settings: SettingsDep) -> Registered:
    """Store YAML as the next version of its path: raw, as base64, or in JSON as ``content``."""
    content, resource_type = _content(body, settings)
    stored = control.catalog.submit(content, resource_type=resource_type)
    entry = stored.entry
    return Registered(
        message=f"Resource '{entry.path}' version '{entry.version}' registered.",
        path=entry.path,
        version=entry.version,
        catalog_id=str(entry.catalog_id),
        kind=entry.kind,
        warnings=[FindingRow(**finding.to_dict()) for finding in stored.warnings],
    )


@router.post("/validate")
def validate(body: PlaybookBody, control: ControlDep, settings: SettingsDep) -> Checked:
    """Everything there is to say about a playbook, without storing it."""
    content, _ = _content(body, settings)
    examined = control.catalog.examine(content)
    findings = [FindingRow(**finding.to_dict()) for finding in examined.findings]
    return Checked(valid=not examined.errors, findings=findings)


@router.get("/schema")
def schema(control: ControlDep, tool: str | None = None) -> Response:
    """The JSON Schema (2020-12) of playbooks, or of one tool: for editors and other checkers."""
    answered = plain(control.catalog.schema(tool))
    answered.headers["content-type"] = "application/schema+json"
    return answered


@router.post("/list", openapi_extra=takes(CatalogQuery), response_model=CatalogList)
def entries(body: Body, control: ControlDep) -> Response:
    """The newest version of every path, or every version of one; without contents."""
    query = parse(CatalogQuery, body)
    kind = (
        KINDS.get(query.resource_type.lower(), query.resource_type) if query.resource_type else None
    )
    found = control.catalog.entries(kind=kind, path=query.path)
    return answer(CatalogList(entries=[_row(entry, content=False) for entry in found]))


@router.post("/resource", openapi_extra=takes(ResourceQuery), response_model=CatalogRow)
def resource(body: Body, control: ControlDep) -> Response:
    """One resource with its content."""
    query = parse(ResourceQuery, body)
    version = None if query.version == "latest" else query.version
    catalog_id = identity(query.catalog_id, "catalog_id")
    return answer(_row(control.catalog.entry(query.path, version=version, catalog_id=catalog_id)))


def _content(body: bytes, settings: Settings) -> tuple[str, str]:
    content, resource_type = envelope_of(body)
    if len(content.encode()) > settings.playbook_bytes:
        raise TooLargeError(
            f"the playbook is larger than {settings.playbook_bytes} bytes",
            remedy="load data at run time instead, or raise CALLBOARD_PLAYBOOK_BYTES",
        )
    return content, resource_type


def _row(entry: CatalogEntry, *, content: bool = True) -> CatalogRow:
    return CatalogRow(
        catalog_id=str(entry.catalog_id),
        path=entry.path,
        version=entry.version,
        kind=entry.kind,
        content=entry.content if content else None,
        meta=dict(entry.meta),
        created_at=entry.created_at,
    )
