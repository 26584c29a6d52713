"""The mcp tool's contract against a real server: calls to messages, answers to results and errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from app.tools import Context, load_tool
from tests.tools.conftest import Known
from tests.tools.mcp_server import INFO, TOOLS, Server, running

#: How the server answers: JSON, a stream of events, or only within a session.
MODES = ["plain", "stream", "strict"]

FAIL = {"fail_on_error": True}


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as served:
        yield served


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("config", "data"),
    [
        pytest.param({"tool": "add", "arguments": {"a": 1, "b": 2}}, {"sum": 3}, id="structured"),
        pytest.param({"tool": "add", "input": {"a": 1, "b": 2}}, {"sum": 3}, id="from the input"),
        pytest.param({"tool": "say"}, "hello\nyou", id="text"),
        pytest.param(
            {"tool": "say", "arguments": {"words": ["grüße ✓"]}}, "grüße ✓", id="text of the world"
        ),
        pytest.param({"tool": "say", "arguments": {"words": []}}, [], id="no content"),
        pytest.param(
            {"tool": "paint"},
            [{"type": "image", "data": "aGk=", "mimeType": "x/y"}],
            id="an image",
        ),
        pytest.param({"method": "tools/list"}, TOOLS, id="a list, all its pages"),
        pytest.param(
            {"method": "resources/read", "uri": "file:///a"},
            {"contents": [{"uri": "file:///a", "text": "hi"}]},
            id="a resource",
        ),
        pytest.param({"method": "echo/params", "params": {"x": 1}}, {"x": 1}, id="any method"),
        pytest.param({"method": "echo/params"}, {}, id="without parameters"),
        pytest.param({"method": "plain/text"}, "text", id="a result that is no mapping"),
    ],
)
def test_calls(call: Any, server: Server, mode: str, config: dict[str, Any], data: Any) -> None:
    result = call("mcp", {"endpoint": f"{server.url}/{mode}", **config})
    assert result["data"] == data
    assert (result["status"], result["method"]) == ("ok", config.get("method", "tools/call"))
    assert result["tool"] == config.get("tool")


def test_result_has_the_documented_shape(call: Any, server: Server) -> None:
    config = {"server": f"{server.url}/plain?key=k", "tool": "add", "arguments": {"a": 1, "b": 2}}
    result = call("mcp", config)
    content = [{"type": "text", "text": '{"sum": 3}'}]
    assert result == {
        "status": "ok",
        "server": f"{server.url}/plain",
        "method": "tools/call",
        "tool": "add",
        "result": {"content": content, "structuredContent": {"sum": 3}},
        "content": content,
        "structuredContent": {"sum": 3},
        "data": {"sum": 3},
    }
    asked = server.asked[0]
    assert asked["params"] == {"name": "add", "arguments": {"a": 1, "b": 2}}
    assert asked["headers"]["accept"] == "application/json, text/event-stream"
    assert asked["headers"]["idempotency-key"] == "7:probe:1:-1"
    assert asked["query"] == {"key": ["k"]}


@pytest.mark.parametrize("mode", MODES)
def test_health(call: Any, server: Server, mode: str) -> None:
    result = call("mcp", {"url": f"{server.url}/{mode}", "method": "health"})
    assert result["healthy"] is True
    assert result["data"]["serverInfo"] == INFO["serverInfo"]
    assert server.methods() == ["initialize", "notifications/initialized"]


# ---------------------------------------------------------------------- sessions
def test_a_server_that_asks_for_no_session_gets_one_message(call: Any, server: Server) -> None:
    call("mcp", {"url": f"{server.url}/plain", "tool": "say"})
    assert server.methods() == ["tools/call"]
    assert server.ended == []


def test_a_session_is_opened_confirmed_used_and_ended(call: Any, server: Server) -> None:
    call("mcp", {"url": f"{server.url}/strict", "method": "tools/list"})
    assert server.methods() == [
        "tools/list", "initialize", "notifications/initialized", *["tools/list"] * 3
    ]  # fmt: skip
    assert server.asked[1]["params"]["clientInfo"]["name"] == "callboard"
    used = {asked["headers"].get("mcp-session-id") for asked in server.asked[2:]}
    assert used == {"session-2"}
    # What was agreed on, in each message after the first.
    versions = {asked["headers"].get("mcp-protocol-version") for asked in server.asked[2:]}
    assert versions == {INFO["protocolVersion"]}
    assert server.ended == ["session-2"]
    assert server.sessions == set()


def test_a_session_that_was_forgotten_is_opened_again(call: Any, server: Server) -> None:
    server.forgetful = True
    # The first list opens a session, which is gone when its page is asked for.
    result = call("mcp", {"url": f"{server.url}/strict", "method": "tools/list"})
    assert result["data"] == TOOLS
    assert server.methods().count("initialize") == 2


def test_a_failed_call_ends_its_session_too(fail: Any, server: Server) -> None:
    fail("mcp", {"url": f"{server.url}/strict", "tool": "fail", **FAIL})
    assert len(server.ended) == 1


# ---------------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("path", "config", "expected"),
    [
        pytest.param("plain", {"tool": "nope"}, ("schema", False, "RPC_-32602"), id="arguments"),
        pytest.param("plain", {"method": "nope"}, ("not_found", False, "RPC_-32601"), id="method"),
        pytest.param(
            "plain", {"method": "error/-32002"}, ("not_found", False, "RPC_-32002"), id="resource"
        ),
        pytest.param(
            "plain", {"method": "error/-32603"}, ("server_error", True, "RPC_-32603"), id="internal"
        ),
        pytest.param(
            "stream", {"method": "error/-32001"}, ("server_error", False, "RPC_-32001"), id="own"
        ),
        pytest.param(
            "strict", {"tool": "nope"}, ("schema", False, "RPC_-32602"), id="in a session"
        ),
        pytest.param(
            "plain", {"tool": "fail", **FAIL}, ("client_error", False, "TOOL_ERROR"), id="tool"
        ),
        pytest.param(
            "strict", {"tool": "fail", **FAIL}, ("client_error", False, "TOOL_ERROR"), id="same"
        ),
        pytest.param("status/401", {"tool": "x"}, ("auth", False, "HTTP_401"), id="no login"),
        pytest.param("status/429", {"tool": "x"}, ("rate_limit", True, "HTTP_429"), id="too many"),
        pytest.param("status/503", {"tool": "x"}, ("server_error", True, "HTTP_503"), id="down"),
        pytest.param("status/404", {"tool": "x"}, ("not_found", False, "HTTP_404"), id="no such"),
        pytest.param(
            "status/400", {"tool": "x"}, ("client_error", False, "HTTP_400"), id="never content"
        ),
        pytest.param(
            "picky", {"tool": "x"}, ("client_error", False, "HTTP_400"), id="its first word counts"
        ),
        pytest.param("raw/nojson", {"tool": "x"}, ("parse", False, None), id="no JSON"),
        pytest.param("raw/list", {"tool": "x"}, ("parse", False, None), id="no message"),
        pytest.param("raw/other", {"tool": "x"}, ("parse", False, None), id="the wrong answer"),
        pytest.param("raw/nothing", {"tool": "x"}, ("parse", False, None), id="no result"),
        pytest.param("raw/badstream", {"tool": "x"}, ("parse", False, None), id="a bad event"),
        pytest.param("raw/silent", {"tool": "x"}, ("connection", True, None), id="no answer"),
        pytest.param("raw/half", {"tool": "x"}, ("connection", True, None), id="half an event"),
        pytest.param("raw/text", {"tool": "x"}, ("server_error", False, None), id="a bare text"),
        pytest.param("raw/list", {"method": "tools/list"}, ("parse", False, None), id="no list"),
        pytest.param(
            "plain", {"tool": "wait", "timeout": 0.2}, ("timeout", True, None), id="too slow"
        ),
        pytest.param("plain", {}, ("schema", False, None), id="no tool named"),
        pytest.param(
            "plain", {"method": "resources/read"}, ("schema", False, None), id="no uri named"
        ),
        pytest.param(
            "plain", {"tool": "say", "auth": "gone"}, ("auth", False, None), id="no credential"
        ),
    ],
)
def test_errors(
    fail: Any, server: Server, path: str, config: dict[str, Any], expected: tuple[str, bool, Any]
) -> None:
    begin = time.monotonic()
    error = fail("mcp", {"endpoint": f"{server.url}/{path}", **config})
    assert (error.kind, error.retryable, error.error_code) == expected
    assert time.monotonic() - begin < 10


def test_an_error_that_the_tool_reports_is_data(call: Any, server: Server) -> None:
    result = call("mcp", {"url": f"{server.url}/plain", "tool": "fail"})
    assert (result["status"], result["isError"]) == ("error", True)
    assert result["data"]


def test_errors_carry_what_the_server_said(fail: Any, server: Server) -> None:
    error = fail("mcp", {"url": f"{server.url}/plain", "method": "error/-32001"})
    assert "it went wrong" in error.message
    assert error.details["rpc"] == {"code": -32001, "data": {"why": 1}}
    error = fail("mcp", {"url": f"{server.url}/plain", "tool": "fail", **FAIL})
    assert "the disk is full" in error.message
    assert error.data["isError"] is True
    error = fail("mcp", {"url": f"{server.url}/status/429", "tool": "x"})
    assert error.details["retry_after"] == 3.0
    assert error.data["data"] == {"why": "asked for"}


def test_a_large_answer_is_refused_clearly(fail: Any, context: Context, server: Server) -> None:
    settings = replace(context.settings, result_bytes=1000)
    config = {"url": f"{server.url}/plain", "tool": "say", "arguments": {"words": ["x" * 2000]}}
    error = fail("mcp", config, settings=settings)
    assert error.kind == "resource"
    assert "CALLBOARD_RESULT_BYTES" in error.message


@pytest.mark.parametrize("url", ["http://169.254.169.254/", "http://metadata.google.internal/"])
def test_places_are_those_of_http(fail: Any, url: str) -> None:
    assert fail("mcp", {"url": url, "tool": "x"}).error_code == "refused_address"


def test_a_cancelled_call_is_closed(fail: Any, server: Server) -> None:
    cancelled = threading.Event()

    def cancel() -> None:
        server.hung.wait(30)
        cancelled.set()

    waiter = threading.Thread(target=cancel)
    waiter.start()
    begin = time.monotonic()
    error = fail("mcp", {"url": f"{server.url}/plain", "tool": "wait"}, cancelled=cancelled)
    waiter.join()
    assert (error.kind, error.retryable) == ("cancelled", False)
    assert time.monotonic() - begin < 10


# ---------------------------------------------------------------------- auth
def test_auth_and_headers_go_with_every_message(call: Any, server: Server) -> None:
    config = {
        "url": f"{server.url}/strict",
        "tool": "say",
        "auth": "token",
        "headers": {"X-Own": 1, "X-None": None},
    }
    call("mcp", config, secrets=Known({"token": "s3cret"}))
    for asked in server.asked:
        assert asked["headers"]["authorization"] == "Bearer s3cret"
        assert asked["headers"]["x-own"] == "1"
        assert "x-none" not in asked["headers"]


def test_an_api_key_may_go_in_the_query(call: Any, server: Server) -> None:
    auth = {"type": "api_key", "value": "canary", "in": "query", "param_name": "k"}
    result = call("mcp", {"url": f"{server.url}/plain", "tool": "say", "auth": auth})
    assert server.asked[0]["query"] == {"k": ["canary"]}
    assert "canary" not in str(result)


def test_secrets_stay_with_their_host(call: Any, server: Server) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    config = {"tool": "say", "auth": {"type": "bearer", "token": "canary"}}
    call("mcp", {"url": f"{server.url}/redirect/{elsewhere}/plain", **config})
    assert "authorization" in server.asked[0]["headers"]
    assert "authorization" not in server.asked[1]["headers"]


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"tool": "x"}, id="no server"),
        pytest.param({"url": "http://x/", "method": ""}, id="no method"),
        pytest.param({"url": "http://x/", "arguments": [1]}, id="arguments by position"),
    ],
)
def test_input_is_checked(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        load_tool("mcp").input.model_validate(config)
