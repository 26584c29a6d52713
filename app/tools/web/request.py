"""The request that an ``http`` step's keys ask for."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2
import orjson

from app.errors import ToolError
from app.tools import Context
from app.tools.times import seconds
from app.tools.web.auth import authenticate, basic
from app.tools.web.exchange import Manner
from app.tools.web.fetch import check_place

if TYPE_CHECKING:
    from app.tools.web.input import Input

SAFE = {"GET", "HEAD", "OPTIONS", "TRACE"}
BODILESS = {"GET", "HEAD", "DELETE", "OPTIONS"}
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
#: Headers that belong to the connection, which is ours, or follow from the body.
_OURS = frozenset(
    {
        "connection", "content-length", "keep-alive", "proxy-connection", "te",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
#: Headers whose names say that they let somebody in: for the first host only, like ``auth``.
_SECRET = re.compile(
    r"auth|token|(?<!idempotency-)key|secret|passw|cookie|credential|session|signature"
)
DEFAULT_HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "callboard"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and how it travels."""

    message: httpx2.Request
    manner: Manner


def build(request: Input, context: Context) -> Asked:
    """What *request* asks for. Raises ``ToolError`` (kind schema or auth)."""
    headers = {
        # "Bearer {{ token }}" without a token ends in a blank, which is no header.
        name.lower(): _text(value).strip()
        for name, value in request.headers.items()
        if value is not None and name.lower() not in _OURS
    }
    params = {name: value for name, value in request.params.items() if value is not None}
    before = set(headers)
    certificate = (
        authenticate(request.auth, context, headers, params) if request.auth is not None else None
    )
    secret = frozenset(name for name in headers if name not in before or _SECRET.search(name))
    if request.method not in SAFE:
        headers.setdefault("idempotency-key", context.idempotency_key)
    for name, value in DEFAULT_HEADERS.items():
        headers.setdefault(name, value)
    body, query = _body(request, headers, context)
    message = _message(request, headers, body, {**query, **params})
    _login_of_url(message, context)
    manner = Manner(
        timeout=seconds(request.timeout, most=context.timeout),
        verify=request.verify,
        follow=request.follow_redirects,
        certificate=certificate,
        secret=secret,
    )
    return Asked(message, manner)


def _message(
    request: Input, headers: Mapping[str, str], body: Mapping[str, Any], query: Mapping[str, Any]
) -> httpx2.Request:
    try:
        url = httpx2.URL(request.url)
        if query:
            url = url.copy_merge_params(_fields(query))
        message = httpx2.Request(request.method, url, headers=dict(headers), **body)
    except (httpx2.InvalidURL, TypeError, ValueError) as exc:
        raise ToolError(f"the request cannot be built: {exc}", kind="schema") from None
    check_place(message.url)
    return message


def _login_of_url(message: httpx2.Request, context: Context) -> None:
    """A user and password in the URL become a header."""
    url = message.url
    if url.username or url.password:
        if url.password:
            context.secrets.conceal(url.password)
        pair = f"{url.username}:{url.password}"
        message.headers.setdefault("authorization", basic(pair, context))


# ---------------------------------------------------------------------- the body
def _body(
    request: Input, headers: dict[str, str], context: Context
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that make the body, and query parameters that ``data`` stands for."""
    if request.files is not None:
        return _multipart(request, headers, context), {}
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
    kind = headers.get("content-type", "").lower()
    if isinstance(value, dict) and kind.startswith(FORM):
        return {"data": _fields(value)}
    if isinstance(value, dict) and kind.startswith(MULTIPART):
        del headers["content-type"]  # it has to name the boundary, which is chosen below
        return {"files": [(name, (None, text)) for name, text in _pairs(value)]}
    return _json(value, headers)


def _json(value: Any, headers: dict[str, str]) -> dict[str, Any]:
    headers.setdefault("content-type", "application/json")
    try:
        return {"content": orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)}
    except TypeError as exc:
        raise ToolError(f"the body has no JSON form: {exc}", kind="schema") from exc


def _multipart(request: Input, headers: dict[str, str], context: Context) -> dict[str, Any]:
    headers.pop("content-type", None)  # as above
    fields = next(
        (value for value in (request.form, request.data, request.payload) if value is not None), {}
    )
    if not isinstance(fields, dict):
        raise ToolError("beside files, form and data hold fields by name", kind="schema")
    parts: list[Any] = [(name, (None, text)) for name, text in _pairs(fields)]
    for name, about in _named(request.files):
        parts.append((name, _part(name, about, context)))
    return {"files": parts}


def _named(files: Any) -> Iterator[tuple[str, Any]]:
    """The files by the name of their field."""
    if isinstance(files, Mapping):
        yield from files.items()
        return
    for place, about in enumerate(files):
        if not isinstance(about, Mapping):
            raise ToolError(f"files.{place} is no mapping; give name and content", kind="schema")
        yield str(about.get("name") or "file"), about


def _part(name: str, about: Any, context: Context) -> tuple[Any, ...]:
    """One file as httpx2 takes it: (filename, content[, content type])."""
    if not isinstance(about, Mapping) or "_ref" in about:
        about = {"content": about}
    filename = str(about.get("filename") or about.get("name") or name)
    content = _content(name, about, context)
    kind = about.get("content_type") or about.get("type")
    return (filename, content, str(kind)) if kind else (filename, content)


def _content(name: str, about: Mapping[str, Any], context: Context) -> bytes:
    value = next(
        (about[key] for key in ("content", "data", "ref") if about.get(key) is not None), ""
    )
    is_base64 = about.get("encoding") == "base64"
    if about.get("content_base64") is not None:
        value, is_base64 = about["content_base64"], True
    ref = _reference(value)
    if ref is not None or about.get("ref") is not None:
        value = context.artifacts.get(ref or str(value))
        if isinstance(value, Mapping) and value.get("encoding") == "base64":
            value, is_base64 = value.get("data", ""), True
    if is_base64 and isinstance(value, str):
        try:
            return base64.b64decode("".join(value.split()), validate=True)
        except ValueError as exc:
            raise ToolError(
                f"files.{name}: the content is no base64: {exc}", kind="schema"
            ) from None
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    return _text(value).encode()


def _reference(value: Any) -> str | None:
    """The place that *value* refers to: noetl://…, or a mapping as results by reference are."""
    if isinstance(value, Mapping) and "_ref" in value:
        value = value["_ref"]
        value = value.get("ref") if isinstance(value, Mapping) else value
    return value if isinstance(value, str) and value.startswith("noetl://") else None


# ---------------------------------------------------------------------- text forms
def _fields(form: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [_text(item) for item in value] if isinstance(value, list) else _text(value)
        for name, value in form.items()
        if value is not None
    }


def _pairs(form: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """As ``_fields``, with one pair for each item of a list."""
    for name, value in _fields(form).items():
        for text in value if isinstance(value, list) else [value]:
            yield name, text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode() if isinstance(value, bool | dict | list) else str(value)
