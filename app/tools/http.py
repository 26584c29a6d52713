"""``http``: one request, and its answer as data.

An answer outside 2xx fails the step; what it said is kept with the error. Every method but the safe
ones carries an ``Idempotency-Key`` that is the same for every attempt. Proxies of the environment
are not used, cookies last for one request with its redirects, link-local and metadata addresses are
refused.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import Any, Literal

import httpcore2
import httpx2
import orjson
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.auth import first, resolve
from app.tools.http_guard import Stopped, request_of, time_left
from app.tools.http_transport import Transport, transport
from app.tools.sources import seconds
from app.tools.times import Time

DEFAULT_TIMEOUT = 60.0
MAX_REDIRECTS = 20
SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}
BODILESS = {"GET", "HEAD", "DELETE", "OPTIONS"}
FORM = "application/x-www-form-urlencoded"
DEFAULT_HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "callboard"}


class Input(BaseModel):
    """``url`` and what to send there; the keys may also stand under ``spec``."""

    model_config = ConfigDict(populate_by_name=True)

    url: str = Field(
        validation_alias=AliasChoices("url", "endpoint"),
        min_length=1,
        description="Where to, with http:// or https://.",
    )
    method: str = Field("GET", description="The method, in any case.")
    headers: dict[str, Any] = Field(
        default_factory=dict, description="Headers; those that are null are left out."
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="Query parameters; those that are null are left out."
    )
    json_body: Any = Field(None, validation_alias="json", description="The body, as JSON.")
    body: Any = Field(None, description="The body: text as it is, else by content type.")
    payload: Any = Field(None, description="The same as body.")
    data: Any = Field(None, description="Query parameters or body, by method; or `{query, body}`.")
    form: dict[str, Any] | None = Field(None, description="The body, as fields of a form.")
    auth: Any = Field(None, description="The name of a credential, or its fields.")
    timeout: Time = Field(
        DEFAULT_TIMEOUT,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )
    verify: bool = Field(
        True,
        validation_alias=AliasChoices("verify_ssl", "verify"),
        description="Whether the certificate is checked.",
    )
    follow_redirects: bool = Field(True, description="Whether redirects are followed.")
    response_type: Literal["json", "text", "binary"] | None = Field(
        None, description="What the answer is read as; else its content type says."
    )

    @model_validator(mode="before")
    @classmethod
    def _lift_spec(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("spec"), Mapping):
            return {**values["spec"], **values}
        return values

    @field_validator(
        "headers", "params", mode="before", json_schema_input_type=dict[str, Any] | None
    )
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("method", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.strip().upper() if isinstance(value, str) else value


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{status_code, headers, url, elapsed, data, body}``: ``elapsed`` in seconds, ``data`` and
    ``body`` both the payload (JSON data, text, or base64 text with ``encoding: base64``)."""
    started = time.perf_counter()
    secret_headers, message = _build(request, context)
    limit = seconds(request.timeout, most=context.timeout)
    # Where all connections of the pool are busy; the guarded network keeps the other times.
    message.extensions["timeout"] = {"pool": limit}
    try:
        with request_of(context, limit):
            response, content = _exchange(request, message, secret_headers, context)
    except Stopped as exc:
        raise ToolError(
            _told(message, exc),
            kind=exc.error.kind,
            retryable=exc.error.retryable,
            error_code=exc.error.error_code,
        ) from exc
    except httpcore2.TimeoutException as exc:
        raise ToolError(_told(message, exc), kind="timeout", retryable=True) from exc
    except (
        httpcore2.NetworkError,
        httpcore2.RemoteProtocolError,
        httpx2.RemoteProtocolError,
    ) as exc:
        raise ToolError(_told(message, exc), kind="connection", retryable=True) from exc
    except (httpcore2.UnsupportedProtocol, httpcore2.ProtocolError, httpx2.HTTPError) as exc:
        raise ToolError(_told(message, exc), kind="client_error") from exc
    result = {
        "status_code": response.status_code,
        "headers": dict(response.headers),
        "url": str(response.url),
        "elapsed": round(time.perf_counter() - started, 6),
    }
    data, extra = _payload(request, response, content)
    result |= {"data": data, "body": data, **extra}
    if not response.is_success:
        raise _error(message, response, result)
    return result


tool = Tool("http", input=Input, run=run, queue="io")


def _build(request: Input, context: Context) -> tuple[set[str], httpx2.Request]:
    """The request to send, and the names of its headers that only its first host may see."""
    headers = {
        # "Bearer {{ token }}" without a token ends in a blank, which is no header.
        name.lower(): _text(value).strip()
        for name, value in request.headers.items()
        if value is not None
    }
    params = {name: value for name, value in request.params.items() if value is not None}
    before = set(headers)
    if request.auth:
        _authenticate(resolve(request.auth, context), headers, params)
    secret = {"authorization", "cookie", *(set(headers) - before)}
    if request.method not in SAFE:
        headers.setdefault("idempotency-key", context.idempotency_key)
    for name, value in DEFAULT_HEADERS.items():
        headers.setdefault(name, value)
    body, query = _body(request, headers)
    try:
        url = httpx2.URL(request.url).copy_merge_params(_query({**query, **params}))
        message = httpx2.Request(request.method, url, headers=headers, **body)
    except (httpx2.InvalidURL, TypeError, ValueError) as exc:
        raise ToolError(f"the request cannot be built: {exc}", kind="schema") from exc
    if message.url.scheme not in {"http", "https"} or not message.url.host:
        raise ToolError(
            f"{_shown(message.url)} is not a URL to send a request to; it needs http:// or "
            "https:// and a host",
            kind="schema",
        )
    return secret, message


def _body(request: Input, headers: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that make the body, and query parameters that ``data`` stands for."""
    if request.json_body is not None:
        return _json(request.json_body, headers), {}
    if request.form is not None:
        return {"data": _fields(request.form)}, {}
    data = request.data
    if isinstance(data, dict) and data and set(data) <= {"query", "body"}:
        return _encoded(data.get("body"), headers), dict(data.get("query") or {})
    if isinstance(data, dict) and request.method in BODILESS:
        return {}, data
    given = (value for value in (data, request.payload, request.body) if value is not None)
    return _encoded(next(given, None), headers), {}


def _encoded(value: Any, headers: dict[str, str]) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, str):
        return {"content": value.encode()}
    kind = headers.get("content-type", "")
    if isinstance(value, dict) and kind.startswith(FORM):
        return {"data": _fields(value)}
    if isinstance(value, dict) and kind.startswith("multipart/form-data"):
        del headers["content-type"]  # it has to name the boundary, which is chosen below
        return {"files": {name: (None, text) for name, text in _fields(value).items()}}
    return _json(value, headers)


def _json(value: Any, headers: dict[str, str]) -> dict[str, Any]:
    headers.setdefault("content-type", "application/json")
    try:
        return {"content": orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)}
    except TypeError as exc:
        raise ToolError(f"the body has no JSON form: {exc}", kind="schema") from exc


def _fields(form: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _text(value) for name, value in form.items() if value is not None}


def _query(params: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [_text(item) for item in value] if isinstance(value, list) else _text(value)
        for name, value in params.items()
        if value is not None
    }


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, bool | dict | list) else str(value)


def _authenticate(
    fields: Mapping[str, Any], headers: dict[str, str], params: dict[str, Any]
) -> None:
    kind = first(fields, "type", "auth_type", "scheme") or ""
    user = first(fields, "username", "user")
    key = first(fields, "api_key", "key")
    token = first(fields, "token", "bearer_token", "access_token", "value")
    if kind in {"api_key", "apikey", "header"} or (not kind and key):
        value = key or token
        if value is None:
            raise ToolError("the api_key credential holds no api_key or value", kind="auth")
        name = first(fields, "header_name", "header") or "X-API-Key"
        if fields.get("in") == "query":
            params.setdefault(first(fields, "param_name") or name, value)
        else:
            headers.setdefault(name.lower(), value)
    elif kind == "basic" or (not kind and user):
        pair = f"{user or ''}:{first(fields, 'password') or ''}".encode()
        headers.setdefault("authorization", f"Basic {base64.b64encode(pair).decode()}")
    elif token is not None:
        headers.setdefault("authorization", f"Bearer {token}")
    else:
        raise ToolError(
            "the credential holds neither a token, nor an api_key, nor a username", kind="auth"
        )


def _exchange(
    request: Input, message: httpx2.Request, secret: set[str], context: Context
) -> tuple[httpx2.Response, bytes]:
    """Send, follow redirects, and read the answer up to its limit."""
    limit = context.settings.result_bytes
    with httpx2.Client(
        transport=Borrowed(transport(verify=request.verify)), trust_env=False
    ) as client:
        for _ in range(MAX_REDIRECTS + 1):
            time_left()
            response = client.send(message, stream=True, follow_redirects=False)
            try:
                following = response.next_request if request.follow_redirects else None
                if following is None:
                    return response, _read(response, limit)
            finally:
                response.close()
            if _origin(following.url) != _origin(message.url):
                for name in secret & set(following.headers):
                    del following.headers[name]
            message = following
    raise ToolError(
        f"{_shown(message.url)}: more than {MAX_REDIRECTS} redirects", kind="client_error"
    )


class Borrowed(httpx2.BaseTransport):
    """The process's transport in the hands of one request: closing it closes nothing."""

    def __init__(self, owner: Transport) -> None:
        self._owner = owner

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return self._owner.handle_request(request)


def _read(response: httpx2.Response, limit: int) -> bytes:
    content = bytearray()
    for piece in response.iter_bytes():
        content += piece
        if len(content) > limit:
            raise ToolError(
                f"{_shown(response.request.url)} answered with more than the {limit} bytes allowed; "
                "ask for less, or raise CALLBOARD_RESULT_BYTES",
                kind="resource",
            )
    return bytes(content)


def _payload(
    request: Input, response: httpx2.Response, content: bytes
) -> tuple[Any, dict[str, Any]]:
    wanted = request.response_type
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if wanted == "json" or (wanted is None and (kind.endswith(("/json", "+json")))):
        if not content:
            return None, {}
        try:
            return orjson.loads(content), {}
        except ValueError as exc:
            if wanted == "json" and response.is_success:
                raise ToolError(
                    f"the answer of {_shown(response.url)} is not JSON: {exc}", kind="parse"
                ) from exc
    if wanted != "binary":
        try:
            return content.decode(response.charset_encoding or "utf-8"), {}
        except (UnicodeDecodeError, LookupError):
            if wanted == "text":
                return content.decode("utf-8", "replace"), {}
    return base64.b64encode(content).decode(), {"encoding": "base64"}


def _error(message: httpx2.Request, response: httpx2.Response, result: dict[str, Any]) -> ToolError:
    status = response.status_code
    kind, retryable = _kind(status)
    details: dict[str, Any] = {
        "http": {"status": status, "headers": result["headers"]},
        # Rules ask for it by each of these names.
        **dict.fromkeys(("status_code", "http_status", "status"), status),
    }
    if wait := response.headers.get("retry-after"):
        details["retry_after"] = wait
    return ToolError(
        f"HTTP {status} {response.reason_phrase} from {message.method} {_shown(response.url)}",
        kind=kind,
        retryable=retryable,
        error_code=f"HTTP_{status}",
        details=details,
        data=result,
    )


def _kind(status: int) -> tuple[str, bool]:
    # 408, 429 and 5xx ask for patience; the other 4xx are our mistake, 3xx one of the playbook.
    known = {401: "auth", 403: "auth", 404: "not_found", 408: "timeout", 429: "rate_limit"}
    if status >= 500:
        return "server_error", True
    return known.get(status, "client_error"), status in {408, 429}


def _told(message: httpx2.Request, exc: Exception) -> str:
    return f"{message.method} {_shown(message.url)}: {str(exc) or type(exc).__name__}"


def _shown(url: httpx2.URL) -> str:
    """*url* without what may be secret: user, password and query."""
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
