"""What an answer of the API says went wrong, as the error that the server raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from app.errors import (
    BadRequestError,
    CallboardError,
    ConflictError,
    Finding,
    ForbiddenError,
    InvalidPlaybookError,
    NotFoundError,
    TemplateError,
    UnauthorizedError,
    UnavailableError,
)

BY_CODE: Mapping[str, type[CallboardError]] = {
    cls.code: cls
    for cls in (
        NotFoundError,
        ConflictError,
        BadRequestError,
        UnauthorizedError,
        ForbiddenError,
        TemplateError,
    )
}
BY_STATUS: Mapping[int, type[CallboardError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
}
#: What a proxy answers while the server behind it is away.
AWAY = frozenset({502, 503, 504})
#: What else a proxy may answer for a while.
TRANSIENT = frozenset({408, 425, 429})


def error_of(
    status: int, body: bytes, headers: Mapping[str, str], *, url: str = "the server"
) -> CallboardError:
    """The error that a problem document describes, or the best guess from the status."""
    try:
        data = orjson.loads(body)
    except ValueError:
        data = None
    ours = isinstance(data, dict) and isinstance(data.get("detail"), str)
    if not ours:
        data = {"detail": f"{url} answered {status}"}
    message, code, remedy = data["detail"], str(data.get("code", "")), data.get("remedy")
    if code == InvalidPlaybookError.code and isinstance(data.get("findings"), list):
        findings = [_finding(item) for item in data["findings"]]
        return InvalidPlaybookError(findings, source=str(data.get("source", "playbook")))
    # Something in between answered, not our server: what was asked is still open.
    foreign = not ours and status in TRANSIENT
    if code == UnavailableError.code or status in AWAY or foreign:
        return UnavailableError(message, remedy=remedy, retry_after=_seconds(headers))
    cls = BY_CODE.get(code) or BY_STATUS.get(status)
    if cls is None:
        cls = BadRequestError if 400 <= status < 500 else CallboardError
    return cls(message, remedy=remedy)


def _finding(item: Mapping[str, Any]) -> Finding:
    return Finding(
        code=str(item.get("code", "")),
        message=str(item.get("message", "")),
        line=int(item.get("line", 0)),
        column=int(item.get("column", 0)),
        key=str(item.get("path", "")),
        severity=str(item.get("severity", "error")),
        suggestion=item.get("suggestion"),
    )


def _seconds(headers: Mapping[str, str]) -> float:
    """``Retry-After`` in seconds; its other form, a date, is not what our servers send."""
    text = headers.get("retry-after", "")
    return float(text) if text.isdigit() else 0.0
