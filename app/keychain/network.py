"""The network that requests for secrets go over: checked addresses, no proxy, one deadline."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import httpcore2

from app.errors import ToolError
from app.keychain.address import host_of

#: Bytes of an answer.
MOST = 4_194_304
#: Each raises ``ToolError`` for a host, its address and a port that may not be reached.
Checks = Sequence[Callable[[str, str, int], None] | None]

#: Where clouds tell a machine who it is.
_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32")
)


def exchange(
    method: str,
    url: str,
    headers: Sequence[tuple[bytes, bytes]],
    content: bytes | None,
    *,
    checks: Checks,
    patience: float,
) -> tuple[int, bytes]:
    """The status and the content of the answer. Raises ``ToolError`` where there is none in time, and
    where one of *checks* raises it for an address."""
    deadline = time.monotonic() + patience
    times = dict.fromkeys(("connect", "read", "write", "pool"), patience)
    try:
        with (
            _pool(checks) as pool,
            pool.stream(
                method, url, headers=headers, content=content, extensions={"timeout": times}
            ) as response,
        ):
            return response.status, _body(response.iter_stream(), url, deadline)
    except httpcore2.TimeoutException:
        raise _late(url) from None
    except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError, _RefusedError) as exc:
        raise _unreached(url, exc) from None


class _RefusedError(Exception):
    """An address that playbooks may not reach."""


class _Backend(httpcore2.SyncBackend):
    """Connects to checked addresses."""

    def __init__(self, checks: Checks) -> None:
        self._checks = checks

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        error: Exception = httpcore2.ConnectError("it has no address")
        for address in _addresses(host, port, self._checks):
            try:
                return super().connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                error = exc
        raise error


def _addresses(host: str, port: int, checks: Checks) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise httpcore2.ConnectError("its name cannot be resolved") from exc
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        for check in checks:
            try:
                if check is not None:
                    check(host, address, port)
            except ToolError as exc:
                raise _RefusedError(exc.message) from None
    return addresses


def refuse_metadata(_host: str, text: str, _port: int) -> None:
    """Raise ``ToolError`` for the address of a metadata service."""
    address = ipaddress.ip_address(text.partition("%")[0])
    inner = getattr(address, "ipv4_mapped", None) or address
    if any(inner in network for network in _METADATA if network.version == inner.version):
        raise ToolError("it is at a link-local or metadata address")


def _pool(checks: Checks) -> httpcore2.ConnectionPool:
    # Requests are rare, and a kept connection would have to be closed by somebody.
    return httpcore2.ConnectionPool(
        ssl_context=_tls(),
        max_keepalive_connections=0,
        network_backend=_Backend(checks),
    )


@cache
def _tls() -> ssl.SSLContext:
    # Reading the system's certificates takes 20 ms.
    return ssl.create_default_context()


def _body(pieces: Iterable[bytes], url: str, deadline: float) -> bytes:
    parts, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > MOST:
            raise ToolError(f"{host_of(url)} answered more than {MOST} bytes", kind="resource")
        if time.monotonic() > deadline:
            raise _late(url)
        parts.append(piece)
    return b"".join(parts)


def _late(url: str) -> ToolError:
    return ToolError(f"{host_of(url)} did not answer in time", kind="timeout", retryable=True)


def _unreached(url: str, exc: Exception) -> ToolError:
    if isinstance(exc, _RefusedError):
        message = f"{host_of(url)} may not be asked for secrets: {exc}"
        return ToolError(message, kind="client_error", error_code="refused_address")
    reason = exc.__class__.__name__
    return ToolError(
        f"{host_of(url)} cannot be reached ({reason})", kind="connection", retryable=True
    )
