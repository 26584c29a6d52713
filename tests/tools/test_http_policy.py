"""Where requests may go: addresses, names and ports, at connect and on every redirect."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from app.errors import ToolError
from app.settings import Settings, load
from app.tools import Context
from app.tools.web import policy
from app.tools.web.fetch import fetch
from app.tools.web.policy import is_here, is_metadata, is_private, policy_of, protect
from tests.tools.server import running

METADATA = "169.254.169.254"


@pytest.fixture
def server() -> Iterator[Any]:
    with running() as served:
        yield served


@pytest.mark.parametrize(
    ("address", "metadata", "private"),
    [
        ("169.254.0.1", True, True),
        ("fe80::1", True, True),
        ("::ffff:169.254.169.254", True, True),
        ("::169.254.169.254", True, True),
        ("64:ff9b::a9fe:a9fe", True, True),
        ("64:ff9b:1::a9fe:a9fe", True, True),
        ("2002:a9fe:a9fe::", True, True),
        ("fd00:ec2::254", True, True),
        ("fd20:ce::254", True, True),
        ("100.100.100.200", True, True),
        ("168.63.129.16", True, False),
        ("127.0.0.1", False, True),
        ("0.0.0.0", False, True),
        ("10.0.0.1", False, True),
        ("192.168.1.1", False, True),
        ("100.64.0.1", False, True),
        ("::ffff:10.0.0.1", False, True),
        ("64:ff9b::a00:1", False, True),
        ("::1", False, True),
        ("::", False, True),
        ("fd12::1", False, True),
        ("ff02::1", False, True),
        ("93.184.216.34", False, False),
        ("2606:4700::1111", False, False),
        ("64:ff9b::5db8:d822", False, False),
    ],
)
def test_addresses(address: str, metadata: bool, private: bool) -> None:
    found = ipaddress.ip_address(address)
    assert (is_metadata(found), is_private(found)) == (metadata, private)


def test_an_address_of_this_machine_is_known() -> None:
    assert is_here(ipaddress.ip_address("127.1.2.3"))
    assert is_here(ipaddress.ip_address("::ffff:127.0.0.1"))
    assert not is_here(ipaddress.ip_address("192.0.2.1"))


@pytest.mark.parametrize(
    "host",
    [
        pytest.param(METADATA, id="metadata"),
        pytest.param("2852039166", id="as one number"),
        pytest.param("0xa9fea9fe", id="hexadecimal"),
        pytest.param("[::ffff:169.254.169.254]", id="inside IPv6"),
        pytest.param("[64:ff9b::a9fe:a9fe]", id="through NAT64"),
        pytest.param("[fe80::1]", id="link-local"),
        pytest.param("[fe80::1%lo]", id="with a zone"),
        pytest.param("metadata.google.internal", id="by name"),
        pytest.param("METADATA.google.internal.", id="by name in another form"),
    ],
)
def test_places_that_are_always_refused(fail: Any, host: str) -> None:
    error = fail("http", {"url": f"http://{host}/"})
    assert (error.error_code, error.retryable) == ("refused_address", False)


def test_an_octal_address_is_none(fail: Any) -> None:
    assert fail("http", {"url": "http://0251.0376.0251.0376/"}).kind == "schema"


def _led_to(*addresses: str) -> Any:
    """A resolver of names that says so; what is written in digits is read as ever."""
    real = socket.getaddrinfo

    def answer(host: str, port: Any, *args: Any, **more: Any) -> Any:
        if host != "innocent.example":
            return real(host, port, *args, **more)
        if more.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "no digits")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    return answer


@pytest.mark.parametrize("addresses", [(METADATA,), ("127.0.0.1", METADATA)])
def test_a_name_that_leads_to_a_refused_address_is_refused(
    fail: Any, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _led_to(*addresses))
    assert fail("http", {"url": "http://innocent.example/"}).error_code == "refused_address"


def test_a_name_that_changes_its_mind_is_asked_once_per_connection(
    call: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was checked is what is connected to: no second lookup lies between."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def answer(host: str, port: Any, *args: Any, **more: Any) -> Any:
        if host != "innocent.example":
            return real(host, port, *args, **more)
        if more.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "no digits")
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else METADATA
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    url = server.url.replace("127.0.0.1", "innocent.example")
    assert call("http", {"url": url})["status_code"] == 200
    assert asked == ["innocent.example"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_a_refused_address_is_refused(fail: Any, server: Any, status: int) -> None:
    error = fail("http", {"url": f"{server.url}/moved/{status}/http://{METADATA}/"})
    assert error.error_code == "refused_address"


# ---------------------------------------------------------------------- by settings
def test_private_addresses_may_be_refused(
    call: Any, fail: Any, context: Context, server: Any
) -> None:
    assert call("http", {"url": server.url})["status_code"] == 200
    # Not even over a connection that others have opened.
    settings = replace(context.settings, http_private="refuse")
    error = fail("http", {"url": server.url}, settings=settings)
    assert error.error_code == "refused_address"
    assert "CALLBOARD_HTTP_PRIVATE" in error.message


def test_a_word_that_is_neither_allow_nor_refuse_refuses(
    fail: Any, context: Context, server: Any
) -> None:
    settings = replace(context.settings, http_private="deny")
    error = fail("http", {"url": server.url}, settings=settings)
    assert "CALLBOARD_HTTP_PRIVATE" in error.message
    assert server.asked == []


def _port(server: Any) -> int:
    return int(server.url.rpartition(":")[2])


def _ours(what: str, server: Any) -> dict[str, Any]:
    """The settings by which *server* is one of our own."""
    port = _port(server)
    known: dict[str, dict[str, Any]] = {
        "api": {"port": port},
        "listening everywhere": {"port": port, "host": "0.0.0.0"},
        "server url": {"server_url": f"http://localhost:{port}"},
        "database url": {"database_url": f"postgresql://u:p@127.0.0.1:{port}/db"},
        "database of several": {"database_url": f"postgresql://u:p@127.0.0.1:1,localhost:{port}/d"},
        "database host": {"postgres_host": "localhost", "postgres_port": port},
        "nats": {"nats_url": f"nats://127.0.0.1:{port}"},
        "one nats of two": {"nats_url": f"nats://127.0.0.1:1,localhost:{port}"},
    }
    return known[what]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.0.0.2", "0.0.0.0", "2130706433", "[64:ff9b::7f00:1]"]
)
@pytest.mark.parametrize(
    "what",
    [
        "api", "listening everywhere", "server url", "database url", "database of several",
        "database host", "nats", "one nats of two",
    ],
)  # fmt: skip
def test_our_own_servers_are_refused_under_any_name(
    fail: Any, context: Context, server: Any, what: str, host: str
) -> None:
    settings = replace(context.settings, **_ours(what, server))
    error = fail("http", {"url": server.url.replace("127.0.0.1", host)}, settings=settings)
    assert error.error_code == "refused_address"
    assert "this installation's" in error.message
    assert server.asked == []


def test_the_api_is_allowed_by_a_setting_and_its_database_is_not(
    call: Any, fail: Any, context: Context, server: Any
) -> None:
    allowing = replace(context.settings, http_own_api="allow")
    api = replace(allowing, **_ours("api", server))
    assert call("http", {"url": server.url}, settings=api)["status_code"] == 200
    database = replace(allowing, **_ours("database url", server))
    assert fail("http", {"url": server.url}, settings=database).error_code == "refused_address"


def test_a_neighbour_on_another_port_is_none_of_ours(
    call: Any, context: Context, server: Any
) -> None:
    settings = replace(context.settings, port=_port(server) - 1)
    assert call("http", {"url": server.url}, settings=settings)["status_code"] == 200


def test_a_place_that_no_setting_tells_of_can_be_protected(
    fail: Any, context: Context, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Later its port may be another server's.
    monkeypatch.setattr(policy, "_noted", policy._Noted())
    protect("this installation's NATS", f"nats://127.0.0.1:{_port(server)}")
    assert fail("http", {"url": server.url}).error_code == "refused_address"


def test_equal_settings_share_a_policy() -> None:
    settings: Settings = load({}).settings
    assert policy_of(settings) is policy_of(replace(settings))


# ---------------------------------------------------------------------- fetch
def test_fetch_gives_bytes_and_keeps_the_rules(context: Context, server: Any) -> None:
    assert fetch(f"{server.url}/gzip", context, 100) == b'{"a": 1}'
    assert fetch(f"{server.url}/redirect/text", context, 100) == "grüße".encode("latin-1")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/status/404", "not_found"),
        ("/large/2048", "resource"),
        ("/bomb", "resource"),
        (f"/redirect/http://{METADATA}/", "client_error"),
    ],
)
def test_fetch_fails_clearly(context: Context, server: Any, path: str, kind: str) -> None:

    with pytest.raises(ToolError) as caught:
        fetch(f"{server.url}{path}", context, 1000)
    assert caught.value.kind == kind


@pytest.mark.parametrize("url", ["ftp://x/", "/relative", "http://[::bad/"])
def test_fetch_needs_a_url(context: Context, url: str) -> None:

    with pytest.raises(ToolError) as caught:
        fetch(url, context, 1000)
    assert caught.value.kind == "schema"
