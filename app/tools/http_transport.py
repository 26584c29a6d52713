"""One pool of HTTP connections per worker process, on the guarded network."""

from __future__ import annotations

import atexit
import os
import ssl
import threading
from collections.abc import Iterable, Iterator

import httpcore2
import httpx2

from app.tools.http_guard import Backend

MAX_CONNECTIONS = 200
KEEP = 30.0


class Transport(httpx2.BaseTransport):
    """httpx2's transport as its documentation builds custom ones, with ``Backend`` below it.

    Errors are those of httpcore2.
    """

    def __init__(self, *, verify: bool) -> None:
        context = ssl.create_default_context()
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._pool = httpcore2.ConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS // 4,
            keepalive_expiry=KEEP,
            network_backend=Backend(),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        assert isinstance(request.stream, httpx2.SyncByteStream)
        response = self._pool.handle_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        assert isinstance(response.stream, Iterable)
        return httpx2.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Content(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Content(httpx2.SyncByteStream):
    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


_lock = threading.Lock()
_transports: dict[tuple[int, bool], Transport] = {}


def transport(*, verify: bool) -> Transport:
    """The transport of this process."""
    # By process id: connections must not be shared with the process we were forked from.
    key = (os.getpid(), verify)
    with _lock:
        if key not in _transports:
            _transports[key] = Transport(verify=verify)
        return _transports[key]


def close() -> None:
    """Close the idle connections of this process."""
    with _lock:
        for key in [key for key in _transports if key[0] == os.getpid()]:
            _transports.pop(key).close()


atexit.register(close)
