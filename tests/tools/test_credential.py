"""``credential``: each type is tried as its result says, and no failure tells a secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from psycopg.conninfo import conninfo_to_dict

from app.errors import ToolError
from app.local import run_playbook
from app.services.credentials import TEST
from app.settings import load
from app.tools import load_tool
from app.tools.bus.connections import connections
from tests.tools.conftest import Call, Known

Fail = Callable[..., ToolError]
SECRET, WRONG = "canary-secret", "canary-wrong"


@dataclass
class Provider:
    """Who hands out tokens and knows them: OAuth 2, Google, Azure, Vault, and AWS's token service."""

    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    public_key: str = ""

    def answer(self, path: str, headers: dict[str, str], body: str) -> tuple[int, Any]:
        form = {name: values[0] for name, values in parse_qs(body).items()}
        good = SECRET in headers.get("authorization", "") + headers.get("x-key", "")
        if path == "/away":
            return 503, {}
        if path == "/moved":
            return 302, {}
        if path == "/token" and form["grant_type"].endswith("jwt-bearer"):
            claims = jwt.decode(form["assertion"], certs=self.public_key, audience=self.url + path)  # type: ignore[no-untyped-call]  # has no types
            assert claims["iss"] == "robot@project"
            return 200, {"access_token": "canary-token"}
        if path in {"/token", "/tenant/oauth2/v2.0/token"}:
            known = SECRET in {form.get("client_secret"), form.get("refresh_token")}
            # An answer that says what it was sent, as some do.
            return (200, {"access_token": "canary-token"}) if known else (400, {"error": body})
        if path == "/odd":
            return 200, {"access_token": None}
        if path == "/v1/auth/token/lookup-self":
            return (200, {}) if headers.get("x-vault-token") == SECRET else (403, {})
        if path == "/v1/auth/approle/login":
            known = json.loads(body)["secret_id"] == SECRET
            return (200, {"auth": {"client_token": "canary-token"}}) if known else (400, {})
        if path == "/sts":
            signed = "Credential=key-id/" in headers.get("authorization", "")
            return (200, {}) if signed and form["Action"] == "GetCallerIdentity" else (403, {})
        return (
            (200, {})
            if good or "Basic dTpjYW5hcnktc2VjcmV0" in headers.get("authorization", "")
            else (401, {})
        )


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    held = Provider()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            path = urlsplit(self.path).path
            held.asked.append((self.command, path))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, data = held.answer(path, headers, body)
            content = json.dumps(data).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.send_header("location", "/echo")
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 (the base class's names)

        def log_message(self, *_: object) -> None:
            """Nothing: tests compare what is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        held.url = f"http://127.0.0.1:{server.server_port}"
        yield held
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    connections.close()


@pytest.fixture(scope="module")
def robot(provider: Provider) -> dict[str, Any]:
    """A Google service account's key file."""
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    provider.public_key = public.decode()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "client_email": "robot@project",
        "private_key": pem.decode(),
        "token_uri": f"{provider.url}/token",
    }


def filled(fields: dict[str, Any], provider: Provider) -> dict[str, Any]:
    return {
        name: value.replace("{}", provider.url) if isinstance(value, str) else value
        for name, value in fields.items()
    }


# ---------------------------------------------------------------------- on the web
OAUTH = {"token_url": "{}/token", "client_id": "c"}
AZURE = {"authority": "{}", "tenant_id": "tenant", "client_id": "c"}
STS = {"sts_endpoint": "{}/sts", "region": "eu-central-1"}
GOOD: list[tuple[str, dict[str, Any], str]] = [
    ("bearer", {"token": SECRET, "test_url": "{}/echo"}, "GET from {} answered 200"),
    ("http", {"token": SECRET, "url": "{}/echo"}, "GET from {} answered 200"),
    ("basic", {"username": "u", "password": SECRET, "url": "{}/x"}, "GET from {} answered 200"),
    ("api_key", {"api_key": SECRET, "header_name": "X-Key", "endpoint": "{}/x"}, "GET from {} answered 200"),
    ("oauth2", {**OAUTH, "client_secret": SECRET}, "got a token"),
    ("oauth2", {**OAUTH, "refresh_token": SECRET, "scopes": ["a", "b"]}, "got a token"),
    ("azure", {**AZURE, "client_secret": SECRET}, "got a token"),
    ("vault", {"address": "{}", "token": SECRET}, "looked the token up"),
    ("vault", {"address": "{}", "role_id": "r", "secret_id": SECRET}, "logged in with the AppRole"),
    ("aws", {**STS, "access_key_id": "key-id", "secret_access_key": SECRET}, "asked sts who we are"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "checked"), GOOD)
def test_services_are_asked(
    call: Call, provider: Provider, kind: str, fields: dict[str, Any], checked: str
) -> None:
    data = json.dumps(filled(fields, provider))
    known = Known({"it": data}, {"it": kind})
    provider.asked.clear()
    told = call("credential", {"action": "test", "auth": "it"}, secrets=known)
    assert (told["status"], told["type"]) == ("ok", kind)
    assert told["checked"] == checked.replace("{}", provider.url)
    assert told["duration_ms"] > 0
    assert len(provider.asked) == 1
    assert "canary" not in json.dumps(told)
    if "token" in checked or "AppRole" in checked:
        assert kind == "vault" or "canary-token" in known.concealed


@pytest.mark.parametrize(("kind", "fields", "checked"), GOOD)
def test_wrong_ones_are_told_without_what_they_hold(
    fail: Fail, provider: Provider, kind: str, fields: dict[str, Any], checked: str
) -> None:
    if kind == "aws":
        fields = {**fields, "access_key_id": "other"}
    given = {name: WRONG if value == SECRET else value for name, value in fields.items()}
    auth = {"type": kind, "source": "inline", **filled(given, provider)}
    error = fail("credential", {"auth": auth})
    assert (error.kind, error.retryable) == ("auth", False), error.message
    assert f"type {kind}" in error.message
    assert "canary" not in f"{error} {error.to_dict()} {error.data}"
    assert error.__cause__ is None, "the cause holds what was answered"


def test_a_service_account_gets_a_token(
    call: Call, provider: Provider, robot: dict[str, Any]
) -> None:
    for fields in (robot, {"service_account_json": json.dumps(robot)}):
        known = Known({"it": json.dumps(fields)}, {"it": "gcp"})
        told = call("credential", {"auth": "it"}, secrets=known)
        assert (told["type"], told["checked"]) == ("gcp", "got a token")
        assert told["server"] == provider.url
        assert "canary-token" in known.concealed


@pytest.mark.parametrize("change", [{"private_key": "canary-pem"}, {"client_email": None}], ids=str)
def test_a_service_account_that_is_none(
    fail: Fail, robot: dict[str, Any], change: dict[str, Any]
) -> None:
    error = fail("credential", {"auth": {"type": "gcp", "source": "inline", **robot, **change}})
    assert error.kind == "auth"
    assert "canary" not in error.message


@pytest.mark.parametrize(
    ("auth", "kind"),
    [
        ({"type": "bearer", "token": SECRET, "url": "{}/away"}, "connection"),
        ({"type": "bearer", "token": SECRET, "url": "http://127.0.0.1:1/"}, "connection"),
        ({"type": "bearer", "token": SECRET, "url": "{}/moved"}, "auth"),
        ({"type": "oauth2", "client_secret": SECRET, "token_url": "{}/odd"}, "auth"),
        ({"type": "oauth2", "client_secret": SECRET}, "auth"),
        ({"type": "azure", "client_secret": SECRET}, "auth"),
        ({"type": "vault", "token": SECRET}, "auth"),
        ({"type": "nats", "url": "nats://127.0.0.1:1", "password": SECRET}, "connection"),
        ({"type": "postgres", "url": f"postgresql://u:{SECRET}@127.0.0.1:1/db"}, "connection"),
        ({"type": "postgres", "token": SECRET}, "auth"),
    ],
    ids=str,
)
def test_what_cannot_be_asked(
    fail: Fail, provider: Provider, auth: dict[str, Any], kind: str
) -> None:
    error = fail("credential", {"auth": {"source": "inline", **filled(auth, provider)}})
    assert (error.kind, error.retryable) == (kind, kind == "connection"), error.message
    assert SECRET not in f"{error} {error.to_dict()} {error.__cause__!r}"


# ---------------------------------------------------------------------- servers
def test_postgres_is_logged_in_to(call: Call, postgres: str) -> None:
    for fields in ({"url": postgres}, dict(conninfo_to_dict(postgres))):
        known = Known({"pg": json.dumps(fields)}, {"pg": "postgres"})
        told = call("credential", {"auth": "pg"}, secrets=known)
        assert (told["type"], told["checked"]) == ("postgres", "logged in and ran SELECT 1")
        assert told["server"].startswith("PostgreSQL ")


def test_a_wrong_password_for_postgres_is_told(fail: Fail, postgres: str) -> None:
    fields = {**conninfo_to_dict(postgres), "password": WRONG}
    error = fail("credential", {"auth": {"type": "postgres", "source": "inline", **fields}})
    assert (error.kind, error.retryable) == ("auth", False)
    assert WRONG not in f"{error} {error.__cause__!r}"


def loops() -> int:
    """How many threads serve NATS connections."""
    return sum(thread.name == "nats-tool" for thread in threading.enumerate())


def test_nats_is_pinged(call: Call, nats: str) -> None:
    before = connections.count(), loops()
    for auth in ({"type": "nats", "url": nats}, {"url": nats}, {"type": "nats", "servers": [nats]}):
        told = call("credential", {"auth": {"source": "inline", **auth}})
        assert told["type"] == "nats"
        assert told["checked"].startswith("connected; a round trip took ")
        assert told["server"].startswith("NATS 2.")
    assert (connections.count(), loops()) == before, "its connection was kept"


# ---------------------------------------------------------------------- what is not asked
@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("generic", {"anything": "x"}),
        ("unheard_of", {"anything": "x"}),
        ("bearer", {"token": "x"}),
        ("basic", {"username": "u", "password": "x"}),
        ("snowflake", {"account": "a", "user": "u", "password": "x"}),
        ("kafka", {"brokers": "h:9092"}),
        ("s3", {"access_key_id": "a", "secret_access_key": "x"}),
        ("aws", {"role_arn": "arn:aws:iam::1:role/r"}),
        ("azure", {"managed_identity": True}),
        ("gcp", {"access_token": "x"}),
        ("vault", {"address": "http://127.0.0.1:1", "role": "r"}),
        ("", {"value": "x"}),
    ],
)
def test_what_cannot_be_tried_is_said_to_be_checked_for_its_fields_only(
    call: Call, kind: str, data: dict[str, Any]
) -> None:
    known = Known({"it": json.dumps(data)}, {"it": kind})
    told = call("credential", {"credential": "it"}, secrets=known)
    assert (told["status"], told["type"]) == ("ok", kind or "generic")
    assert told["checked"] == "fields only"
    assert "server" not in told


@pytest.mark.parametrize(
    ("kind", "data", "says"),
    [
        ("snowflake", {"account": "a", "password": "x"}, "user"),
        ("basic", {"username": "u"}, "password"),
        ("kafka", {"topic": "t"}, "bootstrap_servers"),
        ("generic", {}, "holds nothing"),
    ],
)
def test_fields_that_are_missing_are_told(
    fail: Fail, kind: str, data: dict[str, Any], says: str
) -> None:
    known = Known({"it": json.dumps(data)}, {"it": kind})
    error = fail("credential", {"auth": "it"}, secrets=known)
    assert (error.kind, error.retryable) == ("auth", False)
    assert says in error.message


def test_a_credential_that_nobody_knows(fail: Fail) -> None:
    assert fail("credential", {"auth": "nobody"}).kind == "auth"


def test_the_keys_are_checked_before_it_runs() -> None:
    tool = load_tool("credential")
    assert tool.complaints({"action": "test", "auth": "{{ workload.credential }}"}) == []
    assert len(tool.complaints({"action": "test"})) == 1
    assert len(tool.complaints({"action": "guess", "auth": "x"})) == 1


def test_a_worker_tries_a_credential_as_the_servers_ask_it_to(
    tmp_path: Path, nats: str, postgres: str
) -> None:
    secrets = {
        "bus": json.dumps({"type": "nats", "url": nats}),
        "pg": json.dumps({"type": "postgres", "url": postgres}),
        "gone": json.dumps({"type": "nats", "url": f"nats://u:{SECRET}@127.0.0.1:1"}),
    }
    settings = load({}, home=tmp_path).settings
    for name, status in (("bus", "COMPLETED"), ("pg", "COMPLETED"), ("gone", "FAILED")):
        events: list[Any] = []
        ended = run_playbook(
            TEST, settings, {"credential": name}, on_event=events.append, secrets=secrets
        )
        assert ended.status == status, ended.error
        if status == "COMPLETED":
            assert ended.result["status"] == "ok"
        shown = f"{events} {ended}"
        assert SECRET not in shown
        for url in (nats, postgres):
            assert str(urlsplit(url).password) not in shown
