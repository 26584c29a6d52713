"""Kept values of keychains over HTTP: what is shown, and who gets the values."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.client import Client
from app.errors import ForbiddenError
from app.wire import TokenPut, TokenRequest
from tests.api.plane import Plane, build, served

TOKEN = "canary-token-value"
PLAYBOOK = """\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: keys, path: tests/keys}
keychain: [{name: api, kind: oauth2, endpoint: "https://x.example/token"}]
workflow: [{step: start, tool: {kind: noop}}]
"""
BODY = {
    "token_data": {
        "access_token": TOKEN,
        "nested": [{"username": TOKEN}],
        "flag": True,
        "n": 12345,
    },
    "credential_type": "oauth2",
    "auto_renew": True,
    "renew_config": {
        "endpoint": "https://x.example/token",
        "method": "POST",
        "headers": {"authorization": f"Basic {TOKEN}"},
        "data": {"client_id": "me", "client_secret": TOKEN},
    },
}


@pytest.fixture
def catalog_id(plane: Plane) -> int:
    return plane.control.catalog.register(PLAYBOOK).catalog_id


def claimed(plane: Plane, worker: str = "w") -> dict[str, Any]:
    execution_id = plane.started("tests/keys")
    (pointer,) = plane.pointers()
    assert pointer["execution_id"] == execution_id
    claim = {"worker": worker, "claims": [{**pointer, "key": plane.key()}]}
    answer = plane.client(plane.settings.api_token).post("/api/worker/claim", json=claim)
    assert answer.json()["answers"][0]["granted"]
    return {**pointer, "worker": worker, "name": "api", "holder": "w:1"}


def test_a_value_is_kept_and_shown_without_it(http: TestClient, catalog_id: int) -> None:
    url = f"/api/keychain/{catalog_id}/api"
    kept = http.post(url, json={**BODY, "ttl_seconds": 600})
    assert kept.status_code == 200, kept.text
    assert kept.json()["cache_key"] == f"api:{catalog_id}:global"
    answers = [http.get(url), http.get(f"/api/keychain/catalog/{catalog_id}"), kept]
    shown = answers[0].json()
    assert (shown["status"], shown["scope_type"], shown["auto_renew"]) == (
        "success",
        "global",
        True,
    )
    assert shown["token_data"] == {
        "access_token": "***",
        "nested": [{"username": "***"}],
        "flag": True,
        "n": "***",
    }
    assert shown["renew_config"]["endpoint"] == "https://x.example/token"
    assert 0 < shown["ttl_seconds"] <= 600
    listed = answers[1].json()
    assert (listed["count"], listed["entries"][0]["keychain_name"]) == (1, "api")
    assert all(TOKEN not in answer.text for answer in answers)


def test_what_is_not_there_and_what_has_ended(http: TestClient, catalog_id: int) -> None:
    url = f"/api/keychain/{catalog_id}/api"
    missing = http.get(url)
    assert (missing.status_code, missing.json()["status"]) == (200, "not_found")
    http.post(url, json={**BODY, "expires_at": "2020-01-01T00:00:00Z"})
    ended = http.get(url).json()
    assert (ended["status"], ended["auto_renew"]) == ("expired", True)
    assert ended["renew_config"]["method"] == "POST"
    assert http.delete(url).json() == {"status": "success", "deleted": 1}
    assert http.delete(url).json() == {"status": "not_found", "deleted": 0}


def test_values_by_scope_and_execution(http: TestClient, catalog_id: int) -> None:
    url = f"/api/keychain/{catalog_id}/api"
    query = {"scope_type": "local", "execution_id": "71"}
    key = http.post(url, json={"token_data": {"a": TOKEN}}, params=query).json()["cache_key"]
    assert key == f"api:{catalog_id}:71"
    assert http.get(url, params=query).json()["execution_id"] == "71"
    assert http.get(url, params={**query, "execution_id": "72"}).json()["status"] == "not_found"
    assert http.get(url, params={"scope_type": "global"}).json()["status"] == "not_found"
    assert http.delete(url, params={"scope_type": "shared"}).json()["deleted"] == 0
    assert http.delete(url, params=query).json()["deleted"] == 1


@pytest.mark.parametrize(
    ("call", "body", "status"),
    [
        ("GET /api/keychain/9999/api", None, 404),
        ("GET /api/keychain/catalog/9999", None, 404),
        ("POST /api/keychain/9999/api", {"token_data": {}}, 404),
        ("DELETE /api/keychain/9999/api", None, 404),
        ("POST /api/keychain/{id}/api", {}, 422),
        ("POST /api/keychain/{id}/api", {"token_data": {"a": TOKEN}, "ttl_seconds": -1}, 422),
        ("POST /api/keychain/{id}/api", {"token_data": TOKEN}, 422),
        (
            "POST /api/keychain/{id}/api",
            {"token_data": {"a": TOKEN}, "scope_type": "local"},
            422,
        ),
        ("GET /api/keychain/{id}/api?execution_id=x", None, 422),
        ("GET /api/keychain/{id}/api?scope_type=x", None, 422),
    ],
)
def test_what_is_wrong_is_told_without_the_value(
    call: str, body: Any, status: int, http: TestClient, catalog_id: int
) -> None:
    method, _, path = call.partition(" ")
    answer = http.request(method, path.format(id=catalog_id), json=body)
    assert answer.status_code == status, answer.text
    assert TOKEN not in answer.text


def test_a_worker_takes_and_puts_over_http(plane: Plane, catalog_id: int) -> None:
    pointer = claimed(plane)
    with served(plane.app) as url, Client(url) as client:
        taken = client.take_token(TokenRequest(**pointer))
        assert taken.state == "yours"
        put = TokenPut(**pointer, data={"access_token": TOKEN}, ttl=600)
        assert client.put_token(put).accepted
        again = client.take_token(TokenRequest(**{**pointer, "holder": "w:2"}))
        assert (again.state, again.data) == ("kept", {"access_token": TOKEN})
        with pytest.raises(ForbiddenError):
            client.take_token(TokenRequest(**{**pointer, "worker": "other"}))


def test_a_value_in_the_clear_is_not_to_be_cached(plane: Plane, catalog_id: int) -> None:
    answer = plane.client().post("/api/worker/keychain/take", json=claimed(plane))
    assert answer.headers["cache-control"] == "no-store"


def test_tokens_of_workers_open_their_own_door_only() -> None:
    plane = build(api_token="client-token", worker_tokens="default=pool-token,gpu=gpu-token")
    plane.control.catalog.register(PLAYBOOK)
    pointer = claimed(plane)
    take = "/api/worker/keychain/take"
    assert plane.client().post(take, json=pointer).status_code == 401
    assert plane.client("gpu-token").post(take, json=pointer).status_code == 403
    assert plane.client("pool-token").post(take, json=pointer).json()["state"] == "yours"
    for method, path in (("GET", "1/api"), ("POST", "1/api"), ("GET", "catalog/1")):
        url = f"/api/keychain/{path}"
        assert plane.client("pool-token").request(method, url).status_code == 403
        assert plane.client().request(method, url).status_code == 401
