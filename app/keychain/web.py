"""Requests to those who keep secrets and hand out tokens: no proxy, no redirect, one deadline.

An error tells who answered and how, never what was sent or said: both may hold a secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from app.errors import ToolError
from app.keychain.address import checked_url, host_of

#: Seconds for one request, from the lookup of the name to the last byte.
PATIENCE = 15.0
#: Errors of OAuth (RFC 6749 and its kin) that may be repeated: they are words of a fixed list.
OAUTH = frozenset(
    {
        "access_denied", "invalid_client", "invalid_grant", "invalid_request", "invalid_scope",
        "invalid_target", "server_error", "temporarily_unavailable", "unauthorized_client",
        "unsupported_grant_type",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back with a status of 2xx."""

    url: str
    content: bytes = field(repr=False)

    def json(self) -> Any:
        """The content as JSON. Raises ``ToolError`` without it."""
        try:
            return json.loads(self.content)
        except ValueError:
            # Without the cause: it holds what was sent.
            raise ToolError(f"{host_of(self.url)} answered something other than JSON") from None

    def object(self) -> dict[str, Any]:
        """The content as a JSON object. Raises ``ToolError``."""
        data = self.json()
        if not isinstance(data, dict):
            raise ToolError(f"{host_of(self.url)} answered no JSON object")
        return data


@dataclass(frozen=True, slots=True)
class Web:
    """Sends requests; keeps no connection."""

    patience: float = PATIENCE
    #: Raises ``ToolError`` where a host, which is at an address, may not be reached on a port.
    check: Callable[[str, str, int], None] | None = None

    def get(self, url: str, headers: Mapping[str, str], *, metadata: bool = False) -> Answer:
        """*metadata*: the machine's own metadata service is meant, which is refused otherwise."""
        return self.send("GET", url, headers, metadata=metadata)

    def form(self, url: str, fields: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        """Post *fields* as a form."""
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.send("POST", url, {**kind, **headers}, urlencode(fields).encode())

    def json(self, url: str, data: Any, headers: Mapping[str, str]) -> Answer:
        """Post *data* as JSON."""
        kind = {"content-type": "application/json"}
        return self.send("POST", url, {**kind, **headers}, json.dumps(data).encode())

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | None = None,
        *,
        metadata: bool = False,
    ) -> Answer:
        """One request and its answer. Raises ``ToolError`` for anything but a status of 2xx."""
        checked_url(url)
        lines = {"accept": "application/json", "user-agent": "callboard", **headers}
        from app.keychain import network  # takes long to import, and is seldom needed

        status, body = network.exchange(
            method,
            url,
            [(name.encode(), _line(name, value)) for name, value in lines.items()],
            content,
            checks=() if metadata else (network.refuse_metadata, self.check),
            patience=self.patience,
        )
        if not 200 <= status < 300:
            raise _refused(url, status, body)
        return Answer(url, body)


def _line(name: str, value: Any) -> bytes:
    text = str(value)
    if "\n" in text or "\r" in text or not text.isascii():
        raise ToolError(f"the header {name!r} of a request for a secret is none", kind="auth")
    return text.strip().encode()


# ---------------------------------------------------------------------- errors
def _refused(url: str, status: int, body: bytes) -> ToolError:
    said = _word(body)
    message = f"{host_of(url)} answered {status}" + (f" ({said})" if said else "")
    details = {"http": {"status": status}}
    code = str(status)
    if status in {401, 403} or said:
        return ToolError(
            f"{message}: is the credential right?", kind="auth", error_code=code, details=details
        )
    if status == 404:
        return ToolError(message, kind="not_found", error_code=code, details=details)
    if status == 429:
        return ToolError(
            message, kind="rate_limit", retryable=True, error_code=code, details=details
        )
    if status >= 500:
        return ToolError(
            message, kind="connection", retryable=True, error_code=code, details=details
        )
    return ToolError(message, kind="client_error", error_code=code, details=details)


def _word(body: bytes) -> str | None:
    """The error of OAuth that *body* holds; nothing else of it may be told."""
    try:
        data = json.loads(body)
    except ValueError:
        return None
    said = data.get("error") if isinstance(data, dict) else None
    return said if isinstance(said, str) and said in OAUTH else None
