"""Entries of a keychain: what workers share of them, and what is shown of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from app.wire.base import Id, Wire
from app.wire.worker import PointerWire


class TokenRequest(PointerWire):
    """A worker asks for the value of an entry of its attempt's playbook, or for the turn to fetch it.

    ``holder`` tells one who fetches from another; the same one may ask twice. ``ahead`` is how many
    seconds before its end a value is renewed, ``digest`` the mark of the workload that it depends on.
    """

    worker: str = Field(max_length=200)
    name: str = Field(min_length=1, max_length=500)
    scope: Literal["local", "shared", "global"] = "global"
    digest: str = Field(default="", pattern="^([0-9a-f]{24})?$")
    holder: str = Field(min_length=1, max_length=300)
    ahead: float = Field(default=10.0, ge=0)


class TokenAnswer(Wire):
    """``kept``: here it is. ``yours``: fetch it and put it; ``data`` is the old one, if there is one.
    ``wait``: somebody fetches it, ask again.

    ``expires_in`` and ``renew_in`` are seconds from now, of ``data``.
    """

    state: Literal["kept", "yours", "wait"]
    data: dict[str, Any] | None = Field(default=None, repr=False)
    expires_in: float = 0.0
    renew_in: float = 0.0


class TokenPut(TokenRequest):
    """The value that a worker fetched in its turn; None gives the turn back."""

    data: dict[str, Any] | None = Field(default=None, repr=False)
    ttl: float = Field(default=3600.0, gt=0)
    kind: str = Field(default="token", max_length=100)
    auto_renew: bool = False


class TokenPutAnswer(Wire):
    """Accepted, or refused because the turn is no longer that worker's."""

    accepted: bool
    renew_in: float = 0.0


class KeychainPut(Wire):
    """A value that a client keeps under an entry's name. ``ttl_seconds`` and ``expires_at`` exclude
    each other."""

    token_data: dict[str, Any] = Field(repr=False)
    credential_type: str = Field(default="generic", max_length=100)
    cache_type: Literal["token", "secret"] = "token"
    scope_type: Literal["local", "shared", "global"] = "global"
    execution_id: Id | None = None
    parent_execution_id: Id | None = None
    ttl_seconds: float | None = Field(default=None, gt=0, le=315_360_000)
    expires_at: datetime | None = None
    auto_renew: bool = False
    renew_config: dict[str, Any] | None = Field(default=None, repr=False)


class KeychainRow(Wire):
    """What is shown of a kept value: every secret field of ``token_data`` is masked.

    ``status`` is success, expired or not_found.
    """

    status: Literal["success", "expired", "not_found"]
    keychain_name: str
    catalog_id: Id
    cache_key: str | None = None
    scope_type: str | None = None
    execution_id: Id | None = None
    parent_execution_id: Id | None = None
    credential_type: str | None = None
    cache_type: str | None = None
    token_data: dict[str, Any] | None = None
    expires_at: datetime | None = None
    ttl_seconds: float | None = None
    created_at: datetime | None = None
    accessed_at: datetime | None = None
    access_count: int | None = None
    auto_renew: bool | None = None
    renew_config: dict[str, Any] | None = None


class KeychainKept(Wire):
    status: Literal["success"] = "success"
    cache_key: str
    expires_at: datetime


class KeychainDeleted(Wire):
    status: Literal["success", "not_found"]
    deleted: int


class KeychainList(Wire):
    catalog_id: Id
    entries: list[KeychainRow]
    count: int
