"""A file from the web, for tools that need its bytes: program text, data to load."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2

from app.errors import ToolError
from app.tools import Context
from app.tools.web.exchange import Manner, exchange, shown
from app.tools.web.status import failure

FETCH_TIMEOUT = 60.0
_HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "callboard"}


def fetch(
    url: str,
    context: Context,
    limit: int,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = FETCH_TIMEOUT,
) -> bytes:
    """The bytes at *url*, *limit* at most, unpacked; redirects are followed.

    Where it may lead is what the ``http`` tool allows. *headers* go to its own host only. Raises
    ``ToolError``: kind resource where there is more, by status where the answer is outside 2xx.
    """
    own = {name.lower(): value for name, value in (headers or {}).items()}
    message = get_request(url, {**_HEADERS, **own})
    manner = Manner(min(timeout, context.timeout), secret=frozenset(own))
    with exchange(message, context, manner) as response:
        if not response.is_success:
            raise failure(message, response, None)
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > limit:
                raise ToolError(
                    f"{shown(message.url)} is larger than the {limit} bytes allowed",
                    kind="resource",
                )
        return bytes(content)


def get_request(url: str, headers: Mapping[str, str]) -> httpx2.Request:
    """A GET of *url*. Raises ``ToolError`` (kind schema) where it is none for HTTP."""
    try:
        message = httpx2.Request("GET", url, headers=dict(headers))
    except (httpx2.InvalidURL, TypeError, ValueError) as exc:
        raise ToolError(f"the request cannot be built: {exc}", kind="schema") from exc
    check_place(message.url)
    return message


def check_place(url: httpx2.URL) -> None:
    """Raise ``ToolError`` where *url* is nothing that a request could be sent to."""
    if url.scheme not in {"http", "https"} or not url.host:
        raise ToolError(
            f"{shown(url)} is not a URL to send a request to; it needs http:// or https:// and a "
            "host",
            kind="schema",
        )
