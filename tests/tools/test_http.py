"""The http tool's contract against a real server: inputs to requests, answers to results and errors."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.tools.conftest import Known
from tests.tools.server import running


@pytest.fixture
def server() -> Iterator[Any]:
    with running() as served:
        yield served


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({}, {"method": "GET", "query": {}, "body": ""}, id="a bare GET"),
        pytest.param({"method": "post"}, {"method": "POST"}, id="methods in any case"),
        pytest.param(
            {"params": {"a": 1, "b": True, "c": None, "d": ["x", "y"]}},
            {"query": {"a": ["1"], "b": ["true"], "d": ["x", "y"]}},
            id="params as text, nulls dropped",
        ),
        pytest.param(
            {"data": {"a": 1}}, {"query": {"a": ["1"]}, "body": ""}, id="GET data is query"
        ),
        pytest.param(
            {"method": "DELETE", "data": {"a": 1}},
            {"query": {"a": ["1"]}},
            id="DELETE data as well",
        ),
        pytest.param(
            {"method": "POST", "data": {"a": 1}}, {"body": '{"a":1}'}, id="POST data is JSON"
        ),
        pytest.param(
            {"method": "POST", "data": {"query": {"q": 1}, "body": {"b": 2}}},
            {"query": {"q": ["1"]}, "body": '{"b":2}'},
            id="data with query and body",
        ),
        pytest.param({"method": "PUT", "json": [1]}, {"body": "[1]"}, id="json"),
        pytest.param({"method": "POST", "payload": {"a": 1}}, {"body": '{"a":1}'}, id="payload"),
        pytest.param({"method": "POST", "body": "raw"}, {"body": "raw"}, id="a body as text"),
        pytest.param({"method": "POST", "form": {"a": 1, "b": None}}, {"body": "a=1"}, id="form"),
        pytest.param(
            {
                "method": "POST",
                "data": {"a": "x y"},
                "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            },
            {"body": "a=x+y"},
            id="the content type chooses the encoding",
        ),
        pytest.param(
            {"spec": {"method": "POST", "params": {"a": 1}}, "method": "PUT"},
            {"method": "PUT", "query": {"a": ["1"]}},
            id="keys under spec, the tool's own first",
        ),
    ],
)
def test_request(call: Any, server: Any, config: dict[str, Any], expected: dict[str, Any]) -> None:
    asked = call("http", {"url": server.url, **config})["data"]
    assert {key: asked[key] for key in expected} == expected


def test_multipart_names_its_boundary(call: Any, server: Any) -> None:
    config = {
        "method": "POST",
        "data": {"a": "1"},
        "headers": {"Content-Type": "multipart/form-data"},
    }
    asked = call("http", {"endpoint": server.url, **config})["data"]
    assert asked["headers"]["content-type"].startswith("multipart/form-data; boundary=")
    assert 'name="a"' in asked["body"]


def test_params_join_those_of_the_url(call: Any, server: Any) -> None:
    asked = call("http", {"url": f"{server.url}/?a=1", "params": {"b": 2}})["data"]
    assert asked["query"] == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        pytest.param({"type": "bearer", "token": "t"}, "authorization", "Bearer t", id="bearer"),
        pytest.param(
            {"type": "basic", "username": "u", "password": "p"},
            "authorization",
            "Basic dTpw",
            id="basic",
        ),
        pytest.param({"type": "api_key", "value": "k"}, "x-api-key", "k", id="api key"),
        pytest.param(
            {"type": "api_key", "api_key": "k", "header_name": "X-Own"},
            "x-own",
            "k",
            id="its header",
        ),
        pytest.param(
            {"api": {"type": "bearer", "token": "t"}}, "authorization", "Bearer t", id="alias"
        ),
        pytest.param(
            {"type": "api_key", "value": "k", "prefix": "Key "}, "x-api-key", "Key k", id="a prefix"
        ),
        pytest.param(
            {"one": {"type": "bearer", "token": "t"}, "two": {"type": "api_key", "value": "k"}},
            "x-api-key",
            "k",
            id="several under aliases",
        ),
        pytest.param(
            {"type": "httpBasicAuth", "login": "u", "password": "p"},
            "authorization",
            "Basic dTpw",
            id="other names of basic",
        ),
        pytest.param("plain", "authorization", "Bearer s3cret", id="a secret by name"),
        pytest.param("object", "authorization", "Basic dTpw", id="a secret that is an object"),
        pytest.param(
            {"source": "secret", "name": "plain", "type": "api_key"},
            "x-api-key",
            "s3cret",
            id="source secret",
        ),
        pytest.param(
            {"type": "bearer", "credential": "plain"},
            "authorization",
            "Bearer s3cret",
            id="a credential by name",
        ),
        pytest.param(
            {"type": "api_key", "key": "k"}, "x-api-key", "k", id="the key of an API is no name"
        ),
    ],
)
def test_auth(call: Any, server: Any, auth: Any, header: str, value: str) -> None:
    secrets = {"plain": "s3cret", "object": '{"data": {"username": "u", "password": "p"}}'}
    asked = call("http", {"url": server.url, "auth": auth}, secrets=Known(secrets))["data"]
    assert asked["headers"][header] == value


def test_headers_as_text_and_nulls_dropped(call: Any, server: Any) -> None:
    headers = {"X-None": None, "X-Number": 7, "X-Flag": True, "X-List": [1], "Accept": "text/csv"}
    seen = call("http", {"url": server.url, "headers": headers})["data"]["headers"]
    assert (seen["x-number"], seen["x-flag"], seen["x-list"]) == ("7", "true", "[1]")
    assert seen["accept"] == "text/csv"
    assert "x-none" not in seen


def test_a_header_may_end_in_a_value_that_is_missing(call: Any, server: Any) -> None:
    asked = call("http", {"url": server.url, "headers": {"Authorization": "Bearer "}})["data"]
    assert asked["headers"]["authorization"] == "Bearer"


def test_the_status_of_an_error_has_three_names(fail: Any, server: Any) -> None:
    error = fail("http", {"url": f"{server.url}/status/503"}).to_dict()
    assert [error[name] for name in ("status_code", "http_status", "status")] == [503, 503, 503]


@pytest.mark.parametrize("auth", ["pg", {"credential": "pg"}, {"db": {"credential": "pg"}}])
def test_a_credential_without_a_login_is_named(fail: Any, server: Any, auth: Any) -> None:
    secrets = Known(
        {"pg": json.dumps({"db_host": "h", "db_password": "canary"})}, {"pg": "postgres"}
    )
    error = fail("http", {"url": server.url, "auth": auth}, secrets=secrets)
    assert "the credential 'pg' (type postgres) holds neither a token" in error.message
    assert "canary" not in str(error)


@pytest.mark.parametrize(
    "auth",
    [
        pytest.param("nope", id="an unknown name"),
        pytest.param({"type": "bearer"}, id="no token"),
        pytest.param({"type": "api_key"}, id="no key"),
        pytest.param({"type": "certificate"}, id="no certificate"),
        pytest.param({"type": "oauth2", "client_id": "c"}, id="a client that has no token yet"),
        pytest.param({}, id="nothing"),
        pytest.param(7, id="no mapping"),
    ],
)
def test_auth_that_cannot_be_used(fail: Any, server: Any, auth: Any) -> None:
    error = fail("http", {"url": server.url, "auth": auth})
    assert (error.kind, error.retryable) == ("auth", False)
    assert server.asked == []


def test_an_api_key_may_go_in_the_query_and_stays_out_of_errors(
    call: Any, fail: Any, server: Any
) -> None:
    auth = {"type": "api_key", "value": "canary", "in": "query", "param_name": "k"}
    assert call("http", {"url": server.url, "auth": auth})["data"]["query"] == {"k": ["canary"]}
    error = fail("http", {"url": f"{server.url}/status/500", "auth": auth})
    assert "canary" not in error.message


def test_result_has_the_documented_shape(call: Any, server: Any) -> None:
    result = call("http", {"url": f"{server.url}/gzip"})
    assert result["status_code"] == 200
    assert result["headers"]["content-type"] == "application/json"
    assert result["url"] == f"{server.url}/gzip"
    assert 0 < result["elapsed"] < 60
    assert result["data"] == result["body"] == {"a": 1}


@pytest.mark.parametrize(
    ("path", "config", "data"),
    [
        pytest.param("text", {}, "grüße", id="text in its charset"),
        pytest.param("binary", {}, "/wD+", id="other bytes as base64"),
        pytest.param("gzip", {"response_type": "text"}, '{"a": 1}', id="JSON as text where asked"),
        pytest.param("gzip", {"response_type": "binary"}, "eyJhIjogMX0=", id="or as base64"),
        pytest.param("nojson", {}, "{nope", id="broken JSON as text"),
        pytest.param("empty", {}, None, id="nothing is null"),
        pytest.param("chunked", {}, "one two", id="chunks"),
        pytest.param("deflate", {}, {"a": 1}, id="deflate"),
        pytest.param("gzip", {"response_type": "auto"}, {"a": 1}, id="auto is as not given"),
        pytest.param("echo", {"method": "HEAD"}, None, id="the answer to HEAD has no body"),
        pytest.param("redirect/text", {}, "grüße", id="redirects are followed"),
    ],
)
def test_payload(call: Any, server: Any, path: str, config: dict[str, Any], data: Any) -> None:
    result = call("http", {"url": f"{server.url}/{path}", **config})
    assert result["data"] == data
    assert ("encoding" in result) == (data in ["/wD+", "eyJhIjogMX0="])


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, "client_error", False),
        (401, "auth", False),
        (403, "auth", False),
        (404, "not_found", False),
        (408, "timeout", True),
        (422, "client_error", False),
        (429, "rate_limit", True),
        (500, "server_error", True),
        (503, "server_error", True),
    ],
)
def test_status(fail: Any, server: Any, status: int, kind: str, retryable: bool) -> None:
    error = fail("http", {"url": f"{server.url}/status/{status}?token=canary"})
    assert (error.kind, error.retryable, error.error_code) == (kind, retryable, f"HTTP_{status}")
    assert error.details["http"]["status"] == status
    assert error.details["http"]["headers"]["content-type"] == "application/json"
    assert error.data["data"] == {"why": "asked for"}
    assert error.message.startswith(f"HTTP {status}")
    assert "canary" not in error.message
    assert error.details.get("retry_after") == (7.0 if status == 429 else None)


@pytest.mark.parametrize(
    ("path", "config", "expected"),
    [
        pytest.param("hang", {"timeout": 0.2}, ("timeout", True), id="no answer in time"),
        pytest.param("drip", {"timeout": 0.3}, ("timeout", True), id="an answer that never ends"),
        pytest.param("slam", {}, ("connection", True), id="hangs up"),
        pytest.param("reset", {}, ("connection", True), id="reset in the middle"),
        pytest.param("garbage", {}, ("connection", True), id="no HTTP"),
        pytest.param("badgzip", {}, ("parse", False), id="no gzip"),
        pytest.param("nowhere", {}, ("client_error", False), id="a redirect to nowhere"),
        pytest.param("cut", {}, ("connection", True), id="cut short"),
        pytest.param("loop", {}, ("client_error", False), id="redirects for ever"),
        pytest.param("redirect/x", {"follow_redirects": False}, ("client_error", False), id="302"),
        pytest.param("nojson", {"response_type": "json"}, ("parse", False), id="not JSON"),
        pytest.param("redirect/ftp://x/", {}, ("client_error", False), id="redirect to elsewhere"),
    ],
)
def test_trouble(
    fail: Any, server: Any, path: str, config: dict[str, Any], expected: tuple[str, bool]
) -> None:
    begin = time.monotonic()
    error = fail("http", {"url": f"{server.url}/{path}", **config})
    assert (error.kind, error.retryable) == expected
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("url", "kind", "retryable"),
    [
        pytest.param("http://127.0.0.1:1/", "connection", True, id="refused"),
        pytest.param("http://no-such-host.invalid/", "connection", True, id="unknown name"),
        pytest.param("ftp://127.0.0.1/", "schema", False, id="another scheme"),
        pytest.param("/relative", "schema", False, id="no host"),
        pytest.param("http://[::bad/", "schema", False, id="malformed"),
    ],
)
def test_places(fail: Any, url: str, kind: str, retryable: bool) -> None:
    error = fail("http", {"url": url})
    assert (error.kind, error.retryable) == (kind, retryable)


@pytest.mark.parametrize(
    ("status", "method", "after", "body"),
    [
        (301, "POST", "GET", ""),
        (301, "PUT", "PUT", "[1]"),
        (302, "POST", "GET", ""),
        (303, "PUT", "GET", ""),
        (307, "POST", "POST", "[1]"),
        (308, "POST", "POST", "[1]"),
    ],
)
def test_redirects_change_the_method_as_browsers_do(
    call: Any, server: Any, *, status: int, method: str, after: str, body: str
) -> None:
    config = {"url": f"{server.url}/moved/{status}/echo", "method": method, "json": [1]}
    asked = call("http", config)["data"]
    assert (asked["method"], asked["body"]) == (after, body)
    assert ("content-type" in asked["headers"]) == bool(body)


def test_a_login_in_the_url_becomes_a_header_and_is_told_to_nobody(call: Any, server: Any) -> None:
    known = Known()
    url = server.url.replace("http://", "http://u:canary@")
    result = call("http", {"url": url}, secrets=known)
    assert result["data"]["headers"]["authorization"] == "Basic dTpjYW5hcnk="
    assert "canary" not in result["url"]
    assert {"canary", "dTpjYW5hcnk="} <= set(known.concealed)


def test_idempotency_key_goes_with_what_changes_things(call: Any, server: Any) -> None:
    for method, own in (("GET", False), ("POST", True), ("PUT", True), ("DELETE", True)):
        headers = call("http", {"url": server.url, "method": method})["data"]["headers"]
        assert headers.get("idempotency-key") == ("7:probe:1:-1" if own else None)
    given = {"url": server.url, "method": "POST", "headers": {"Idempotency-Key": "mine"}}
    assert call("http", given)["data"]["headers"]["idempotency-key"] == "mine"


def test_secrets_stay_with_their_host(call: Any, server: Any) -> None:
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    auth = {"type": "api_key", "value": "canary"}
    config = {"url": f"{server.url}/redirect/{elsewhere}/echo", "auth": auth}
    assert "canary" not in str(call("http", config)["data"]["headers"])
    config["url"] = f"{server.url}/redirect/echo"
    assert call("http", config)["data"]["headers"]["x-api-key"] == "canary"
    own = {"Private-Token": "canary", "X-Trace": "seen"}
    config = {"url": f"{server.url}/redirect/{elsewhere}/echo", "headers": own}
    headers = call("http", config)["data"]["headers"]
    assert headers["x-trace"] == "seen"
    assert "private-token" not in headers


def test_cookies_live_as_long_as_the_request(call: Any, server: Any) -> None:
    followed = call("http", {"url": f"{server.url}/redirect/echo"})["data"]
    assert followed["headers"]["cookie"] == "seen=1"
    assert "cookie" not in call("http", {"url": server.url})["data"]["headers"]


def test_proxies_of_the_environment_are_not_used(
    call: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert call("http", {"url": server.url})["status_code"] == 200


def test_connections_are_kept(call: Any, server: Any) -> None:
    ports = {call("http", {"url": server.url})["data"]["connection"] for _ in range(5)}
    assert len(ports) == 1


def test_a_cancelled_request_is_closed(fail: Any, server: Any) -> None:
    cancelled = threading.Event()

    def cancel() -> None:
        server.hung.wait(30)
        cancelled.set()

    waiter = threading.Thread(target=cancel)
    waiter.start()
    error = fail("http", {"url": f"{server.url}/hang"}, cancelled=cancelled)
    waiter.join()
    assert (error.kind, error.retryable) == ("cancelled", False)


def test_a_failed_request_does_not_harm_the_next(call: Any, fail: Any, server: Any) -> None:
    fail("http", {"url": f"{server.url}/cut"})
    fail("http", {"url": f"{server.url}/hang", "timeout": 0.1})
    assert call("http", {"url": server.url})["status_code"] == 200
