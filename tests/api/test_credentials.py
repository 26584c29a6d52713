"""Credentials over HTTP: what goes in, what comes out, and for whom."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.client import Client
from app.errors import BadRequestError, ForbiddenError, NotFoundError
from app.wire import CredentialPut, SecretRequest
from tests.api.plane import Plane, build

PASSWORD = "correct-horse-battery"
PG = {"name": "pg", "type": "postgres", "data": {"host": "db", "password": PASSWORD}}
NAMES_IT = """\
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: named, path: tests/named}
workflow: [{step: start, tool: {kind: noop, auth: pg}}]
"""


def put(http: TestClient, **changed: Any) -> dict[str, Any]:
    answer = http.post("/api/credentials", json={**PG, **changed})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_credential_is_kept_and_not_told_again(http: TestClient) -> None:
    kept = put(http, description="the warehouse", tags="prod, dw", meta={"owner": "data"})
    assert kept.pop("created_at") == kept.pop("updated_at")
    assert kept == {
        "id": kept["id"],
        "name": "pg",
        "type": "postgres",
        "meta": {"owner": "data"},
        "tags": ["prod", "dw"],
        "description": "the warehouse",
        "scope": None,
        "data": None,
    }
    assert isinstance(kept["id"], str)
    assert put(http, type="generic")["id"] == kept["id"]


def test_as_noetl_sends_it(http: TestClient) -> None:
    body = {"name": "pg", "credential_type": "generic", "data": {"a": "b"}, "tags": ["x"]}
    kept = http.post("/api/credentials", json=body).json()
    assert (kept["type"], kept["tags"]) == ("generic", ["x"])
    assert http.post("/api/credentials", json={"name": "n", "data": {}}).json()["type"] == "generic"


def test_data_comes_back_masked(http: TestClient) -> None:
    kept = put(http)
    for name in ("pg", kept["id"]):
        assert http.get(f"/api/credentials/{name}").json()["data"] is None
        shown = http.get(f"/api/credentials/{name}", params={"include_data": "true"}).json()
        assert shown["data"] == {"host": "db", "password": "***"}


def test_lists(http: TestClient) -> None:
    put(http)
    put(http, name="api", type="bearer", data={"token": "t"}, tags=["prod"])
    everything = http.get("/api/credentials").json()
    assert [item["name"] for item in everything["items"]] == ["api", "pg"]
    assert everything["filter"] == {"type": None, "q": None}
    some = http.get("/api/credentials", params={"type": "bearer", "q": "PROD"}).json()
    assert [item["name"] for item in some["items"]] == ["api"]
    assert some["filter"] == {"type": "bearer", "q": "PROD"}


@pytest.mark.parametrize("key", ["id", "name"])
def test_deleted_by_name_or_id(http: TestClient, key: str) -> None:
    kept = put(http)
    gone = http.delete(f"/api/credentials/{kept[key]}")
    assert gone.json() == {"id": kept["id"], "name": "pg", "deleted": True}
    again = http.delete("/api/credentials/pg")
    assert again.status_code == 404
    assert "no credential 'pg'" in again.json()["detail"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        pytest.param({**PG, "name": ""}, "name:", id="no name"),
        pytest.param({**PG, "data": PASSWORD}, "data:", id="data is text"),
        pytest.param({**PG, "data": [PASSWORD]}, "data:", id="data is a list"),
        pytest.param({**PG, "data": {"host": {"x": PASSWORD}}}, "host must be", id="a wrong field"),
        pytest.param({**PG, "data": {"hots": PASSWORD}}, "hots is not known", id="a slip"),
        pytest.param({**PG, "type": "posgres"}, "did you mean 'postgres'", id="a type's slip"),
        pytest.param({**PG, "scope": {"paths": PASSWORD}}, "scope.paths", id="a wrong scope"),
        pytest.param({**PG, "tags": {"x": PASSWORD}}, "tags", id="wrong tags"),
    ],
)
def test_what_is_wrong_is_named_and_not_repeated(
    http: TestClient, body: dict[str, Any], told: str
) -> None:
    answer = http.post("/api/credentials", json=body)
    assert answer.status_code == 422
    assert told in answer.json()["detail"]
    assert PASSWORD not in answer.text
    assert http.get("/api/credentials").json()["items"] == []


def test_a_body_that_is_no_json_is_not_repeated(http: TestClient) -> None:
    answer = http.post("/api/credentials", content=b'{"data": ' + PASSWORD.encode())
    assert answer.status_code == 422
    assert PASSWORD not in answer.text


# ---------------------------------------------------------------------- workers
def claimed(plane: Plane, client: TestClient) -> dict[str, Any]:
    """A claimed attempt of a playbook that names the credential."""
    plane.control.catalog.register(NAMES_IT)
    plane.started("tests/named")
    (pointer,) = plane.pointers()
    body = {"worker": "w", "claims": [{**pointer, "key": plane.key()}]}
    assert client.post("/api/worker/claim", json=body).json()["answers"][0]["granted"]
    return pointer


def test_the_worker_of_a_claimed_attempt_gets_it(plane: Plane, http: TestClient) -> None:
    put(http)
    asked = {**claimed(plane, http), "worker": "w", "name": "pg"}
    answer = http.post("/api/worker/secret", json=asked)
    assert answer.json() == {"name": "pg", "type": "postgres", "data": PG["data"]}
    assert answer.headers["cache-control"] == "no-store"
    refused = http.post("/api/worker/secret", json={**asked, "worker": "v"})
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    missing = http.post("/api/worker/secret", json={**asked, "name": "other"})
    assert missing.status_code == 403
    http.delete("/api/credentials/pg")
    assert http.post("/api/worker/secret", json=asked).status_code == 404


def test_tokens_of_pools_open_their_own_attempts_and_no_list() -> None:
    plane = build(api_token="boss", worker_tokens="default=mine,gpu=other")
    boss, mine, other = (plane.client(token) for token in ("boss", "mine", "other"))
    put(boss)
    asked = {**claimed(plane, mine), "worker": "w", "name": "pg"}
    assert mine.post("/api/worker/secret", json=asked).json()["data"] == PG["data"]
    refused = other.post("/api/worker/secret", json=asked)
    assert refused.status_code == 403
    assert "pool 'gpu'" in refused.json()["detail"]
    assert plane.client("guess").post("/api/worker/secret", json=asked).status_code == 401
    for method, path in (("GET", ""), ("POST", ""), ("GET", "/pg"), ("DELETE", "/pg")):
        assert mine.request(method, f"/api/credentials{path}", json=PG).status_code == 403
    assert boss.get("/api/credentials/pg").status_code == 200


# ---------------------------------------------------------------------- our own client
def test_our_client_says_the_same(plane: Plane, client: Client, http: TestClient) -> None:
    kept = client.credential_put(CredentialPut.model_validate(PG))
    assert client.credentials(type="postgres") == [kept]
    assert client.credential("pg", include_data=True)["data"]["password"] == "***"
    pointer = claimed(plane, http)
    secret = client.secret(SecretRequest(**pointer, worker="w", name="pg"))
    assert secret.data == PG["data"]
    assert PASSWORD not in repr(secret)
    with pytest.raises(ForbiddenError, match="worker of an attempt"):
        client.secret(SecretRequest(**pointer, worker="v", name="pg"))
    with pytest.raises(BadRequestError, match="no credential type"):
        client.credential_put(CredentialPut(name="x", type="postgress"))
    assert client.credential_delete("pg")["deleted"]
    with pytest.raises(NotFoundError, match="no credential 'pg'"):
        client.credential("pg")


# ---------------------------------------------------------------------- tests of credentials
def test_a_credential_that_there_is_not_cannot_be_tested(http: TestClient) -> None:
    assert http.post("/api/credentials/none/test").status_code == 404
