"""One pool of HTTP connections per worker process, on the guarded network."""

from __future__ import annotations

import atexit
import os
import ssl
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import IO
from urllib.parse import unquote, urlsplit

import h2.exceptions
import httpcore2
import httpx2

from app.errors import ToolError
from app.settings import Settings
from app.tools.web.guard import Backend
from app.tools.web.policy import Policy, policy_of

MAX_IDLE = 50
KEEP = 30.0
#: Methods that may be sent twice without harm (RFC 9110).
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
#: How often a request is sent again because a kept connection turned out to be gone.
_TRIES = 3


class Stale(httpcore2.NetworkError):
    """A connection that had been kept was gone before the answer began."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Who we are towards a server: certificate and key as PEM text; ``authority`` whom we trust."""

    chain: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    authority: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Route:
    """What all requests of one pool have in common."""

    verify: bool
    policy: Policy
    proxy: str | None = field(default=None, repr=False)


class Transport:
    """A pool of connections. Errors are those of httpcore2."""

    def __init__(self, route: Route, certificate: Certificate | None = None) -> None:
        proxy, place = _proxy(route.proxy)
        self._backend = Backend(route.policy, place)
        self._checks_itself = proxy is not None
        self._pool = _Pool(
            ssl_context=_trust(route.verify, certificate),
            proxy=proxy,
            # The threads of the worker bound it; to wait for a connection could not be cancelled.
            max_connections=None,
            max_keepalive_connections=MAX_IDLE,
            keepalive_expiry=KEEP,
            http2=True,
            network_backend=self._backend,
        )

    def handle(self, request: httpx2.Request) -> httpx2.Response:
        """The answer to *request*, its body not read yet; it must be closed."""
        assert isinstance(request.stream, httpx2.SyncByteStream)
        url = request.url
        if self._checks_itself:
            self._check(url)
        response = self._sent(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
            ),
            _TRIES if request.method in _REPEATABLE else 1,
        )
        assert isinstance(response.stream, Iterable)
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Content(response),
            request=request,
            extensions=response.extensions,
        )

    def _sent(self, request: httpcore2.Request, tries: int) -> httpcore2.Response:
        """A server may hang up on a kept connection at the moment it is used again."""
        while True:
            try:
                return self._pool.handle_request(request)
            except Stale:
                tries -= 1
                if tries <= 0:
                    raise

    def _check(self, url: httpx2.URL) -> None:
        """A proxy connects for us. What we can know of the place is checked here."""
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            self._backend.checked(url.host, port)
        except httpcore2.ConnectError:
            # A name that only the proxy knows.
            return

    def close(self) -> None:
        self._pool.close()


class _Pool(httpcore2.ConnectionPool):
    """Gives each connection one request at a time.

    HTTP/2 could carry several, but the library guards neither its table of streams nor its header
    compression against other threads, and one request's deadline would end its neighbours.
    """

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.ConnectionInterface:
        return _Alone(super().create_connection(origin))


class _Alone(httpcore2.ConnectionInterface):
    """A connection that is available only while it has nothing to do."""

    def __init__(self, inner: httpcore2.ConnectionInterface) -> None:
        self._inner = inner
        self._stream: httpcore2.NetworkStream | None = None

    def handle_request(self, request: httpcore2.Request) -> httpcore2.Response:
        is_kept = self._stream is not None
        try:
            response = self._inner.handle_request(request)
        except (httpcore2.ReadError, httpcore2.WriteError, httpcore2.RemoteProtocolError) as exc:
            if is_kept and _is_end(exc):
                raise Stale(str(exc)) from exc
            raise
        self._stream = response.extensions.get("network_stream")
        return response

    def close(self) -> None:
        self._inner.close()

    def info(self) -> str:
        return self._inner.info()

    def can_handle_request(self, origin: httpcore2.Origin) -> bool:
        return self._inner.can_handle_request(origin)

    def is_available(self) -> bool:
        return self._inner.is_connected() and self._inner.is_idle() and self._inner.is_available()

    def can_multiplex(self) -> bool:
        return False

    def has_expired(self) -> bool:
        if self._inner.has_expired():
            return True
        # The server has hung up, or says something that nobody would read in time.
        idle = self._inner.is_idle() and self._stream is not None
        return idle and bool(self._stream and self._stream.get_extra_info("is_readable"))

    def is_idle(self) -> bool:
        return self._inner.is_idle()

    def is_closed(self) -> bool:
        return self._inner.is_closed()

    def is_connected(self) -> bool:
        return self._inner.is_connected()


def _is_end(exc: Exception) -> bool:
    """Whether the connection ended, rather than said something wrong."""
    return not isinstance(exc, httpcore2.RemoteProtocolError) or "disconnected" in str(exc)


class _Content(httpx2.SyncByteStream):
    """The body of an answer. Given up before its end, it takes the connection along."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._response.iter_stream()
        except h2.exceptions.ProtocolError as exc:
            # The one error that the library lets through untranslated.
            raise httpcore2.RemoteProtocolError(str(exc)) from exc
        self._ended = True

    def close(self) -> None:
        if not self._ended and self._response.extensions.get("http_version") == b"HTTP/2":
            # The next request would have to read, and count, what still comes for this one.
            self._response.extensions["network_stream"].close()
        self._response.close()


@cache
def _default_trust(*, verify: bool) -> ssl.SSLContext:
    """Reading the authorities takes some 20 ms: once per process."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _trust(verify: bool, certificate: Certificate | None) -> ssl.SSLContext:
    if certificate is None:
        return _default_trust(verify=verify)
    context = ssl.create_default_context(cadata=certificate.authority)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate.chain:
        with ExitStack() as stack:
            chain = stack.enter_context(_file(certificate.chain))
            key = stack.enter_context(_file(certificate.key or certificate.chain))
            context.load_cert_chain(chain, key, password=certificate.password or _no_password)
    return context


def _no_password() -> str:
    # Otherwise OpenSSL asks for it on the terminal.
    raise ToolError("the key of the certificate is encrypted; give key_password", kind="auth")


@contextmanager
def _file(text: str) -> Iterator[str]:
    """A path that OpenSSL can read *text* from; no folder ever lists it."""
    with _anonymous() as file:
        file.write(text.encode())
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _anonymous() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pem"), "w+b")
    return tempfile.TemporaryFile()


def _proxy(url: str | None) -> tuple[httpcore2.Proxy | None, tuple[str, int] | None]:
    if not url:
        return None, None
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ToolError(
            "CALLBOARD_HTTP_PROXY is no http:// URL with a host; correct or unset it", kind="schema"
        )
    place = (parts.hostname, parts.port or 80)
    auth = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    host = f"[{place[0]}]" if ":" in place[0] else place[0]
    return httpcore2.Proxy(f"http://{host}:{place[1]}", auth=auth), place


_lock = threading.Lock()
_transports: dict[tuple[int, Route], Transport] = {}


@contextmanager
def transport(
    settings: Settings, *, verify: bool = True, certificate: Certificate | None = None
) -> Iterator[Transport]:
    """The transport of this process; one of its own, closed after use, where keys are involved."""
    route = Route(verify, policy_of(settings), settings.http_proxy)
    if certificate is None:
        yield _shared(route)
        return
    try:
        own = Transport(route, certificate)
    except (ssl.SSLError, OSError, ValueError) as exc:
        raise ToolError(
            f"the client certificate cannot be used: {exc} (cert, key and ca are PEM text)",
            kind="auth",
        ) from None
    try:
        yield own
    finally:
        own.close()


def _shared(route: Route) -> Transport:
    # By process id: connections must not be shared with the process we were forked from.
    key = (os.getpid(), route)
    known = _transports.get(key)
    if known is None:
        with _lock:
            known = _transports.get(key) or _transports.setdefault(key, Transport(route))
    return known


def close() -> None:
    """Close the idle connections of this process."""
    with _lock:
        for key in [key for key in _transports if key[0] == os.getpid()]:
            _transports.pop(key).close()


atexit.register(close)
