"""Playbooks and other resources as answers show them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from app.wire.base import Id, Wire


class FindingRow(Wire):
    """One thing about a playbook; ``line`` and ``column`` count from 1, 0 means unknown.

    ``severity`` is error, warning or info; ``path`` leads to the key, with dots between its parts.
    """

    code: str
    severity: str = "error"
    message: str
    line: int = 0
    column: int = 0
    path: str = ""
    suggestion: str | None = None


class Registered(Wire):
    """A resource was stored as a new version of its path."""

    status: str = "success"
    message: str
    path: str
    version: int
    catalog_id: Id
    kind: str
    warnings: list[FindingRow] = []


class CatalogQuery(Wire):
    """What to list: the newest version of every path, or every version of ``path``."""

    resource_type: str | None = None
    path: str | None = None


class ResourceQuery(Wire):
    """One resource, by id or by path and version (default: the newest)."""

    catalog_id: Id | None = None
    path: str | None = None
    version: int | Literal["latest"] | None = None


class CatalogRow(Wire):
    """A registered resource; ``content`` only where one resource was asked for."""

    catalog_id: Id
    path: str
    version: int
    kind: str
    content: str | None = None
    layout: dict[str, Any] | None = None
    payload: dict[str, Any] | None = None
    meta: dict[str, Any] = {}
    created_at: datetime


class CatalogList(Wire):
    entries: list[CatalogRow]


class Checked(Wire):
    """Whether a playbook could be registered, and everything there is to say about it."""

    valid: bool
    findings: list[FindingRow] = []


class Explained(Wire):
    """The plan of a playbook: as data, as text for people, and as a Mermaid flowchart."""

    plan: dict[str, Any]
    text: str
    mermaid: str
