"""What an answer outside 2xx means for a step."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from app.errors import ToolError
from app.tools.web.exchange import shown


def failure(message: httpx2.Request, response: httpx2.Response, data: Any) -> ToolError:
    """The error that *response* is; *data* is what the step keeps of it all the same."""
    status = response.status_code
    kind, retryable = kind_of(status)
    details: dict[str, Any] = {
        "http": {"status": status, "headers": dict(response.headers)},
        # Rules ask for it by each of these names.
        **dict.fromkeys(("status_code", "http_status", "status"), status),
    }
    wait = retry_after(response.headers.get("retry-after"), time.time())
    if wait is not None:
        details["retry_after"] = wait
    return ToolError(
        f"HTTP {status} {response.reason_phrase} from {message.method} {shown(response.url)}",
        kind=kind,
        retryable=retryable,
        error_code=f"HTTP_{status}",
        details=details,
        data=data,
    )


def kind_of(status: int) -> tuple[str, bool]:
    """The kind of error that *status* is, and whether the same request may succeed later."""
    # 408, 429 and 5xx ask for patience; the other 4xx are our mistake, 3xx one of the playbook.
    known = {401: "auth", 403: "auth", 404: "not_found", 408: "timeout", 429: "rate_limit"}
    if status >= 500:
        return "server_error", True
    return known.get(status, "client_error"), status in {408, 429}


def retry_after(header: str | None, now: float) -> float | None:
    """The seconds that *header* asks to wait: a number, or a date seen from *now* (Unix time).

    None where it says nothing that could be waited for.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError):
        return None
    return max(0.0, round(when.timestamp() - now, 3))
