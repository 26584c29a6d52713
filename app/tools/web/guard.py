"""The network as requests of playbooks may use it: checked addresses, one deadline, a way to stop.

A request's deadline covers everything from the lookup of the name to the last byte (the timeouts of
an HTTP library count each read anew), and a cancelled attempt gives up its connection at once: every
wait is made of short ones. Addresses are checked where the connection is made, after the lookup and
for the very address that is connected to, hence also on every redirect.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpcore2

from app.errors import ToolError
from app.tools import Context
from app.tools.web.policy import Policy

#: How often a wait looks whether its attempt was cancelled, in seconds.
GLANCE = 0.1
#: How long one of several addresses of a host may take to answer, in seconds.
ATTEMPT = 5.0

T = TypeVar("T")
_UNDER_WAY = {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR}


class Stopped(Exception):  # noqa: N818 (an outcome, answered by who asked for it)
    """The request was given up; ``error`` says why."""

    def __init__(self, error: ToolError) -> None:
        super().__init__(str(error))
        self.error = error


class _Now(threading.local):
    """The request that this thread works on."""

    cancelled: threading.Event | None = None
    deadline: float = float("inf")
    timeout: float = float("inf")


_now = _Now()


@contextmanager
def request_of(context: Context, timeout: float) -> Iterator[None]:
    """All that this thread does on the network inside the block belongs to one request."""
    _now.cancelled, _now.timeout = context.cancelled, timeout
    _now.deadline = time.monotonic() + timeout
    try:
        yield
    finally:
        _now.cancelled, _now.deadline = None, float("inf")


def time_left() -> float:
    """Seconds this request still has. Raises ``Stopped`` where it was cancelled or has none."""
    if _now.cancelled is not None and _now.cancelled.is_set():
        raise Stopped(ToolError("the step was cancelled and its request closed", kind="cancelled"))
    left = _now.deadline - time.monotonic()
    if left <= 0:
        raise Stopped(
            ToolError(
                f"no complete answer after {_now.timeout:g} seconds", kind="timeout", retryable=True
            )
        )
    return left


def _glances() -> Iterator[float]:
    """How long to wait next, in seconds, for as long as the request may go on."""
    while True:
        yield min(time_left(), GLANCE)


class Backend(httpcore2.NetworkBackend):
    """Connects to addresses that *policy* allows; those of *proxy* are the operator's choice."""

    def __init__(self, policy: Policy, proxy: tuple[str, int] | None = None) -> None:
        self._policy = policy
        self._proxy = proxy

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 (the deadline decides)
        local_address: str | None = None,  # noqa: ARG002 (the pool names none)
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 (the same)
    ) -> httpcore2.NetworkStream:
        is_proxy = (host, port) == self._proxy
        addresses = lookup(host, port) if is_proxy else self.checked(host, port)
        error: Exception = httpcore2.ConnectError(f"{host} has no address")
        for number, (family, address) in enumerate(addresses, 1):
            patience = ATTEMPT if number < len(addresses) else float("inf")
            try:
                return Stream(_connect(family, address, patience))
            except OSError as exc:
                error = httpcore2.ConnectError(f"{host}, port {port}: {exc.strerror or exc}")
        raise error

    def checked(self, host: str, port: int) -> list[tuple[int, Any]]:
        """The addresses of *host*. Raises ``Stopped`` where one of them is refused."""
        try:
            self._policy.check_name(host, port)
            found = lookup(host, port)
            for _, address in found:
                self._policy.check(host, str(address[0]), port)
        except ToolError as exc:
            raise Stopped(exc) from None
        return found


class Stream(httpcore2.NetworkStream):
    """A connection that keeps the deadline of the request that uses it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 (the deadline decides)
        try:
            return self._repeated(lambda: self._socket.recv(max_bytes))
        except OSError as exc:
            raise httpcore2.ReadError(str(exc)) from exc

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 (the deadline decides)
        rest = memoryview(buffer)
        try:
            while rest:
                rest = rest[self._repeated(lambda rest=rest: self._socket.send(rest)) :]  # type: ignore[misc]  # a lambda's default has no type
        except OSError as exc:
            raise httpcore2.WriteError(str(exc)) from exc

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 (the deadline decides)
    ) -> httpcore2.NetworkStream:
        inner = self._socket
        try:
            self._socket = ssl_context.wrap_socket(
                inner, server_hostname=server_hostname, do_handshake_on_connect=False
            )
            self._repeated(self._socket.do_handshake)
        except ssl.SSLCertVerificationError as exc:
            self.close()
            raise Stopped(_untrusted(exc)) from exc
        except (OSError, ValueError) as exc:
            self.close()
            raise httpcore2.ConnectError(str(exc)) from exc
        except BaseException:
            self.close()
            raise
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return _is_readable(self._socket)
        if info == "ssl_object":
            # It is asked for the protocol alone, which the socket knows as well.
            return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        return None

    def _repeated(self, action: Callable[[], T]) -> T:
        """What *action* gives, once it is no longer a timeout: each try is short."""
        for glance in _glances():
            self._socket.settimeout(glance)
            try:
                return action()
            except TimeoutError:
                continue
        raise AssertionError("glances end by raising")


def _untrusted(exc: ssl.SSLCertVerificationError) -> ToolError:
    # Asking again would change nothing.
    return ToolError(
        f"the server's certificate is not trusted: {exc.verify_message or exc.reason} (name its "
        "authority in SSL_CERT_FILE, or say 'verify: false' where nothing secret is sent)",
        kind="connection",
        error_code="untrusted_certificate",
    )


def lookup(host: str, port: int) -> list[tuple[int, Any]]:
    """The addresses of *host*, each with its family. Raises ``httpcore2.ConnectError``."""
    try:
        # What is written in digits asks nobody and does not wait.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        found = _asked(host, port)
    return list(dict.fromkeys((int(entry[0]), entry[4]) for entry in found))


def _asked(host: str, port: int) -> list[Any]:
    """What the resolver says. It cannot be interrupted, so a thread of its own waits for it."""
    answer: list[Any] = []
    done = threading.Event()

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as exc:
            answer.append(exc)
        done.set()

    threading.Thread(target=ask, name=f"lookup of {host}", daemon=True).start()
    for glance in _glances():
        if done.wait(glance):
            break
    if isinstance(answer[0], Exception):
        raise httpcore2.ConnectError(
            f"the name {host} cannot be resolved: {answer[0]}"
        ) from answer[0]
    return list(answer[0])


def _connect(family: int, address: Any, patience: float) -> socket.socket:
    """A connection to *address*. Raises ``OSError``, also after *patience* seconds."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code in _UNDER_WAY:
            _await(sock, patience)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, errno.errorcode.get(code, "the connection failed"))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _await(sock: socket.socket, patience: float) -> None:
    """Wait until *sock* is connected, or has failed to. Raises ``TimeoutError``."""
    until = time.monotonic() + patience
    poller = select.poll()
    poller.register(sock, select.POLLOUT)
    for glance in _glances():
        if poller.poll(glance * 1000):
            return
        if time.monotonic() > until:
            raise TimeoutError(errno.ETIMEDOUT, f"no answer after {patience:g} seconds")


def _is_readable(sock: socket.socket) -> bool:
    """Whether *sock* has something to read, or its end; so has one that was closed."""
    if sock.fileno() < 0:
        return True
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))
