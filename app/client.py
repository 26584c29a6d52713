"""A client of the control plane's HTTP API, for workers, the command line and tests."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Generator, Mapping
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import orjson
import urllib3
from pydantic import BaseModel, ValidationError
from urllib3.exceptions import HTTPError, NameResolutionError, NewConnectionError
from urllib3.exceptions import TimeoutError as HTTPTimeoutError

from app.errors import (
    BadRequestError,
    CallboardError,
    ConflictError,
    Finding,
    ForbiddenError,
    InvalidPlaybookError,
    NotFoundError,
    TemplateError,
    UnauthorizedError,
    UnavailableError,
)
from app.wire import (
    Beat,
    BeatAnswer,
    ClaimRequest,
    ClaimResponse,
    Exchange,
    ExchangeAnswer,
    Registered,
    ReportRequest,
    ReportResponse,
    Started,
    ValueRequest,
)

M = TypeVar("M", bound=BaseModel)
Json = dict[str, Any]
Pieces = Generator[bytes, None, None]

BY_CODE: Mapping[str, type[CallboardError]] = {
    cls.code: cls
    for cls in (
        NotFoundError,
        ConflictError,
        BadRequestError,
        UnauthorizedError,
        ForbiddenError,
        TemplateError,
    )
}
BY_STATUS: Mapping[int, type[CallboardError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
}
#: What a proxy answers while the server behind it is away.
AWAY = frozenset({502, 503, 504})
#: What else a proxy may answer for a while.
TRANSIENT = frozenset({408, 425, 429})

FIRST_DELAY, MAX_DELAY = 0.05, 5.0
#: Bytes of a large answer that are held at once.
PIECE = 1 << 20


class Client:
    """Calls the API at *url*; safe to share between threads.

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
        self._patience = patience
        self._reached = threading.Event()
        self._headers = {"accept": "application/json", "user-agent": "callboard"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._pool = urllib3.connection_from_url(
            self.url,
            maxsize=connections,
            timeout=urllib3.Timeout(connect=min(timeout, 5.0), read=timeout),
            retries=False,
        )

    def close(self) -> None:
        """Close the connections that wait for their next use."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ workers
    def exchange(self, request: Exchange) -> ExchangeAnswer:
        """Report what ended and claim what comes next; safe to repeat, as each has a key."""
        return self._model(ExchangeAnswer, "/api/worker/exchange", _encode(request))

    def claim(self, request: ClaimRequest) -> ClaimResponse:
        """Ask for attempts; repeating it is safe, as each claim has a key."""
        return self._model(ClaimResponse, "/api/worker/claim", _encode(request))

    def report(self, request: ReportRequest) -> ReportResponse:
        """Say how attempts ended; repeating it is safe, as each report has a key."""
        return self._model(ReportResponse, "/api/worker/report", _encode(request))

    def value(self, request: ValueRequest) -> bytes:
        """What an attempt refers to, as JSON."""
        return self._send("POST", "/api/worker/values", _encode(request), again=True).data

    def beat(self, beat: Beat) -> BeatAnswer:
        """Give a sign of life; the answer names the attempts to stop."""
        return self._model(BeatAnswer, "/api/worker/beat", _encode(beat))

    def leave(self, kind: str, name: str) -> bool:
        """Say goodbye; whether the process was known."""
        body = orjson.dumps({"kind": kind, "name": name})
        answer = self._json("POST", "/api/worker/pool/deregister", body=body)
        return bool(answer["status"] == "ok")

    def pools(self, status: str | None = None) -> list[Json]:
        """The worker processes that beat."""
        found: list[Json] = self._json("GET", "/api/worker/pools", {"status": status})["items"]
        return found

    # ------------------------------------------------------------------ catalog
    def register(self, content: str, *, resource_type: str = "Playbook") -> Registered:
        """Store YAML as the next version of its path. Raises ``InvalidPlaybookError``."""
        body = orjson.dumps({"content": content, "resource_type": resource_type})
        return self._model(Registered, "/api/catalog/register", body, again=False)

    def validate(self, content: str) -> Json:
        """``{valid, findings}`` of a playbook, warnings included, without storing it."""
        body = orjson.dumps({"content": content})
        return self._object("POST", "/api/catalog/validate", body=body)

    def schema(self, tool: str | None = None) -> Json:
        """The JSON Schema of playbooks, or of one kind of tool."""
        return self._object("GET", "/api/catalog/schema", {"tool": tool})

    def catalog_list(
        self, resource_type: str | None = None, *, path: str | None = None
    ) -> list[Json]:
        """The newest version of every path, or every version of *path*."""
        body = orjson.dumps({"resource_type": resource_type, "path": path})
        found: list[Json] = self._json("POST", "/api/catalog/list", body=body)["entries"]
        return found

    def catalog_get(
        self,
        path: str | None = None,
        *,
        version: int | None = None,
        catalog_id: int | str | None = None,
    ) -> Json:
        """One resource with its content. Raises ``NotFoundError``."""
        body = orjson.dumps({"path": path, "version": version, "catalog_id": catalog_id})
        return self._object("POST", "/api/catalog/resource", body=body)

    def explain(
        self,
        content: str | None = None,
        *,
        path: str | None = None,
        version: int | None = None,
    ) -> Json:
        """``{plan, text, mermaid}`` of the playbook in *content*, or of the one at *path*."""
        if content is None:
            return self._object("GET", "/api/catalog/explain", {"path": path, "version": version})
        return self._object("POST", "/api/catalog/explain", body=orjson.dumps({"content": content}))

    # ------------------------------------------------------------------ executions
    def execute(
        self,
        path: str | None = None,
        payload: Mapping[str, Any] | None = None,
        *,
        version: int | None = None,
        catalog_id: int | str | None = None,
    ) -> Started:
        """Start a playbook. Sent once: a lost answer may have started it."""
        body = orjson.dumps(
            {
                "path": path,
                "payload": dict(payload or {}),
                "version": version,
                "catalog_id": None if catalog_id is None else str(catalog_id),
            },
            option=orjson.OPT_NON_STR_KEYS,
        )
        return self._model(Started, "/api/execute", body, again=False)

    def executions(self, **filters: Any) -> list[Json]:
        """Newest first; filters: status, path, started_after, started_before, cursor, limit, …"""
        found: list[Json] = self._json("GET", "/api/executions", filters)
        return found

    def execution(self, execution_id: int | str, **query: Any) -> Json:
        """One execution with a page of its events (``include_events=False``: without)."""
        return self._object("GET", _of(execution_id), query)

    def status(self, execution_id: int | str, **query: Any) -> Json:
        """Where it stands, step by step (``variables=False``: without values; ``full=True``)."""
        return self._object("GET", _of(execution_id, "status"), query)

    def events(self, execution_id: int | str, **query: Any) -> list[Json]:
        """A page of events; query: page, page_size, since_event_id, since_seq, event_type."""
        answer = self._json("GET", _of(execution_id, "events"), query)
        found: list[Json] = answer["events"]
        return found

    def result(self, execution_id: int | str, step: str | None = None) -> Any:
        """The result of *step*, by default of the one that ended last. Raises ``NotFoundError``."""
        return self._json("GET", _of(execution_id, "result"), {"step": step})["result"]

    def result_outline(self, execution_id: int | str, step: str | None = None) -> Json:
        """``{step, status, ref, store, size_bytes, preview}`` of a result: the value is not sent."""
        return self._object("GET", _of(execution_id, "result"), {"step": step, "outline": True})

    def results(self, execution_id: int | str) -> list[Json]:
        """The outline of each step's result."""
        path = f"/api/result/{quote(str(execution_id), safe='')}/list"
        found: list[Json] = self._json("GET", path)["results"]
        return found

    def result_text(self, execution_id: int | str, step: str) -> Pieces:
        """The result of *step* as JSON, piece by piece. Raises ``NotFoundError``."""
        query = urlencode({"step": step, "raw": "true"})
        return self._pieces(f"{_of(execution_id, 'result')}?{query}")

    def resolve(self, ref: str) -> Pieces:
        """The value that a ``noetl://`` reference stands for, as JSON, piece by piece."""
        return self._pieces(f"/api/result/resolve?{urlencode({'ref': ref})}")

    def cancel(
        self, execution_id: int | str, *, reason: str | None = None, cascade: bool = True
    ) -> Json:
        """End it; ``status`` says cancelled or already_completed."""
        body = orjson.dumps({"reason": reason, "cascade": cascade})
        return self._object("POST", _of(execution_id, "cancel"), body=body)

    def replay(self, execution_id: int | str, **query: Any) -> Json:
        """A page of what each event changed; query: after, at, limit, step."""
        return self._object("GET", _of(execution_id, "replay"), query)

    def replay_state(self, execution_id: int | str, at: int | None = None) -> Json:
        """The state as of event *at*, by default as of now, as ``{execution_id, at_seq, state}``."""
        query = {"execution_id": execution_id, "at_seq": at}
        return self._object("GET", "/api/replay/state", query)

    def verify(self, execution_id: int | str) -> Json:
        """Whether what is shown is what the log says: ``{ok, events, findings, …}``."""
        return self._object("GET", _of(execution_id, "verify"))

    def stats(self) -> Json:
        """Counts of executions and playbooks."""
        return self._object("GET", "/api/dashboard/stats")

    def health(self) -> Json:
        """``{status: ready | unready, checks}``; raises only where nobody answers."""
        response = self._once("GET", "/readyz", None)
        data = self._decode(response)
        if response.status not in {200, 503} or not isinstance(data, dict) or "checks" not in data:
            self._refuse(response)
        return {
            "status": "ready" if response.status == 200 else "unready",
            "checks": data["checks"],
        }

    # ------------------------------------------------------------------ the wire
    def _model(self, model: type[M], path: str, body: bytes, *, again: bool = True) -> M:
        data = self._send("POST", path, body, again=again).data
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
        return self._decode(self._send(method, target, body, again=True))

    def _send(
        self, method: str, path: str, body: bytes | None, *, again: bool
    ) -> urllib3.BaseHTTPResponse:
        """The answer to a call that succeeded; *again*: it may be repeated."""
        deadline = time.monotonic() + self._patience
        tries = 0
        while True:
            try:
                response = self._once(method, path, body)
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
        response = self._once("GET", path, None, whole=False)
        try:
            if response.status >= 400:
                self._refuse(response)
            yield from response.stream(PIECE)
        except HTTPError as exc:
            raise UnavailableError(
                f"the connection to {self.url} broke: {exc}", retry_after=0.0
            ) from exc
        finally:
            response.close()  # one read to its end has given its connection back already

    def _once(
        self, method: str, path: str, body: bytes | None, *, whole: bool = True
    ) -> urllib3.BaseHTTPResponse:
        headers = (
            self._headers if body is None else {**self._headers, "content-type": "application/json"}
        )
        try:
            response = self._pool.urlopen(
                method,
                self._prefix + path,
                body=body,
                headers=headers,
                redirect=False,
                preload_content=whole,
            )
        except (NewConnectionError, NameResolutionError) as exc:
            raise _NoConnectionError(
                f"no Callboard API at {self.url}",
                remedy="start one with 'callboard up', or name the right one with --server-url",
                retry_after=0.0,
            ) from exc
        except HTTPTimeoutError as exc:
            raise UnavailableError(f"{self.url} did not answer in time", retry_after=0.0) from exc
        except HTTPError as exc:
            raise UnavailableError(
                f"the connection to {self.url} broke: {exc}", retry_after=0.0
            ) from exc
        self._reached.set()
        return response

    def _decode(self, response: urllib3.BaseHTTPResponse) -> Any:
        try:
            return orjson.loads(response.data)
        except ValueError as exc:
            if response.status >= 400:
                self._refuse(response)
            raise self._not_ours() from exc

    def _refuse(self, response: urllib3.BaseHTTPResponse) -> NoReturn:
        raise error_of(response.status, response.data, response.headers, url=self.url)

    def _not_ours(self) -> CallboardError:
        return CallboardError(
            f"what answers at {self.url} is not a Callboard API of this version",
            remedy="check the URL",
        )


class _NoConnectionError(UnavailableError):
    """Nobody listens there; the request was not sent."""


def error_of(
    status: int, body: bytes, headers: Mapping[str, str], *, url: str = "the server"
) -> CallboardError:
    """The error that a problem document describes, or the best guess from the status."""
    try:
        data = orjson.loads(body)
    except ValueError:
        data = None
    ours = isinstance(data, dict) and isinstance(data.get("detail"), str)
    if not ours:
        data = {"detail": f"{url} answered {status}"}
    message, code, remedy = data["detail"], str(data.get("code", "")), data.get("remedy")
    if code == InvalidPlaybookError.code and isinstance(data.get("findings"), list):
        findings = [_finding(item) for item in data["findings"]]
        return InvalidPlaybookError(findings, source=str(data.get("source", "playbook")))
    # Something in between answered, not our server: what was asked is still open.
    foreign = not ours and status in TRANSIENT
    if code == UnavailableError.code or status in AWAY or foreign:
        return UnavailableError(message, remedy=remedy, retry_after=_seconds(headers))
    cls = BY_CODE.get(code) or BY_STATUS.get(status)
    if cls is None:
        cls = BadRequestError if 400 <= status < 500 else CallboardError
    return cls(message, remedy=remedy)


def _finding(item: Mapping[str, Any]) -> Finding:
    return Finding(
        code=str(item.get("code", "")),
        message=str(item.get("message", "")),
        line=int(item.get("line", 0)),
        column=int(item.get("column", 0)),
        key=str(item.get("path", "")),
        severity=str(item.get("severity", "error")),
        suggestion=item.get("suggestion"),
    )


def _seconds(headers: Mapping[str, str]) -> float:
    """``Retry-After`` in seconds; its other form, a date, is not what our servers send."""
    text = headers.get("retry-after", "")
    return float(text) if text.isdigit() else 0.0


def _delay(tries: int, asked: float) -> float:
    """Full jitter, after what the server asked for: clients must not come back all at once."""
    return asked + random.uniform(0, min(MAX_DELAY, FIRST_DELAY * 2**tries))  # noqa: S311 (spreads load, guards nothing)


def _encode(model: BaseModel) -> bytes:
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


def _of(execution_id: int | str, part: str = "") -> str:
    path = f"/api/executions/{quote(str(execution_id), safe='')}"
    return f"{path}/{part}" if part else path


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
