"""Every kind of entry, alone and together: what it holds, what it asks for, how it fails."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.engine.templates.template import render
from app.errors import ToolError
from app.keychain.chain import Keychain, Make
from app.keychain.entry import Entry, entry_of
from app.keychain.secrets import Means
from tests.keychain.authority import CLIENT_SECRET, GCP_SECRET, SECRETS, VAULT_TOKEN, Authority
from tests.keychain.conftest import Known

MakeMeans = Callable[..., Means]


@dataclass(slots=True)
class Always:
    """Keeps nothing, and notes what it was asked to keep."""

    entries: list[Entry] = field(default_factory=list)
    before: Mapping[str, Any] | None = None
    life: float | None = None

    def get(self, entry: Entry, make: Make) -> Mapping[str, Any]:
        self.entries.append(entry)
        found = make(self.before)
        self.life = entry.life(found.expires_in)
        return found.fields


@pytest.fixture
def keeping() -> Always:
    return Always()


Ring = Callable[..., Keychain]


@pytest.fixture
def ring(
    authority: Authority,
    known: Known,
    means: MakeMeans,
    keeping: Always,
    service_account: Mapping[str, Any],
) -> Ring:
    """``ring(*entries, **workload)``."""
    url = authority.url
    known.credentials = {
        "pg": {"db_host": "db.example", "db_user": "app", "db_password": "canary-pg-password"},
        "api": {"token": "canary-api-token"},
        "client": {"client_id": "me", "client_secret": CLIENT_SECRET, "token_url": f"{url}/token"},
        "vault": {"address": url, "token": VAULT_TOKEN},
        "robot": {**service_account, "token_uri": f"{url}/token", "endpoint": url},
    }

    def make(*entries: dict[str, Any], **workload: Any) -> Keychain:
        plan = [{"name": f"e{number}", **entry} for number, entry in enumerate(entries)]
        return Keychain(plan, {"url": url, **workload}, means(), keeping, now=0.0)

    return make


def test_static_holds_what_is_written_rendered(ring: Ring, known: Known) -> None:
    entry = {"kind": "static", "data": {"user": "app", "password": "canary-{{ tail }}"}}
    found = ring(entry, tail="x1")["e0"]
    assert found == {"user": "app", "password": "canary-x1"}
    assert "canary-x1" in known.concealed
    assert "app" not in known.concealed


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "bearer", "token": "canary-api-token"},
        {"kind": "bearer", "auth": "api"},
        {"type": "bearer_token", "token": "{{ keychain.e1.token }}"},
        {"token": "canary-api-token"},
    ],
)
def test_bearer_holds_a_token(entry: dict[str, Any], ring: Ring, known: Known) -> None:
    found = ring(entry, {"kind": "credential", "credential": "api"})["e0"]
    assert (found["token"], found["access_token"]) == ("canary-api-token",) * 2
    assert "canary-api-token" in known.concealed


@pytest.mark.parametrize(
    "entry",
    [
        {"kind": "credential", "credential": "pg"},
        {"kind": "credential_ref", "ref": "pg"},
        {"kind": "google_oauth", "credential": "pg"},
        {"ref": "{{ cred }}"},
    ],
)
def test_credential_holds_the_fields_of_one(entry: dict[str, Any], ring: Ring) -> None:
    assert ring(entry, cred="pg")["e0"]["db_password"] == "canary-pg-password"


def test_a_map_renames_fields_of_a_credential(ring: Ring) -> None:
    entry = {"kind": "credential", "credential": "pg", "map": {"pw": "db_password"}}
    assert ring(entry)["e0"] == {"pw": "canary-pg-password"}


def test_secret_manager_maps_fields_to_secrets(ring: Ring, known: Known) -> None:
    entry = {
        "kind": "secret_manager",
        "auth": "robot",
        "map": {"one": "projects/{{ project }}/secrets/app/versions/2", "name": "app"},
    }
    assert ring(entry, project="p")["e0"] == {"one": GCP_SECRET, "name": GCP_SECRET}
    assert GCP_SECRET in known.concealed  # though it is under a name that says nothing


def test_secrets_of_a_vault_by_field(ring: Ring) -> None:
    entry = {
        "kind": "secrets",
        "provider": "vault",
        "auth": "vault",
        "map": {
            "user": "secret/app/db#username",
            "password": {"name": "secret/app/db", "field": "password"},
            "plain": "secret/app/plain",
        },
    }
    assert ring(entry)["e0"] == {
        "user": "app",
        "password": SECRETS["app/db"]["password"],
        "plain": "canary-vault-plain-1b3f",
    }


def test_google_id_token_is_for_its_audience(
    ring: Ring, authority: Authority, keeping: Always, known: Known
) -> None:
    entry = {
        "kind": "google_id_token",
        "target_audience": "https://run.example",
        "service_account_credential": "robot",
    }
    found = ring(entry)["e0"]
    assert found["token_type"] == "Bearer"
    assert found["id_token"] in known.concealed
    claims = base64.urlsafe_b64decode(found["id_token"].split(".")[1] + "==")
    assert b"https://run.example" in claims
    assert keeping.life is not None
    assert 1700 < keeping.life <= 1800  # as the token itself says
    assert len(authority.of("/token")) == 1


# ---------------------------------------------------------------------- OAuth
@pytest.mark.parametrize(
    ("entry", "sent"),
    [
        pytest.param(
            {
                "endpoint": "{{ url }}/token",
                "method": "POST",
                "headers": {"Content-Type": "application/x-www-form-urlencoded"},
                "data": {
                    "grant_type": "client_credentials",
                    "client_id": "me",
                    "client_secret": "{{ keychain.e1.client_secret }}",
                },
            },
            {"grant_type": "client_credentials", "client_id": "me", "client_secret": CLIENT_SECRET},
            id="written out",
        ),
        pytest.param(
            {"auth": "client", "scopes": ["read", "write"]},
            {
                "grant_type": "client_credentials",
                "client_id": "me",
                "client_secret": CLIENT_SECRET,
                "scope": "read write",
            },
            id="by a credential",
        ),
        pytest.param(
            {"auth": "client", "client_auth": "basic"},
            {"grant_type": "client_credentials"},
            id="client in the header",
        ),
    ],
)
def test_oauth2_asks_for_a_token(
    entry: dict[str, Any], sent: dict[str, str], ring: Ring, authority: Authority, known: Known
) -> None:
    keychain = ring({"kind": "oauth2", **entry}, {"kind": "credential", "credential": "client"})
    found = keychain["e0"]
    assert found["access_token"] == found["token"] == authority.tokens[0]
    assert found["expires_in"] == 3600
    assert authority.of("/token")[0].form == sent
    assert {authority.tokens[0], CLIENT_SECRET} <= known.concealed
    # What says how long it holds is found everywhere, and no secret.
    assert known.concealed.isdisjoint({"3600", "Bearer", "read"})


def test_oauth2_in_json(ring: Ring, authority: Authority) -> None:
    body = {"grant_type": "client_credentials", "client_id": "me", "client_secret": CLIENT_SECRET}
    found = ring({"kind": "oauth2", "endpoint": "{{ url }}/token", "json": body})["e0"]
    assert found["access_token"] == authority.tokens[0]
    assert authority.asked[0].headers["content-type"] == "application/json"


def refresh(**more: Any) -> dict[str, Any]:
    return {"kind": "oauth2", "auth": "client", "refresh_token": "canary-refresh-0", **more}


def test_oauth2_refreshes(ring: Ring, authority: Authority) -> None:
    assert ring(refresh())["e0"]["access_token"] == authority.tokens[0]
    assert authority.asked[0].form["grant_type"] == "refresh_token"


def test_a_rotated_refresh_token_is_used_the_next_time(
    ring: Ring, authority: Authority, keeping: Always
) -> None:
    authority.rotates = True
    keeping.before = dict(ring(refresh())["e0"])
    assert keeping.before["refresh_token"] == "canary-refresh-1"
    ring(refresh())["e0"]
    assert [each.form["refresh_token"] for each in authority.asked] == [
        "canary-refresh-0",
        "canary-refresh-1",
    ]


def test_a_refresh_token_that_was_revoked_gives_way_to_the_written_one(
    ring: Ring, authority: Authority, keeping: Always
) -> None:
    keeping.before = {"refresh_token": "canary-refresh-revoked"}
    assert ring(refresh())["e0"]["access_token"] == authority.tokens[0]


def test_the_token_may_be_in_another_field(ring: Ring, authority: Authority) -> None:
    authority.instead["/token"] = (200, {"data": {"jwt": "canary-inner-token"}})
    found = ring({"kind": "oauth2", "auth": "client", "token_field": "data.jwt"})["e0"]
    assert found["access_token"] == "canary-inner-token"


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        pytest.param(
            (200, {"token_type": "x"}), "auth", "no 'access_token'; it has", id="no token"
        ),
        pytest.param((401, {"error": "invalid_client"}), "auth", "invalid_client", id="refused"),
        pytest.param((400, {"error": "canary-word"}), "auth", "answered 400", id="unknown word"),
        pytest.param((429, {}), "rate_limit", "429", id="too often"),
        pytest.param((502, b"canary"), "connection", "502", id="broken"),
    ],
)
def test_a_token_that_is_not_given_names_the_entry(
    answer: Any, kind: str, said: str, ring: Ring, authority: Authority
) -> None:
    authority.instead["/token"] = answer
    error = failed(ring({"kind": "oauth2", "auth": "client"}))
    assert error.kind == kind
    assert "'e0'" in str(error)
    assert said in str(error)
    assert "canary" not in str(error)


# ---------------------------------------------------------------------- together
def test_only_what_is_read_is_resolved_with_what_it_refers_to(
    ring: Ring, authority: Authority, keeping: Always
) -> None:
    keychain = ring(
        {"kind": "oauth2", "auth": "client"},
        {"kind": "bearer", "token": "{{ keychain.e0.access_token }}"},
        {"kind": "secrets", "provider": "vault", "auth": "nobody", "map": {"a": "b/c"}},
    )
    text = render("Bearer {{ keychain.e1.token }}", {"keychain": keychain})
    assert text == f"Bearer {authority.tokens[0]}"
    assert [entry.name for entry in keeping.entries] == ["e0"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        pytest.param([{"kind": "magic"}], "known kind ('magic')", id="kind"),
        pytest.param([{}], "known kind", id="no kind"),
        pytest.param([{"kind": "static"}], "'data'", id="static, nothing"),
        pytest.param([{"kind": "static", "data": "x"}], "'data'", id="static, text"),
        pytest.param([{"kind": "bearer"}], "'token'", id="bearer, nothing"),
        pytest.param([{"kind": "credential"}], "'credential'", id="credential, nothing"),
        pytest.param([{"kind": "credential", "ref": "none"}], "'none'", id="no such credential"),
        pytest.param([{"kind": "oauth2"}], "'endpoint'", id="oauth2, nothing"),
        pytest.param([{"kind": "oauth2", "endpoint": "file:///x"}], "https://", id="scheme"),
        pytest.param(
            [{"kind": "oauth2", "endpoint": "http://h/", "headers": "x"}], "'headers'", id="headers"
        ),
        pytest.param([{"kind": "secrets", "auth": "robot"}], "'map'", id="secrets, nothing"),
        pytest.param([{"kind": "google_id_token"}], "'target_audience'", id="no audience"),
        pytest.param([{"kind": "static", "data": {"a": 1}, "scope": "x"}], "scope", id="scope"),
        pytest.param(
            [{"kind": "static", "data": {"a": 1}, "ttl_seconds": -1}], "'ttl_seconds'", id="ttl"
        ),
        pytest.param(
            [{"kind": "bearer", "token": "{{ nowhere }}"}], "'nowhere'", id="name that is not there"
        ),
        pytest.param(
            [{"kind": "bearer", "token": "{{ workload.nowhere }}"}],
            "'nowhere'",
            id="below workload",
        ),
        pytest.param(
            [{"kind": "bearer", "token": "Bearer {{ deep.nowhere }}{{ deep.x.y }}"}],
            "'deep'",
            id="name in a text",
        ),
        pytest.param([{"kind": "bearer", "token": "{{ url.none }}"}], "to nothing", id="empty"),
        pytest.param([{"kind": "bearer", "token": "{{ 1 / 0 }}"}], "'token'", id="template fails"),
        pytest.param(
            [{"kind": "bearer", "token": "{{ keychain.none.x }}"}], "no entry 'none'", id="no entry"
        ),
        pytest.param(
            [
                {"kind": "bearer", "token": "{{ keychain.e1.none }}"},
                {"kind": "static", "data": {"a": 1}},
            ],
            "'e1' has no field 'none'; it has a",
            id="no field",
        ),
        pytest.param(
            [{"kind": "bearer", "token": "{{ keychain.e0.token }}"}],
            "e0 -> e0",
            id="refers to itself",
        ),
        pytest.param(
            [
                {"kind": "bearer", "token": "{{ keychain.e1.token }}"},
                {"kind": "bearer", "token": "{{ keychain['e0'].token }}"},
            ],
            "e0 -> e1 -> e0",
            id="circle",
        ),
    ],
)
def test_what_cannot_be_resolved_is_an_error_with_the_name(
    entries: list[dict[str, Any]], said: str, ring: Ring
) -> None:
    error = failed(ring(*entries))
    assert error.kind == "auth"
    assert "e0" in str(error) or "e1" in str(error)
    assert said in str(error)


@pytest.mark.parametrize(
    "text", ["{{ keychain.none.x }}", "{{ keychain.e0.none }}", "x {{ keychain.e0.none }} y"]
)
def test_nothing_renders_as_empty(text: str, ring: Ring) -> None:
    keychain = ring({"kind": "static", "data": {"a": "canary-a"}})
    with pytest.raises(ToolError, match=r"none"):
        render(text, {"keychain": keychain})


def test_a_missing_field_may_have_a_default_by_get(ring: Ring) -> None:
    keychain = ring({"kind": "static", "data": {"a": "canary-a"}})
    assert render("{{ keychain.e0.get('none', 'x') }}", {"keychain": keychain}) == "x"


def test_a_default_is_allowed_in_an_entry(ring: Ring) -> None:
    keychain = ring({"kind": "static", "data": {"a": "{{ nowhere | default('x') }}"}})
    assert keychain["e0"] == {"a": "x"}


@pytest.mark.parametrize(
    ("entry", "expires_in", "life"),
    [
        pytest.param({}, 60.0, 60.0, id="as the source says"),
        pytest.param({"ttl_seconds": 30}, 60.0, 30.0, id="as written"),
        pytest.param({"ttl_seconds": 90}, 60.0, 60.0, id="never longer than the source says"),
        pytest.param({}, None, 86_400.0, id="global"),
        pytest.param({"scope": "shared"}, None, 86_400.0, id="shared"),
        pytest.param({"scope": "local"}, None, 3_600.0, id="local"),
    ],
)
def test_how_long_an_entry_is_kept(
    entry: dict[str, Any], expires_in: float | None, life: float
) -> None:
    raw = {"name": "e", "kind": "oauth2", **entry}
    assert entry_of(raw, "").life(expires_in) == life


def test_the_source_says_how_long_a_token_holds(
    ring: Ring, authority: Authority, keeping: Always
) -> None:
    authority.expires_in = 90
    ring({"kind": "oauth2", "auth": "client"})["e0"]
    assert keeping.life == 90


def test_an_entry_that_reads_the_workload_is_told_apart_by_it(ring: Ring, keeping: Always) -> None:
    entry = {"kind": "secrets", "provider": "vault", "auth": "vault", "map": {"a": "{{ path }}"}}
    for path in ("secret/app/db#password", "secret/app/db#username"):
        ring(entry, path=path)["e0"]
    ring({**entry, "map": {"a": "secret/app/db#password"}}, path="other")["e0"]
    digests = [each.digest for each in keeping.entries]
    assert len(set(digests)) == 3
    assert digests[2] == ""


def failed(keychain: Keychain) -> ToolError:
    with pytest.raises(ToolError) as caught:
        keychain["e0"]
    return caught.value
