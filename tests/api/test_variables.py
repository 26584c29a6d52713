"""Variables of executions over HTTP, as programs of NoETL's users ask for them."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.plane import Plane, build

KEPT = "result/start/1/-1/0123456789abcdef0123456789abcdef"


@pytest.fixture
def execution_id(plane: Plane) -> int:
    return plane.started()


def put(http: TestClient, execution_id: int, variables: Any, **more: Any) -> Any:
    return http.post(f"/api/vars/{execution_id}", json={"variables": variables, **more})


def test_what_is_set_is_listed(http: TestClient, execution_id: int) -> None:
    answer = put(http, execution_id, {"b": [1, None], "a": {"x": "ż"}}, source_step="load")
    assert answer.status_code == 200
    assert answer.json() == {
        "execution_id": execution_id,
        "variables_set": 2,
        "var_names": ["b", "a"],
    }
    listed = http.get(f"/api/vars/{execution_id}").json()
    assert (listed["execution_id"], listed["count"]) == (execution_id, 2)
    assert list(listed["variables"]) == ["a", "b"]
    row = listed["variables"]["b"]
    assert row.pop("created_at").endswith("Z")
    assert row == {
        "value": [1, None],
        "type": "user_defined",
        "source_step": "load",
        "accessed_at": None,
        "access_count": 0,
        "expires_at": None,
    }


def test_reading_one_is_counted(http: TestClient, execution_id: int) -> None:
    put(http, execution_id, {"a": 1}, var_type="computed")
    path = f"/api/vars/{execution_id}/a"
    assert http.get(path).json()["access_count"] == 1
    found = http.get(path).json()
    assert found["accessed_at"] is not None
    assert {
        key: found[key] for key in ("execution_id", "name", "value", "type", "access_count")
    } == {
        "execution_id": execution_id,
        "name": "a",
        "value": 1,
        "type": "computed",
        "access_count": 2,
    }


def test_one_and_all_are_deleted(http: TestClient, execution_id: int) -> None:
    put(http, execution_id, {"a": 1, "b": 2, "c": 3})
    answer = http.delete(f"/api/vars/{execution_id}/b").json()
    assert answer == {"execution_id": execution_id, "name": "b", "deleted": True}
    assert http.delete(f"/api/vars/{execution_id}/b").status_code == 404
    answer = http.delete(f"/api/vars/{execution_id}").json()
    assert answer == {"execution_id": execution_id, "deleted_count": 2}
    assert http.get(f"/api/vars/{execution_id}").json()["count"] == 0


def test_one_may_be_for_a_time(http: TestClient, execution_id: int) -> None:
    put(http, execution_id, {"a": 1}, ttl_seconds=3600)
    put(http, execution_id, {"b": 1}, ttl_seconds=1e-6)
    listed = http.get(f"/api/vars/{execution_id}").json()
    assert list(listed["variables"]) == ["a"]
    assert listed["variables"]["a"]["expires_at"] > listed["variables"]["a"]["created_at"]


@pytest.mark.parametrize(
    ("method", "path", "said"),
    [
        ("GET", "/api/vars/4711", "there is no execution 4711"),
        ("POST", "/api/vars/4711", "there is no execution 4711"),
        ("DELETE", "/api/vars/4711", "there is no execution 4711"),
        ("GET", "/api/vars/4711/a", "there is no execution 4711"),
        ("DELETE", "/api/vars/4711/a", "there is no execution 4711"),
        ("GET", "/api/vars/{}/none", "has no variable 'none'"),
        ("DELETE", "/api/vars/{}/none", "has no variable 'none'"),
    ],
)
def test_what_is_not_there_is_said(
    http: TestClient, execution_id: int, method: str, path: str, said: str
) -> None:
    body = {"variables": {"a": 1}} if method == "POST" else None
    answer = http.request(method, path.format(execution_id), json=body)
    assert answer.status_code == 404
    assert said in answer.json()["detail"]
    assert answer.json()["remedy"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "variables: Field required"),
        ({"variables": [1]}, "variables"),
        ({"variables": {"a": 1}, "var_type": "secret"}, "var_type"),
        ({"variables": {"a": 1}, "ttl_seconds": 0}, "ttl_seconds"),
        ({"variables": {"": 1}}, "'' cannot be the name"),
        ({"variables": {KEPT: 1}}, "cannot be the name"),
        ({"variables": {"a\nb": 1}}, "cannot be the name"),
        ({"variables": {"x" * 201: 1}}, "cannot be the name"),
        ({"variables": {"a": "x\0"}}, "NUL"),
        ({"variables": {"ok": 1, "big": "x" * 1_048_576}}, "CALLBOARD_BLOB_BYTES"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_all_that_came_along(
    http: TestClient, execution_id: int, body: Any, said: str
) -> None:
    answer = http.post(f"/api/vars/{execution_id}", json=body)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert http.get(f"/api/vars/{execution_id}").json()["count"] == 0


def test_results_that_the_engine_keeps_are_none_of_them(plane: Plane, http: TestClient) -> None:
    large = {"rows": ["x" * 1000] * 100}
    execution_id = plane.started()
    (pointer,) = plane.pointers()
    key = plane.key()
    http.post("/api/worker/claim", json={"worker": "w", "claims": [{**pointer, "key": key}]})
    done = {**pointer, "key": key, "outcome": "done", "result": large}
    http.post("/api/worker/report", json={"worker": "w", "reports": [done]})
    assert http.get(f"/api/vars/{execution_id}").json()["count"] == 0
    assert http.delete(f"/api/vars/{execution_id}").json()["deleted_count"] == 0
    found = http.get(f"/api/executions/{execution_id}/result?step=start").json()
    assert found["result"] == large


def test_a_large_body_is_refused_before_it_is_read(http: TestClient, execution_id: int) -> None:
    answer = put(http, execution_id, {"a": "x" * 17_000_000})
    assert answer.status_code == 413


def test_workers_have_no_business_here() -> None:
    guarded = build(api_token="client", worker_tokens="default=worker")
    assert guarded.client("worker").get("/api/vars/4711").status_code == 403
    assert guarded.client("client").get("/api/vars/4711").status_code == 404
