"""One request and its answer: sent, redirects followed, the network's errors told as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpcore2
import httpx2

from app.errors import ToolError
from app.tools import Context
from app.tools.web.guard import Stopped, request_of, time_left
from app.tools.web.transport import Certificate, Transport, transport

MAX_REDIRECTS = 20
#: Headers that go to the first host only, whoever set them.
PRIVATE = frozenset({"authorization", "cookie", "proxy-authorization"})
_MOVED = frozenset({301, 302, 303, 307, 308})
_OF_BODIES = ("content-length", "transfer-encoding", "content-type", "content-encoding")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a request travels. *secret* are further headers that only its first host may see."""

    timeout: float
    verify: bool = True
    follow: bool = True
    certificate: Certificate | None = None
    secret: frozenset[str] = frozenset()


@contextmanager
def exchange(
    message: httpx2.Request, context: Context, manner: Manner
) -> Iterator[httpx2.Response]:
    """The answer to *message*, its body to be read within the block.

    ``manner.timeout`` (seconds) is for everything, the block included. Raises ``ToolError`` with
    kind connection, timeout, cancelled or client_error, also for what goes wrong in the block.
    """
    try:
        with (
            request_of(context, manner.timeout),
            transport(
                context.settings, verify=manner.verify, certificate=manner.certificate
            ) as wire,
        ):
            response = _send(wire, message, manner)
            try:
                yield response
            finally:
                response.close()
    except Stopped as exc:
        raise ToolError(
            told(message, exc),
            kind=exc.error.kind,
            retryable=exc.error.retryable,
            error_code=exc.error.error_code,
        ) from exc
    except (
        httpcore2.NetworkError,
        httpcore2.RemoteProtocolError,
        httpcore2.TimeoutException,
        httpcore2.ProxyError,
        httpx2.RemoteProtocolError,
    ) as exc:
        raise ToolError(told(message, exc), kind="connection", retryable=True) from exc
    except (httpcore2.UnsupportedProtocol, httpcore2.ProtocolError, httpx2.HTTPError) as exc:
        raise ToolError(told(message, exc), kind="client_error") from exc


def _send(wire: Transport, message: httpx2.Request, manner: Manner) -> httpx2.Response:
    """The first answer that leads nowhere else. Cookies live as long as this."""
    secret = PRIVATE | manner.secret
    first = message
    cookies: httpx2.Cookies | None = None
    for _ in range(MAX_REDIRECTS + 1):
        time_left()
        response = wire.handle(message)
        if not (manner.follow and response.status_code in _MOVED):
            return response
        try:
            following = _following(message, response)
            if following is None:
                return response
            cookies = cookies if cookies is not None else httpx2.Cookies()
            cookies.extract_cookies(response)
        except BaseException:
            response.close()
            raise
        response.close()
        if _origin(following.url) != _origin(message.url):
            for name in secret & set(following.headers):
                del following.headers[name]
        following.headers.pop("cookie", None)
        cookies.set_cookie_header(following)
        message = following
    raise ToolError(f"{shown(first.url)}: more than {MAX_REDIRECTS} redirects", kind="client_error")


def _following(message: httpx2.Request, response: httpx2.Response) -> httpx2.Request | None:
    """The request that *response* asks for; None where it names no place."""
    location = response.headers.get("location")
    if location is None:
        return None
    try:
        url = message.url.join(location)
    except (httpx2.InvalidURL, ValueError) as exc:
        raise ToolError(
            f"{shown(message.url)} redirects to what is no URL", kind="client_error"
        ) from exc
    if url.scheme not in {"http", "https"} or not url.host:
        raise ToolError(
            f"{shown(message.url)} redirects to {url.scheme or 'nowhere'}:, which is not followed",
            kind="client_error",
        )
    method, status = message.method, response.status_code
    # As browsers do: POST becomes GET where the answer is elsewhere, and keeps its body at 307, 308.
    if (status in {302, 303} and method != "HEAD") or (status == 301 and method == "POST"):
        method = "GET"
    headers = httpx2.Headers(message.headers)
    headers["host"] = url.netloc.decode("ascii")
    stream: httpx2.SyncByteStream | None = None
    if method == message.method:
        assert isinstance(message.stream, httpx2.SyncByteStream)
        stream = message.stream
    else:
        for name in _OF_BODIES:
            headers.pop(name, None)
    return httpx2.Request(method, url, headers=headers, stream=stream)


def told(message: httpx2.Request, exc: Exception) -> str:
    """What went wrong with *message*, without what its URL may hide."""
    return f"{message.method} {shown(message.url)}: {str(exc) or type(exc).__name__}"


def shown(url: httpx2.URL) -> str:
    """*url* without what may be secret: user, password and query."""
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


def without_login(url: httpx2.URL) -> str:
    """*url* as text, without a user and password."""
    return str(url.copy_with(userinfo=b"") if url.userinfo else url)


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
