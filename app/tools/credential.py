"""``credential``: tries a credential for real, where it will be used, and says what was tried.

What can only be tried with something the credential does not hold, such as the URL of a service, is
checked for its form alone, and that is what the result says: ``checked: fields only``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from app.engine.credential_types import GENERIC, check, type_named
from app.engine.credentials import secret_texts
from app.engine.masking import Masker
from app.errors import BadRequestError, ToolError
from app.tools import Context, Tool
from app.tools.auth import resolve
from app.tools.credential_logins import LOGINS
from app.tools.credential_services import SERVICES, Tried
from app.tools.times import Time, seconds

DEFAULT_TIMEOUT = 15.0
FIELDS_ONLY = "fields only"

Try = Callable[[Mapping[str, Any], Context, float], Tried | None]


class Input(BaseModel):
    """``auth``: the credential to try."""

    model_config = ConfigDict(populate_by_name=True)

    action: Literal["test"] = Field("test", description="What to do with it: `test`.")
    auth: str | dict[str, Any] = Field(
        validation_alias=AliasChoices("auth", "credential", "credentials"),
        description="The name of the credential, or its fields.",
    )
    type: str | None = Field(None, description="Its type, where it does not say itself.")
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )


@dataclass(frozen=True, slots=True)
class _Way:
    """How credentials of a type are tried; None: they are not."""

    type: str
    attempt: Try | None


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{status: ok, type, checked, duration_ms}`` and, where it tells, ``server``.

    Raises ``ToolError`` of kind auth (it is wrong) or connection (nobody could say).
    """
    started = time.perf_counter()
    fields = resolve(request.auth, context)
    masker = Masker()
    # What is a URL is shown without its path, and without who logs in there.
    hidden = {name: value for name, value in fields.items() if "://" not in str(value)}
    masker.add(*secret_texts(hidden))
    way = _way(request, fields)
    limit = min(seconds(request.timeout, DEFAULT_TIMEOUT, most=context.timeout), context.timeout)
    try:
        tried = way.attempt(fields, context, limit) if way.attempt else None
        if tried is None:
            _check_form(way.type, fields)
    except ToolError as exc:
        # Without the cause and without what was answered: both may hold what was sent.
        raise _failed(exc, way.type, masker) from None
    told: dict[str, Any] = {"status": "ok", "type": way.type}
    told["checked"] = masker.text(tried.checked) if tried else FIELDS_ONLY
    if tried and tried.server:
        told["server"] = masker.text(tried.server)
    return {**told, "duration_ms": round((time.perf_counter() - started) * 1000, 3)}


def _way(request: Input, fields: Mapping[str, Any]) -> _Way:
    named = request.type or str(fields.get("type") or "") or _guessed(fields)
    known = type_named(named)
    name = known.names[0] if known else named
    return _Way(named, {**LOGINS, **SERVICES}.get(name))


def _guessed(fields: Mapping[str, Any]) -> str:
    """The type of a credential that does not say it, where its URL does."""
    url = str(next((fields[key] for key in ("url", "dsn", "value") if fields.get(key)), ""))
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme.startswith("postgres") or "db_host" in fields:
        return "postgres"
    return "nats" if scheme in {"nats", "tls"} else GENERIC


def _check_form(kind: str, fields: Mapping[str, Any]) -> None:
    data = {name: value for name, value in fields.items() if name != "type"}
    if not data:
        raise ToolError("the credential holds nothing", kind="auth")
    try:
        check(kind, data)
    except BadRequestError as exc:
        raise ToolError(str(exc), kind="auth") from None


def _failed(exc: ToolError, kind: str, masker: Masker) -> ToolError:
    away = exc.kind in {"connection", "db_connection", "timeout", "server_error", "rate_limit"}
    away = away or exc.kind == "db_timeout"
    known = "cancelled" if exc.kind == "cancelled" else ("connection" if away else "auth")
    return ToolError(
        f"the credential (type {kind}) failed its test: {masker.text(exc.message)}",
        kind=known,
        retryable=away,
        error_code=exc.error_code,
    )


tool = Tool("credential", input=Input, run=run, queue="io")
