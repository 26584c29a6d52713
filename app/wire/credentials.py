"""Credentials as clients see them: what is secret goes in, and never comes out."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field

from app.wire.base import Id, Wire


def _tags(value: Any) -> Any:
    """NoETL's clients send one text with commas, others a list."""
    if isinstance(value, str):
        return [tag.strip() for tag in value.split(",") if tag.strip()]
    return [] if value is None else value


Tags = Annotated[list[str], BeforeValidator(_tags)]


class CredentialScope(Wire):
    """Where a credential may be used: playbooks by path (``etl/*``), pools by name. Empty: anywhere."""

    paths: list[str] = []
    pools: list[str] = []


class CredentialPut(Wire):
    """A credential to keep under its name; one that is there is replaced."""

    name: str = Field(min_length=1, max_length=200)
    type: str = Field(
        "generic", max_length=100, validation_alias=AliasChoices("type", "credential_type")
    )
    data: dict[str, Any] = Field(default={}, repr=False)
    meta: dict[str, Any] | None = None
    tags: Tags = []
    description: str | None = None
    scope: CredentialScope | None = None


class CredentialRow(Wire):
    """What is told of a credential. ``data`` only where asked for, its secret fields as ``***``."""

    id: Id
    name: str
    type: str
    meta: dict[str, Any] | None = None
    tags: list[str] = []
    description: str | None = None
    scope: CredentialScope | None = None
    created_at: str
    updated_at: str
    data: dict[str, Any] | None = None


class CredentialFilter(Wire):
    """What a list was asked for."""

    type: str | None = None
    q: str | None = None


class CredentialList(Wire):
    """Credentials by name."""

    items: list[CredentialRow]
    filter: CredentialFilter


class CredentialDeleted(Wire):
    """What was forgotten."""

    id: Id
    name: str
    deleted: bool = True


class CredentialTest(Wire):
    """The execution that tries the credential."""

    name: str
    execution_id: Id
