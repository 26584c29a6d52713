"""The network as HTTP requests may use it: checked addresses, one deadline, and a way to stop.

A request's deadline covers everything from the lookup of the name to the last byte (the timeouts of
an HTTP library count each read anew), and a cancelled attempt gives up its connection at once.
Addresses are checked where the connection is made, after the lookup, hence also on every redirect.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2

from app.errors import ToolError
from app.tools import Context

#: How often a waiting read looks whether its attempt was cancelled, in seconds.
GLANCE = 0.2

#: Where clouds and hosts keep what no playbook should read: the metadata services' addresses.
REFUSED = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32")
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Stopped(Exception):  # noqa: N818 (an outcome, answered by who asked for it)
    """The request was given up; ``error`` says why."""

    def __init__(self, error: ToolError) -> None:
        super().__init__(str(error))
        self.error = error


class _Now(threading.local):
    """The request that this thread works on."""

    context: Context | None = None
    deadline: float = float("inf")
    timeout: float = float("inf")


_now = _Now()


@contextmanager
def request_of(context: Context, timeout: float) -> Iterator[None]:
    """All that this thread does on the network inside the block belongs to one request."""
    _now.context, _now.timeout, _now.deadline = context, timeout, time.monotonic() + timeout
    try:
        yield
    finally:
        _now.context, _now.deadline = None, float("inf")


def time_left(most: float | None = None) -> float:
    """Seconds this request still has. Raises ``Stopped`` where it was cancelled or has none."""
    if _now.context is not None and _now.context.cancelled.is_set():
        raise Stopped(ToolError("the step was cancelled and its request closed", kind="cancelled"))
    left = _now.deadline - time.monotonic()
    if left <= 0:
        raise Stopped(
            ToolError(
                f"no complete answer after {_now.timeout:g} seconds", kind="timeout", retryable=True
            )
        )
    return left if most is None else min(left, most)


def is_refused(address: Address) -> bool:
    """Whether *address*, or the IPv4 address inside it, is one of the refused ones."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_refused(inner)
    return any(address in network for network in REFUSED if network.version == address.version)


class Backend(httpcore2.NetworkBackend):
    """Connects to checked addresses only."""

    def __init__(self) -> None:
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        error: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in _checked(host, port):
            try:
                inner = self._inner.connect_tcp(
                    address, port, time_left(timeout), local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as exc:
                error = exc
                continue
            return Stream(inner)
        time_left()
        raise error


class Stream(httpcore2.NetworkStream):
    """A connection that keeps the deadline of the request that uses it."""

    def __init__(self, inner: httpcore2.NetworkStream) -> None:
        self._inner = inner

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 (the deadline decides)
        while True:
            piece = time_left(GLANCE)
            try:
                return self._inner.read(max_bytes, piece)
            except httpcore2.ReadTimeout:
                continue

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 (the deadline decides)
        self._within(lambda left: self._inner.write(buffer, left))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 (the deadline decides)
    ) -> httpcore2.NetworkStream:
        return Stream(
            self._within(lambda left: self._inner.start_tls(ssl_context, server_hostname, left))
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def _within(self, action: Callable[[float], Any]) -> Any:
        try:
            return action(time_left())
        except httpcore2.TimeoutException:
            time_left()
            raise


def _checked(host: str, port: int) -> list[str]:
    """The addresses of *host*. Raises ``Stopped`` where one of them is refused."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise httpcore2.ConnectError(f"the name {host} cannot be resolved: {exc}") from exc
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if is_refused(ipaddress.ip_address(address.partition("%")[0])):
            raise Stopped(
                ToolError(
                    f"{host} is at {address}, a link-local or metadata address, which playbooks "
                    "may not reach",
                    kind="client_error",
                    error_code="refused_address",
                )
            )
    return addresses
