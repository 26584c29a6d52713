"""Kept HTTP connections of one server, for calls whose bodies are whole.

A worker calls once per step, and urllib3 takes 0.15 ms of CPU for a call, most of it to read headers
as if they were e-mail. Here a request is one write, and answers are read by the parser that our server
reads requests with. What is streamed, either way, still goes through urllib3.
"""

from __future__ import annotations

import re
import socket
import ssl
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import httptools
from urllib3.util import parse_url, wait_for_read

from app.errors import BadRequestError

#: Seconds to wait for a connection, if a call may not take less.
CONNECT = 5.0
_PIECE = 1 << 16
#: Bytes that an answer may take to come to its body.
_HEAD = 1 << 18
_PORTS = {"http": 80, "https": 443}
_TARGET = re.compile(r"[!-~]+")
#: Below are answers that announce another one.
_FINAL = 200


class NotConnectedError(OSError):
    """There is no connection: nothing was sent."""


class Answer(NamedTuple):
    """What the server said. Names of headers are in small letters; of repeated ones the last counts."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Connections:
    """Up to *most* connections that wait for their next call; safe to share between threads.

    *headers* go with every call. One that the server closed while it waited is noticed before it is used.
    """

    def __init__(self, url: str, headers: Mapping[str, str], *, most: int) -> None:
        parts = parse_url(url)  # whose hosts are ASCII
        self._host = (parts.host or "").strip("[]")
        self._port = parts.port or _PORTS[parts.scheme or "http"]
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._headers = f"host: {parts.netloc}\r\n{_lines(headers)}"
        self._most = most
        self._waiting: list[_Connection] = []
        self._is_closed = False
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._waiting)

    def call(
        self,
        method: str,
        target: str,
        body: bytes | None,
        headers: Mapping[str, str],
        *,
        timeout: float,
    ) -> Answer:
        """One request and its answer, each pause of which may take *timeout* seconds.

        Raises ``BadRequestError`` for what is no request, ``NotConnectedError``, ``TimeoutError``, and
        ``OSError`` for a connection that broke and for an answer that is none.
        """
        if not _TARGET.fullmatch(target):
            raise BadRequestError(f"{target!r} is not a path of an API")
        size = "" if body is None else f"content-length: {len(body)}\r\n"
        head = f"{method} {target} HTTP/1.1\r\n{self._headers}{_lines(headers)}{size}\r\n"
        request = head.encode("ascii") + (body or b"")
        connection = self._take() or self._connect(timeout)
        try:
            answer, stays = connection.exchange(request, timeout)
        except BaseException:
            connection.close()  # nobody knows what is still to come
            raise
        self._keep(connection, stays=stays)
        return answer

    def close(self) -> None:
        """Close the connections that wait, and those in use after their call; there is no other."""
        with self._lock:
            self._is_closed = True
            _close(self._waiting)

    def _take(self) -> _Connection | None:
        while True:
            with self._lock:
                if self._is_closed:
                    raise ConnectionError("it was closed on this side")
                if not self._waiting:
                    return None
                connection = self._waiting.pop()
            if not connection.is_readable:
                return connection
            connection.close()  # what comes unasked is a farewell

    def _keep(self, connection: _Connection, *, stays: bool) -> None:
        with self._lock:
            stays = stays and not self._is_closed and len(self._waiting) < self._most
            if stays:
                self._waiting.append(connection)
        if not stays:
            connection.close()

    def _connect(self, timeout: float) -> _Connection:
        try:
            plain = socket.create_connection((self._host, self._port), min(timeout, CONNECT))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                return _Connection(plain)
            try:
                return _Connection(
                    self._tls.wrap_socket(plain, server_hostname=self._host.rstrip("."))
                )
            except BaseException:
                plain.close()
                raise
        except (ssl.SSLError, TimeoutError):
            raise
        except (OSError, UnicodeError) as exc:  # the latter: of what can be no name of a host
            raise NotConnectedError(str(exc)) from exc


class _Connection:
    """One connection, at which one call is under way at most."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def exchange(self, request: bytes, timeout: float) -> tuple[Answer, bool]:
        """The answer, and whether another request may follow."""
        self._socket.settimeout(timeout)
        is_sent = False
        # A proxy may refuse a body before it has come, and hang up: what it said can still be read.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(request)
            is_sent = True
        reading = _Reading()
        while not reading.is_whole:
            data = self._socket.recv(_PIECE)
            if data:
                reading.feed(data)
            else:
                reading.end()
        return reading.answer(), reading.stays and is_sent

    @property
    def is_readable(self) -> bool:
        return wait_for_read(self._socket, timeout=0)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.close()


class _Reading:
    """An answer as it comes. Raises ``OSError`` for what is none."""

    def __init__(self) -> None:
        self.is_whole = False
        #: Whether the connection is of use after it.
        self.stays = False
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self._has_head = self._lasts_to_the_end = False
        self._before_body = 0
        self._parser = httptools.HttpResponseParser(self)

    def answer(self) -> Answer:
        """What came; this ends the reading."""
        status = self._parser.get_status_code()
        # It holds us as we hold it: what came would stay until the next collection of garbage.
        del self._parser
        return Answer(status, self._headers, b"".join(self._pieces))

    def feed(self, data: bytes) -> None:
        self._before_body += 0 if self._has_head else len(data)
        if self._before_body > _HEAD:
            raise OSError("the head of its answer does not end")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as exc:
            raise OSError("what answers goes on in another protocol") from exc
        except httptools.HttpParserError as exc:
            if not isinstance(exc.__context__, Exception | None):
                raise exc.__context__ from None  # Ctrl-C, while the parser called us
            raise OSError(f"what answers does not speak HTTP: {exc}") from exc

    def end(self) -> None:
        """The server has closed the connection."""
        if not self._lasts_to_the_end:
            raise ConnectionError("it was closed before the answer was whole")
        self.is_whole = True

    # ------------------------------------------------------------------ called by the parser
    def on_message_begin(self) -> None:
        if self.is_whole:
            raise OSError("more than one answer came")
        self._headers, self._pieces = {}, []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._has_head = self._parser.get_status_code() >= _FINAL
        self._lasts_to_the_end = self._has_head and not (
            self._headers.keys() & {"content-length", "transfer-encoding"}
        )

    def on_body(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def on_message_complete(self) -> None:
        # What is only informed of is followed by the answer.
        if self._parser.get_status_code() >= _FINAL:
            self.is_whole, self.stays = True, self._parser.should_keep_alive()


def _close(connections: list[_Connection]) -> None:
    while connections:
        connections.pop().close()


def _lines(headers: Mapping[str, str]) -> str:
    """*headers* as lines. Raises ``BadRequestError`` for one that would be more than a line."""
    for name, value in headers.items():
        if not value.isprintable() or not value.isascii():
            raise BadRequestError(f"the header {name} takes one line of plain ASCII")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
