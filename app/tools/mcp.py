"""``mcp``: one call of a server of the Model Context Protocol (JSON-RPC over HTTP).

The call is sent as it is; a server that wants a session gets one, which ends with the step. Where
requests may go is the same as for ``http``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.mcp_wire import Server
from app.tools.times import Time, seconds
from app.tools.web.auth import authenticate
from app.tools.web.exchange import Manner
from app.tools.web.fetch import get_request

DEFAULT_TIMEOUT = 60.0
CALL = "tools/call"
HEALTH = "health"
#: Where each list is in its result. Lists come in pages.
LISTS = {
    "tools/list": "tools",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    "prompts/list": "prompts",
}
MAX_PAGES = 1_000


class Input(BaseModel):
    """A server, a method of it, and what the method is given."""

    model_config = ConfigDict(populate_by_name=True)

    endpoint: str = Field(
        validation_alias=AliasChoices("endpoint", "server", "url"),
        min_length=1,
        description="The server's address, with http:// or https://.",
    )
    method: str = Field(
        CALL,
        min_length=1,
        description="The method: `tools/call`, `tools/list`, `resources/list`, `resources/read`, "
        "`prompts/list`, any other of the protocol, or `health`.",
    )
    tool: str | None = Field(
        None,
        validation_alias=AliasChoices("tool", "tool_name"),
        description="What to call: the name of the tool or prompt.",
    )
    arguments: dict[str, Any] | None = Field(
        None, description="What the tool or prompt is given, by name; else the step's input."
    )
    params: dict[str, Any] | None = Field(
        None, description="The parameters of any other method, as the protocol names them."
    )
    uri: str | None = Field(None, description="The resource that `resources/read` reads.")
    input: dict[str, Any] | None = Field(None, description="The arguments, where there are none.")
    auth: Any = Field(None, description="The name of a credential, or its fields.")
    headers: dict[str, Any] | None = Field(
        None, description="Headers of every message; those that are null are left out."
    )
    fail_on_error: bool = Field(
        False,
        description="Whether an error that the tool reports (`isError`) fails the step; otherwise "
        "it is a result with `status: error`.",
    )
    timeout: Time = Field(
        DEFAULT_TIMEOUT,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take in all: seconds, or text such as `30s`.",
    )
    verify: bool = Field(
        True,
        validation_alias=AliasChoices("verify_ssl", "verify"),
        description="Whether the certificate is checked.",
    )

    @field_validator("method", mode="before")
    @classmethod
    def _stripped(cls, value: Any) -> Any:
        return value.strip() if isinstance(value, str) else value


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{status, server, method, tool, result, data, content…}``: ``result`` is the server's, its
    fields stand beside; ``data`` is what it comes to (structured content, the text, the list)."""
    params = _params(request)
    server = _server(request, context)
    try:
        if request.method == HEALTH:
            result: Any = _health(server)
        elif request.method == "initialize":
            result = server.open()
        elif request.method in LISTS:
            result = _whole_list(server, request.method, params)
        else:
            result = server.call(request.method, params)
    finally:
        server.end()
    fields = result if isinstance(result, dict) else {}
    answer = {
        **fields,
        "status": "ok",
        "server": str(server.url.copy_with(userinfo=b"", query=None)),
        "method": request.method,
        "tool": request.tool,
        "result": result,
        "data": _data(request.method, result),
    }
    if fields.get("isError"):
        answer["status"] = "error"
        if request.fail_on_error:
            raise _tool_failed(request, answer)
    return answer


tool = Tool("mcp", input=Input, run=run, queue="io", needs=(("endpoint", "server", "url"),))


def _server(request: Input, context: Context) -> Server:
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "accept-encoding": "gzip, deflate",
        "user-agent": "callboard",
        # The same for every attempt, for servers that do things once.
        "idempotency-key": context.idempotency_key,
    }
    own = {
        name.lower(): str(value)
        for name, value in (request.headers or {}).items()
        if value is not None
    }
    query: dict[str, Any] = {}
    certificate = None
    if request.auth is not None:
        certificate = authenticate(request.auth, context, own, query)
    url = get_request(request.endpoint, {}).url
    manner = Manner(
        timeout=seconds(request.timeout, most=context.timeout),
        verify=request.verify,
        certificate=certificate,
        secret=frozenset({*own, "mcp-session-id"}),
    )
    url = url.copy_merge_params(query) if query else url
    deadline = time.monotonic() + manner.timeout
    return Server(url, {**headers, **own}, manner, context, deadline)


def _params(request: Input) -> dict[str, Any] | None:
    """What the method is given. Raises ``ToolError`` (kind schema) where its main key is missing."""
    given = dict(request.params or {})
    if request.method in {CALL, "prompts/get"}:
        name = request.tool or given.get("name")
        if not name:
            raise ToolError(
                f"{request.method} needs to know what to call; give tool", kind="schema"
            )
        arguments = request.arguments
        if arguments is None:
            arguments = given.get("arguments", request.input or {})
        return {**given, "name": name, "arguments": arguments}
    if request.method == "resources/read":
        uri = request.uri or given.get("uri") or (request.arguments or {}).get("uri")
        if not uri:
            raise ToolError("resources/read needs to know what to read; give uri", kind="schema")
        return {**given, "uri": uri}
    return {**given, **(request.arguments or {})} or None


def _whole_list(server: Server, method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """All pages of a list in one."""
    name, items, cursor = LISTS[method], [], None
    for _ in range(MAX_PAGES):
        page = server.call(method, {**(params or {}), **({"cursor": cursor} if cursor else {})})
        found = page.get(name) if isinstance(page, dict) else None
        if not isinstance(found, list):
            raise ToolError(f"the answer to {method} holds no list of {name}", kind="parse")
        items += found
        cursor = page.get("nextCursor")
        if not cursor:
            return {**{key: page[key] for key in page if key != "nextCursor"}, name: items}
    raise ToolError(f"{method} has more than {MAX_PAGES} pages", kind="resource")


def _health(server: Server) -> dict[str, Any]:
    """Whether the server speaks the protocol, and what it says of itself."""
    info = server.open()
    return {
        "healthy": True,
        "serverInfo": info.get("serverInfo"),
        "protocolVersion": info.get("protocolVersion"),
        "capabilities": info.get("capabilities"),
    }


def _data(method: str, result: Any) -> Any:
    """What a result comes to, for templates: less wrapping than the protocol's."""
    if not isinstance(result, dict):
        return result
    if method in LISTS:
        return result[LISTS[method]]
    if result.get("structuredContent") is not None:
        return result["structuredContent"]
    content = result.get("content") if method == CALL else None
    if isinstance(content, list):
        return _text(content) if _is_text(content) else content
    return result


def _is_text(content: list[Any]) -> bool:
    return bool(content) and all(
        isinstance(one, dict) and one.get("type") == "text" for one in content
    )


def _text(content: list[Any]) -> str:
    return "\n".join(
        str(one.get("text", ""))
        for one in content
        if isinstance(one, dict) and one.get("type") == "text"
    )


def _tool_failed(request: Input, answer: dict[str, Any]) -> ToolError:
    """The tool ran and says that it failed: an outcome, which no repetition promises to change."""
    content = answer.get("content")
    said = _text(content) if isinstance(content, list) else ""
    return ToolError(
        f"the tool {request.tool} reports an error: {said[:500] or 'it does not say which'}",
        kind="client_error",
        error_code="TOOL_ERROR",
        data=answer,
    )
