"""Messages to a server of the Model Context Protocol: JSON-RPC 2.0 over HTTP.

Each message is one POST. The server answers with JSON, or with an event stream in which the answer
is one event among others, and may ask for a session, which its clients open and end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import httpx2
import orjson

from app.errors import ToolError
from app.tools import Context
from app.tools.web.answer import content_type
from app.tools.web.exchange import Manner, exchange, shown
from app.tools.web.status import failure

#: The revision of the protocol that is asked for, the newest that this client knows.
PROTOCOL = "2025-06-18"
_INITIALIZE = {
    "protocolVersion": PROTOCOL,
    "capabilities": {},
    "clientInfo": {"name": "callboard", "version": "1"},
}
#: Seconds for the farewell to a session.
FAREWELL = 2.0
_MOST_OF_AN_ERROR = 65_536
#: What JSON-RPC's own error codes mean: (kind, retryable).
_KINDS = {
    -32700: ("parse", False),
    -32600: ("schema", False),
    -32601: ("not_found", False),
    -32602: ("schema", False),
    -32002: ("not_found", False),
    -32603: ("server_error", True),
}


class SessionMissing(Exception):  # noqa: N818 (an outcome, answered by opening a session)
    """The server takes no message without a session, or has forgotten the one it was given."""

    def __init__(self, error: ToolError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(slots=True)
class Server:
    """A server and what was agreed with it. *headers* are those of every message; ``manner.timeout``
    is for one message, ``deadline`` (of the monotonic clock) for all together."""

    url: httpx2.URL
    headers: Mapping[str, str] = field(repr=False)
    manner: Manner
    context: Context
    deadline: float
    session: str | None = None
    protocol: str | None = None
    ids: Iterator[int] = field(default_factory=lambda: count(1))

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """The result of *method*; a session is opened where the server asks for one.

        Raises ``ToolError``.
        """
        try:
            return self._request(method, params)
        except SessionMissing as exc:
            refusal = exc.error
        try:
            self.open()
            return self._request(method, params)
        except SessionMissing as exc:
            raise exc.error from None
        except ToolError as exc:
            # Where it opens none either, its first word says more.
            raise (refusal if self.session is None and self.protocol is None else exc) from None

    def open(self) -> Mapping[str, Any]:
        """Introduce ourselves; what the server says of itself. Raises ``ToolError``."""
        self.session = self.protocol = None
        found = self._request("initialize", _INITIALIZE)
        about = found if isinstance(found, dict) else {}
        self.protocol = str(about.get("protocolVersion") or PROTOCOL)
        self._post("notifications/initialized", {}, None)
        return about

    def end(self) -> None:
        """Let the server forget the session, where there is one. What it answers does not matter."""
        if self.session is None:
            return
        message = httpx2.Request("DELETE", self.url, headers=self._headers())
        self.session = None
        # The result is there already: a server that is slow to forget must not cost much.
        hurried = replace(self.manner, timeout=min(self._left(), FAREWELL))
        with suppress(ToolError), exchange(message, self.context, hurried):
            pass

    def _request(self, method: str, params: Mapping[str, Any] | None) -> Any:
        number = next(self.ids)
        body = {} if params is None else {"params": dict(params)}
        answer = self._post(method, body, number)
        if answer.get("error") is not None:
            raise _rpc_error(method, self.url, answer["error"])
        if "result" not in answer:
            raise ToolError(
                f"{method} at {shown(self.url)}: the answer holds neither a result nor an error",
                kind="parse",
            )
        return answer["result"]

    def _post(self, method: str, body: Mapping[str, Any], number: int | None) -> dict[str, Any]:
        """The answer that carries *number*; nothing for a notification, which has none."""
        named = {"jsonrpc": "2.0", "method": method, **({} if number is None else {"id": number})}
        message = httpx2.Request(
            "POST", self.url, headers=self._headers(), content=_encoded({**named, **body})
        )
        with exchange(message, self.context, replace(self.manner, timeout=self._left())) as found:
            if not found.is_success:
                raise self._refusal(method, message, found)
            if opened := found.headers.get("mcp-session-id"):
                self.session = opened
            return {} if number is None else _answer(found, number, self._most())

    def _left(self) -> float:
        # Even where nothing is left: the exchange then says so.
        return min(self.manner.timeout, max(0.0, self.deadline - time.monotonic()))

    def _most(self) -> int:
        return self.context.settings.result_bytes

    def _headers(self) -> dict[str, str]:
        own = {"mcp-session-id": self.session, "mcp-protocol-version": self.protocol}
        return {**self.headers, **{name: text for name, text in own.items() if text}}

    def _refusal(
        self, method: str, message: httpx2.Request, response: httpx2.Response
    ) -> Exception:
        """The error that an answer outside 2xx is."""
        content = b"".join(_first(response.iter_bytes(), _MOST_OF_AN_ERROR))
        try:
            data: Any = orjson.loads(content)
        except ValueError:
            data = content.decode("utf-8", "replace")
        error = failure(message, response, {"status": "error", "method": method, "data": data})
        # 404 with a session: it is gone. 400 without one: it wants to be asked for.
        is_missing = response.status_code == (404 if self.session else 400)
        return SessionMissing(error) if is_missing and method != "initialize" else error


def _encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as exc:
        raise ToolError(f"the arguments have no JSON form: {exc}", kind="schema") from exc


def _answer(response: httpx2.Response, number: int, limit: int) -> dict[str, Any]:
    """The message with the id *number*; what else a stream brings is for others."""
    pieces = _up_to(response, limit)
    if content_type(response) == "text/event-stream":
        for text in _events(pieces):
            found = _message(text, response)
            if found.get("id") == number and "method" not in found:
                return found
        raise ToolError(
            f"{shown(response.url)} ended its stream without an answer",
            kind="connection",
            retryable=True,
        )
    content = b"".join(pieces)
    found = _message(content, response)
    if found.get("id") not in {number, None}:
        raise ToolError(f"{shown(response.url)} answered another request than ours", kind="parse")
    return found


def _message(text: bytes, response: httpx2.Response) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except ValueError as exc:
        raise ToolError(
            f"the answer of {shown(response.url)} is no JSON: {exc}", kind="parse"
        ) from None
    if not isinstance(found, dict):
        raise ToolError(f"the answer of {shown(response.url)} is no JSON-RPC message", kind="parse")
    return found


def _events(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The data of each event, as the standard of server-sent events has them."""
    data: list[bytes] = []
    for line in _lines(pieces):
        if not line:
            if data:
                yield b"\n".join(data)
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Lines that end in CR, LF or both; a last one without an end counts for nothing."""
    rest = b""
    for piece in pieces:
        rest += piece
        # A CR at the very end may be half of an end.
        held = rest.endswith(b"\r")
        text = rest[:-1] if held else rest
        *lines, last = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        yield from lines
        rest = last + (b"\r" if held else b"")


def _up_to(response: httpx2.Response, limit: int) -> Iterator[bytes]:
    """The content of *response*. Raises ``ToolError`` where it is more than *limit* bytes."""
    size = 0
    for piece in response.iter_bytes():
        size += len(piece)
        if size > limit:
            raise ToolError(
                f"{shown(response.url)} answered with more than the {limit} bytes allowed; ask "
                "for less, or raise CALLBOARD_RESULT_BYTES",
                kind="resource",
            )
        yield piece


def _first(pieces: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The first *most* bytes of *pieces*."""
    for piece in pieces:
        yield piece[:most]
        most -= len(piece)
        if most <= 0:
            return


def _rpc_error(method: str, url: httpx2.URL, error: Any) -> ToolError:
    """The error object of an answer as ours."""
    about = error if isinstance(error, dict) else {"message": str(error)}
    code = about.get("code")
    kind, retryable = _KINDS.get(code if isinstance(code, int) else 0, ("server_error", False))
    return ToolError(
        f"{method} at {shown(url)}: {about.get('message') or 'an error without a message'}",
        kind=kind,
        retryable=retryable,
        error_code=f"RPC_{code}" if code is not None else None,
        details={"rpc": {"code": code, "data": about.get("data")}},
        data={"status": "error", "method": method, "error": about},
    )
