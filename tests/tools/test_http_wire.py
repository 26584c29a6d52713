"""How the http tool uses the network: HTTP/2, TLS, proxies, and how it lets go when told to."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h2.exceptions
import httpcore2
import pytest

from app.errors import ToolError
from app.tools import Context
from app.tools.web.guard import Stopped, _asked, request_of
from app.tools.web.transport import _Content, close
from tests.tools.secure import Authority, SecureServer, serving
from tests.tools.server import running

#: Longer than any of these may take, shorter than what waits would last without a way to stop.
PROMPT = 5.0


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server() -> Iterator[Any]:
    with running() as served:
        yield served


@pytest.fixture
def secure(tmp_path: Path, authority: Authority) -> Iterator[SecureServer]:
    with serving(tmp_path, authority) as served:
        yield served
    close()


@pytest.fixture
def older(tmp_path: Path, authority: Authority) -> Iterator[SecureServer]:
    with serving(tmp_path, authority, protocols=["http/1.1"]) as served:
        yield served
    close()


# ---------------------------------------------------------------------- HTTP/2 and TLS
def test_http2_is_used_where_it_is_offered(call: Any, secure: Any, older: Any) -> None:
    config = {"method": "POST", "json": {"a": 1}, "verify": False}
    found = call("http", {"url": f"{secure.url}/x?q=1", **config})["data"]
    assert (found["protocol"], found["path"], found["body"]) == ("HTTP/2", "/x?q=1", '{"a":1}')
    assert found["headers"]["idempotency-key"] == "7:probe:1:-1"
    assert call("http", {"url": older.url, "verify": False})["data"]["protocol"] == "HTTP/1.1"


def test_http2_connections_are_kept_and_carry_one_request_at_a_time(call: Any, secure: Any) -> None:
    config = {"url": secure.url, "verify": False}
    assert {call("http", config)["data"]["connection"] for _ in range(5)} == {1}
    with ThreadPoolExecutor(8) as threads:
        paths = [f"/{number}" for number in range(64)]
        found = list(
            threads.map(
                lambda path: call("http", {**config, "url": secure.url + path})["data"]["path"],
                paths,
            )
        )
    assert found == paths
    assert secure.connections <= 8


def test_a_large_http2_answer_comes_whole(call: Any, secure: Any) -> None:
    config = {"url": f"{secure.url}/large/3000000", "verify": False}
    assert len(call("http", config)["data"]) == 3_000_000


@pytest.mark.parametrize("path", ["half", "large/3000000"])
def test_an_http2_answer_given_up_takes_its_connection_along(
    call: Any, fail: Any, context: Context, secure: Any, path: str
) -> None:
    settings = replace(context.settings, http_bytes=1000)
    config = {"url": f"{secure.url}/{path}", "verify": False}
    assert fail("http", config, settings=settings).kind == "resource"
    after = call("http", {"url": secure.url, "verify": False})["data"]
    assert after["connection"] == 2


def test_headers_of_the_connection_are_left_out(call: Any, secure: Any) -> None:
    headers = {"Connection": "keep-alive", "Content-Length": "999", "Transfer-Encoding": "chunked"}
    config = {"method": "POST", "body": "hi", "headers": headers, "verify": False}
    found = call("http", {"url": secure.url, **config})["data"]
    assert (found["protocol"], found["body"]) == ("HTTP/2", "hi")
    assert found["headers"]["content-length"] == "2"


def test_a_broken_frame_is_an_error_of_the_connection(secure: Any) -> None:
    def broken() -> Iterator[bytes]:
        yield b"one"
        raise h2.exceptions.ProtocolError("a frame of nobody")

    content = _Content(httpcore2.Response(200, content=broken()))
    with pytest.raises(httpcore2.RemoteProtocolError, match="a frame of nobody"):
        list(content)


def test_a_certificate_that_nobody_vouches_for_is_refused(fail: Any, secure: Any) -> None:
    error = fail("http", {"url": secure.url})
    assert (error.kind, error.retryable) == ("connection", False)
    assert error.error_code == "untrusted_certificate"
    assert "SSL_CERT_FILE" in error.message


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_client_certificate_comes_from_the_credential(
    call: Any, secure: Any, authority: Authority, encrypted: bool
) -> None:
    pair = authority.issue("me", password=b"opensesame" if encrypted else None)
    auth = {"type": "certificate", "cert": pair.chain, "private_key": pair.key, "ca": authority.pem}
    if encrypted:
        auth["key_password"] = "opensesame"
    found = call("http", {"url": secure.url, "auth": auth})["data"]
    assert found["client"] == "me"
    # Nobody else gets the connection that was made with it.
    assert call("http", {"url": secure.url, "verify": False})["data"]["client"] is None


def test_a_certificate_may_come_with_a_token(call: Any, secure: Any, authority: Authority) -> None:
    pair = authority.issue("me")
    auth = {"cert": pair.chain + pair.key, "ca": authority.pem, "token": "t"}
    found = call("http", {"url": secure.url, "auth": auth})["data"]
    assert (found["client"], found["headers"]["authorization"]) == ("me", "Bearer t")


@pytest.mark.parametrize("what", ["no PEM", "the key of another", "a password is missing"])
def test_a_certificate_that_cannot_be_used(
    fail: Any, secure: Any, authority: Authority, what: str
) -> None:
    pair = authority.issue("me")
    auth = {
        "no PEM": {"cert": "canary", "private_key": "canary"},
        "the key of another": {"cert": pair.chain, "private_key": authority.issue("x").key},
        "a password is missing": {
            "cert": pair.chain,
            "private_key": authority.issue("x", password=b"opensesame").key,
        },
    }[what]
    error = fail("http", {"url": secure.url, "auth": {**auth, "ca": authority.pem}})
    assert error.kind == "auth"
    assert "canary" not in error.message
    assert error.__cause__ is None


# ---------------------------------------------------------------------- connections
def test_a_connection_that_the_server_has_closed_is_not_used_again(call: Any, server: Any) -> None:
    for _ in range(20):
        assert call("http", {"url": f"{server.url}/once"})["data"] == "once"


@pytest.mark.parametrize(("method", "sent"), [("GET", 2), ("PUT", 2), ("POST", 1)])
def test_what_may_be_repeated_is_sent_again_where_a_kept_connection_is_gone(
    call: Any, fail: Any, server: Any, method: str, sent: int
) -> None:
    call("http", {"url": server.url})
    # It hangs up without an answer, on the kept connection first and then on a new one.
    error = fail("http", {"url": f"{server.url}/slam", "method": method})
    assert (error.kind, error.retryable) == ("connection", True)
    assert [asked["method"] for asked in server.asked[1:]] == [method] * sent


def test_many_at_once(call: Any, server: Any) -> None:
    with ThreadPoolExecutor(16) as threads:
        paths = [f"/echo/{number}" for number in range(200)]
        found = list(
            threads.map(
                lambda path: call("http", {"url": server.url + path})["data"]["path"], paths
            )
        )
    assert found == paths


# ---------------------------------------------------------------------- letting go
@contextmanager
def _silent(*, full: bool) -> Iterator[str]:
    """A place that takes connections and says nothing; *full*: it does not even take them."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        place = listener.getsockname()
        # Whatever is beyond the backlog gets no answer to its first packet.
        filling = [socket.socket() for _ in range(8 if full else 0)]
        for one in filling:
            one.setblocking(False)
            one.connect_ex(place)
        try:
            yield f"127.0.0.1:{place[1]}"
        finally:
            for one in filling:
                one.close()


@contextmanager
def _place(what: str, server: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A URL that never answers in a way of its own."""
    if what == "lookup":
        real, ended = socket.getaddrinfo, threading.Event()

        def slow(host: str, *args: Any, **more: Any) -> Any:
            if host == "slow.example" and not more.get("flags"):
                ended.wait(60)
            return real(host, *args, **more)

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        yield "http://slow.example/"
        ended.set()
    elif what in {"connect", "handshake"}:
        with _silent(full=what == "connect") as place:
            yield f"https://{place}/"
    else:
        yield f"{server.url}/{what}"


WAITS = ["lookup", "connect", "handshake", "hang", "drip"]


@pytest.mark.parametrize("what", WAITS)
def test_a_cancelled_request_lets_go_wherever_it_waits(
    fail: Any, server: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    cancelled = threading.Event()
    with _place(what, server, monkeypatch) as url:
        alarm = threading.Timer(0.3, cancelled.set)
        alarm.start()
        begin = time.monotonic()
        error = fail("http", {"url": url}, cancelled=cancelled)
        alarm.join()
    assert (error.kind, error.retryable) == ("cancelled", False)
    assert time.monotonic() - begin < PROMPT


@pytest.mark.parametrize("what", WAITS)
def test_the_timeout_is_for_everything(
    fail: Any, server: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    with _place(what, server, monkeypatch) as url:
        begin = time.monotonic()
        error = fail("http", {"url": url, "timeout": 0.3})
    assert (error.kind, error.retryable) == ("timeout", True)
    assert "0.3 seconds" in error.message
    assert time.monotonic() - begin < PROMPT


def test_a_cancelled_http2_request_lets_go_and_harms_no_other(
    call: Any, fail: Any, secure: SecureServer
) -> None:
    cancelled = threading.Event()
    config = {"verify": False}

    def cancel() -> None:
        secure.hung.wait(30)
        cancelled.set()

    waiter = threading.Thread(target=cancel)
    waiter.start()
    error = fail("http", {"url": f"{secure.url}/hang", **config}, cancelled=cancelled)
    waiter.join()
    assert error.kind == "cancelled"
    assert call("http", {"url": secure.url, **config})["data"]["protocol"] == "HTTP/2"


def test_an_address_that_is_silent_gives_way_to_the_next(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.tools.web.guard.ATTEMPT", 0.2)
    with _silent(full=True) as place, socket.socket() as listener:
        port = int(place.rpartition(":")[2])
        listener.bind(("127.0.0.2", port))
        listener.listen()
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.1", "127.0.0.2")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65_536)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

        thread = threading.Thread(target=answer)
        thread.start()
        assert call("http", {"url": f"http://two.example:{port}/"})["data"] == "hi"
        thread.join()


def test_a_lookup_that_fails_is_an_error_of_the_connection(context: Context) -> None:
    with request_of(context, 10), pytest.raises(Exception, match="cannot be resolved"):
        _asked("no-such-host.invalid", 80)
    context.cancelled.set()
    with request_of(context, 10), pytest.raises(Stopped):
        _asked("no-such-host.invalid", 80)


# ---------------------------------------------------------------------- proxies
class Proxy:
    """A proxy that forwards nothing: it answers itself, and tells what it was asked."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.asked: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                text = b""
                while b"\r\n\r\n" not in text:
                    text += client.recv(65_536)
                self.asked.append(text)
                status = b"502 No" if text.startswith(b"CONNECT") else b"200 OK"
                client.sendall(
                    b"HTTP/1.1 %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi" % status
                )

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    found = Proxy()
    yield found
    found.close()


@pytest.fixture
def through(context: Context, proxy: Proxy) -> Callable[..., Any]:
    return lambda **more: replace(
        context.settings, http_proxy=f"http://u:p%40@127.0.0.1:{proxy.port}", **more
    )


def test_a_proxy_is_used_where_a_setting_names_one(call: Any, proxy: Proxy, through: Any) -> None:
    result = call("http", {"url": "http://only-there.invalid/x"}, settings=through())
    assert result["data"] == "hi"
    head = proxy.asked[0].decode()
    assert head.startswith("GET http://only-there.invalid/x HTTP/1.1\r\n")
    login = base64.b64encode(b"u:p@").decode()
    assert f"Proxy-Authorization: Basic {login}" in head


def test_a_proxy_that_refuses_is_an_error_of_the_connection(
    fail: Any, proxy: Proxy, through: Any
) -> None:
    error = fail("http", {"url": "https://only-there.invalid/"}, settings=through())
    assert (error.kind, error.retryable) == ("connection", True)
    assert proxy.asked[0].startswith(b"CONNECT only-there.invalid:443 ")


@pytest.mark.parametrize(
    ("url", "more"),
    [
        ("http://169.254.169.254/", {}),
        ("https://metadata.google.internal/", {}),
        ("http://10.0.0.1/", {"http_private": "refuse"}),
    ],
)
def test_a_proxy_is_no_way_around_the_rules(
    fail: Any, proxy: Proxy, through: Any, url: str, more: dict[str, Any]
) -> None:
    error = fail("http", {"url": url}, settings=through(**more))
    assert error.error_code == "refused_address"
    assert proxy.asked == []


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "127.0.0.1:1", "http://"])
def test_a_proxy_that_is_none_is_an_error_without_its_login(
    call: Any, context: Context, url: str
) -> None:
    settings = replace(context.settings, http_proxy=url)
    with pytest.raises(ToolError, match="CALLBOARD_HTTP_PROXY"):
        call("http", {"url": "http://127.0.0.1:1/"}, settings=settings)
