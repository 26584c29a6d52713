"""Who may do what. Every route passes through ``authorise``; what is not named here is for clients."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Request

from app.errors import ForbiddenError, UnauthorizedError
from app.settings import Settings

#: Answer to everybody: they say whether the server lives, and nothing about what it holds.
PUBLIC = frozenset({"/", "/livez", "/readyz", "/health", "/api/health", "/metrics"})
#: All that the token of a worker pool opens.
WORKER = frozenset(
    {
        "/api/worker/exchange",
        "/api/worker/claim",
        "/api/worker/report",
        "/api/worker/values",
        "/api/worker/logs",
        "/api/worker/secret",
        "/api/worker/keychain/take",
        "/api/worker/keychain/put",
        "/api/worker/artifacts",
        "/api/worker/beat",
        "/api/worker/pool/register",
        "/api/worker/pool/heartbeat",
        "/api/worker/pool/deregister",
    }
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent the request. ``pool`` is the only one a worker's token may work for."""

    role: Literal["public", "client", "worker"]
    pool: str | None = None


_CALLER = "callboard.caller"
PUBLIC_CALLER = Caller("public")
CLIENT = Caller("client")


class Access:
    """The rules of one server. With no token at all it serves this machine's programs only."""

    def __init__(self, settings: Settings) -> None:
        self._client_token = (settings.api_token or "").encode()
        self._workers = {
            token.encode(): Caller("worker", pool)
            for token, pool in settings.pool_tokens.items()
            if token and pool
        }
        self._hosts = frozenset(
            name.strip().lower() for name in settings.allowed_hosts.split(",") if name.strip()
        )

    def admit(self, path: str, headers: Mapping[str, str]) -> Caller:
        """The caller of *path*. Raises ``UnauthorizedError`` or ``ForbiddenError``."""
        if path in PUBLIC:
            return PUBLIC_CALLER
        token = _bearer(headers.get("authorization"))
        caller = self._known(token) if token else None
        if caller is None:
            return self._unknown(path, token, headers)
        if caller.role == "worker" and path not in WORKER:
            raise ForbiddenError(
                "this token may only claim, report and beat for its pool",
                remedy="use the clients' token (CALLBOARD_API_TOKEN)",
            )
        return caller

    def _known(self, token: bytes) -> Caller | None:
        found = CLIENT if hmac.compare_digest(token, self._client_token) else None
        for known, caller in self._workers.items():
            # All are compared, so that time does not tell which one was close.
            if hmac.compare_digest(token, known):
                found = found or caller
        return found

    def _unknown(self, path: str, token: bytes, headers: Mapping[str, str]) -> Caller:
        """A caller without a known token: let in only where no token is asked for."""
        needs_token = self._client_token or (self._workers and (path in WORKER or token))
        if needs_token:
            raise UnauthorizedError(
                "the token is not known" if token else "a token is needed",
                remedy="send 'Authorization: Bearer …' with the token the server was started with",
            )
        self._check_origin(headers)
        return CLIENT

    def _check_origin(self, headers: Mapping[str, str]) -> None:
        """Without tokens only the browser's word keeps web pages of others out (DNS rebinding)."""
        host = headers.get("host", "").strip().lower()
        if not self._is_local(_name_of(host)):
            raise ForbiddenError(
                f"the Host {host!r} is not a name of this server",
                remedy="use localhost, or add the name to CALLBOARD_ALLOWED_HOSTS",
            )
        origin = headers.get("origin")
        if origin is None:
            return
        authority = _authority_of(origin)
        if authority != host and _name_of(authority) not in self._hosts:
            raise ForbiddenError(
                f"pages of the Origin {origin!r} may not call this server",
                remedy="add its host to CALLBOARD_ALLOWED_HOSTS",
            )

    def _is_local(self, name: str) -> bool:
        return bool(name) and (name in self._hosts or is_loopback(name))


async def authorise(request: Request) -> Caller:
    """The dependency in front of every route; see ``Access.admit``."""
    access: Access = request.app.state.access
    caller = access.admit(request.scope["path"], request.headers)
    request.scope[_CALLER] = caller
    return caller


def caller_of(request: Request) -> Caller:
    """Whom ``authorise`` let in; a route it did not stand before fails here."""
    caller: Caller = request.scope[_CALLER]
    return caller


CallerDep = Annotated[Caller, Depends(authorise)]


def is_loopback(name: str) -> bool:
    """Whether *name* can only mean this machine."""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _bearer(header: str | None) -> bytes:
    """The token; empty where there is none. ASGI servers hand headers over as Latin-1."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip().encode("latin-1", "replace") if scheme.lower() == "bearer" else b""


def _name_of(authority: str) -> str:
    """The host of ``host:port`` or ``[::1]:port``."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def _authority_of(origin: str) -> str:
    """``host:port`` of an origin; empty for ``null`` and for what is not one."""
    try:
        return urlsplit(origin.strip().lower()).netloc
    except ValueError:
        return ""
