"""How the API is reached: connections, repetitions, and answers as data."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import urlencode, urlsplit

import orjson
import urllib3
from pydantic import BaseModel, ValidationError
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from app.client.connections import CONNECT, Answer, Connections, NotConnectedError
from app.client.problems import error_of
from app.errors import (
    BadRequestError,
    CallboardError,
    UnavailableError,
)

M = TypeVar("M", bound=BaseModel)
Json = dict[str, Any]
Pieces = Generator[bytes, None, None]

FIRST_DELAY, MAX_DELAY = 0.05, 5.0
#: Bytes of a large answer that are held at once.
PIECE = 1 << 20


class BrokenStreamError(UnavailableError):
    """An answer that had begun broke off."""


class Transport:
    """One server, its connections, and patience with it; safe to share between threads.

    Calls that may safely be sent twice are repeated with full jitter for up to *patience* seconds
    while the server is away, and no sooner than it asks for. A server that never answered this
    client is not waited for: its URL is probably wrong. *timeout* is seconds for one answer.

    Every method raises the ``CallboardError`` that the server reported, or ``UnavailableError``.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        patience: float = 10.0,
        connections: int = 32,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/api")
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise BadRequestError(
                f"{url!r} is not the URL of an API", remedy="use http://HOST:PORT"
            )
        self._prefix = parts.path
        self._timeout, self._patience = timeout, patience
        self._reached = threading.Event()
        self._headers = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "callboard",
        }
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._connections = Connections(self.url, self._headers, most=connections)
        self._streams = urllib3.connection_from_url(
            self.url,
            maxsize=connections,
            timeout=urllib3.Timeout(connect=min(timeout, CONNECT), read=timeout),
            retries=False,
        )

    def close(self) -> None:
        """Close the connections that wait for their next use."""
        self._connections.close()
        self._streams.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _model(
        self, model: type[M], path: str, body: bytes, *, again: bool = True, key: str | None = None
    ) -> M:
        data = self._send("POST", path, body, again=again, key=key).data
        try:
            return model.model_validate_json(data)
        except ValidationError as exc:
            raise self._not_ours() from exc

    def _object(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        body: bytes | None = None,
    ) -> Json:
        data = self._json(method, path, query, body=body)
        if not isinstance(data, dict):
            raise self._not_ours()
        return data

    def _object_once(self, path: str, body: bytes | None, *, method: str = "POST") -> Json:
        """As ``_object``, sent once: what is done twice is not the same as done once."""
        data = self._decode(self._send(method, path, body, again=False))
        if not isinstance(data, dict):
            raise self._not_ours()
        return data

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        *,
        body: bytes | None = None,
    ) -> Any:
        given = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        # What the server waits for is no time that it needs.
        timeout = self._timeout + float(given.get("wait", 0))
        return self._decode(self._send(method, target, body, again=True, timeout=timeout))

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        *,
        again: bool,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The answer to a call that succeeded; *again*: it may be repeated, under *key* if it has one.

        *timeout*: seconds for one answer, where it may take longer than others.
        """
        deadline = time.monotonic() + self._patience
        tries = 0
        while True:
            try:
                response = self._once(method, path, body, key=key, timeout=timeout)
                if response.status < 400:
                    return response
                self._refuse(response)
            except UnavailableError as exc:
                # What never left this machine may be repeated whatever it is.
                repeatable = again or isinstance(exc, _NoConnectionError)
                delay = _delay(tries, exc.retry_after)
                late = time.monotonic() + delay > deadline
                if not repeatable or late or not self._reached.is_set():
                    raise
                tries += 1
                time.sleep(delay)

    def _pieces(self, path: str) -> Pieces:
        """The body of an answer that may be large; sent once, and not held as a whole."""
        response = self._streaming("GET", path)
        try:
            if response.status >= 400:
                self._refuse(_whole(response))
            yield from response.stream(PIECE)
        except HTTPError as exc:
            raise BrokenStreamError(
                f"the connection to {self.url} broke: {exc}", retry_after=0.0
            ) from exc
        finally:
            response.close()  # one read to its end has given its connection back already

    def _once(
        self,
        method: str,
        path: str,
        body: bytes | None,
        *,
        key: str | None = None,
        timeout: float | None = None,
    ) -> Answer:
        headers = {} if body is None else {"content-type": "application/json"}
        if key is not None:
            headers["idempotency-key"] = key
        with self._reaching():
            return self._connections.call(
                method,
                self._prefix + path,
                body,
                headers,
                timeout=self._timeout if timeout is None else timeout,
            )

    def _streaming(
        self,
        method: str,
        path: str,
        pieces: Iterable[bytes] | None = None,
        *,
        size: int | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """The answer, to be read piece by piece, to a body of *size* bytes, if there is one."""
        headers = dict(self._headers)
        if size is not None:
            headers["content-type"] = "application/octet-stream"
            headers["content-length"] = str(size)
        with self._reaching():
            return self._streams.urlopen(
                method,
                self._prefix + path,
                body=pieces,
                headers=headers,
                redirect=False,
                preload_content=False,
            )

    def _answer_to(self, path: str, pieces: Iterable[bytes], size: int) -> Answer:
        """The answer to a body that is sent in pieces, once."""
        with self._reaching():
            return _whole(self._streaming("PUT", path, pieces, size=size))

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """What goes wrong on the way there and back, in our words."""
        try:
            yield
        except (NotConnectedError, NewConnectionError, NameResolutionError) as exc:
            raise _NoConnectionError(
                f"no Callboard API at {self.url}",
                remedy="start one with 'callboard up', or name the right one with --server-url",
                retry_after=0.0,
            ) from exc
        except (TimeoutError, HTTPTimeoutError) as exc:
            raise UnavailableError(f"{self.url} did not answer in time", retry_after=0.0) from exc
        except (OSError, HTTPError) as exc:
            raise UnavailableError(
                f"the connection to {self.url} broke: {exc}", retry_after=0.0
            ) from exc
        self._reached.set()

    def _decode(self, response: Answer) -> Any:
        try:
            return orjson.loads(response.data)
        except ValueError as exc:
            if response.status >= 400:
                self._refuse(response)
            raise self._not_ours() from exc

    def _refuse(self, response: Answer) -> NoReturn:
        raise error_of(response.status, response.data, response.headers, url=self.url)

    def _not_ours(self) -> CallboardError:
        return CallboardError(
            f"what answers at {self.url} is not a Callboard API of this version",
            remedy="check the URL",
        )


class _NoConnectionError(UnavailableError):
    """Nobody listens there; the request was not sent."""


def _whole(response: urllib3.BaseHTTPResponse) -> Answer:
    return Answer(response.status, response.headers, response.data)


def _delay(tries: int, asked: float) -> float:
    """Full jitter, after what the server asked for: clients must not come back all at once."""
    return asked + random.uniform(0, min(MAX_DELAY, FIRST_DELAY * 2**tries))  # noqa: S311 (spreads load, guards nothing)


def encode(model: BaseModel) -> bytes:
    """*model* as JSON without copying its values first. Raises ``BadRequestError``."""
    try:
        return orjson.dumps(model, default=_fields, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError) as exc:
        raise BadRequestError(
            f"a value cannot be sent as JSON: {exc}", remedy="return plain JSON data"
        ) from exc


def _fields(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.__dict__
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"type {type(value).__name__} is not JSON")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
