"""Removing old executions over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.plane import Plane, build

URL = "/api/executions/prune"
#: A moment that everything has ended before.
LATER = "2200-01-01T00:00:00Z"


def cancelled(plane: Plane) -> str:
    execution_id = plane.started()
    plane.control.executions.cancel(execution_id)
    return str(execution_id)


def pruned(http: TestClient, **request: Any) -> Any:
    answer = http.post(URL, json=request)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(answer: Any) -> list[str]:
    return [each["execution_id"] for each in answer["executions"]]


def test_what_would_go_is_told_and_then_it_goes(plane: Plane, http: TestClient) -> None:
    old, running = cancelled(plane), plane.started()
    told = pruned(http, ended_before=LATER, dry_run=True)
    assert (ids(told), told["behind"], told["dry_run"]) == ([old], None, True)
    assert told["executions"][0]["events"] == len(plane.control.executions.events(int(old)))
    assert http.get(f"/api/executions/{old}").status_code == 200
    assert ids(pruned(http, ended_before=LATER)) == [old]
    for part in ("", "/status", "/events", "/result", "/logs", "/archive", "/verify", "/why"):
        answer = http.get(f"/api/executions/{old}{part}")
        unknown = http.get(f"/api/executions/7{part}")
        assert (part, answer.status_code) == (part, 404)
        assert unknown.json()["code"] == answer.json()["code"]
    assert ids(pruned(http, ended_before=LATER)) == []
    assert http.get(f"/api/executions/{running}").status_code == 200


def test_a_call_removes_a_batch_and_says_where_to_go_on(plane: Plane, http: TestClient) -> None:
    old = [cancelled(plane) for _ in range(3)]
    first = pruned(http, ended_before=LATER, batch=2)
    assert (ids(first), first["behind"]) == (old[:2], old[1])
    second = pruned(http, ended_before=LATER, batch=2, after=first["behind"])
    assert (ids(second), second["behind"]) == (old[2:], None)


def test_those_that_are_named_go_as_they_were_told(plane: Plane, http: TestClient) -> None:
    old, other, running = cancelled(plane), cancelled(plane), str(plane.started())
    members = pruned(http, ended_before=LATER, dry_run=True)["executions"]
    named = [members[0], {**members[1], "events": 1}, {"execution_id": running, "events": 2}]
    assert ids(pruned(http, ended_before=LATER, executions=named)) == [old]
    assert http.get(f"/api/executions/{other}").status_code == 200


def test_age_alone_and_number_alone(plane: Plane, http: TestClient) -> None:
    old = cancelled(plane)
    assert ids(pruned(http, older_than=3600, dry_run=True)) == []
    assert ids(pruned(http, keep=0, dry_run=True)) == [], "starts may still be repeated"
    assert ids(pruned(http, older_than=0, keep=1, dry_run=True)) == []
    assert ids(pruned(http, older_than=0, status=["COMPLETED"], dry_run=True)) == []
    assert ids(pruned(http, older_than=0, path="elsewhere", dry_run=True)) == []
    assert ids(pruned(http, older_than=0, dry_run=True)) == [old]


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"status": ["FAILED"]},
        {"older_than": -1},
        {"older_than": 1e300},
        {"older_than": 0, "status": ["RUNNING"]},
        {"older_than": 0, "batch": 0},
        {"older_than": 0, "batch": 1001},
        {"keep": -1},
        {"older_than": 0, "after": "x"},
        {"older_than": 0, "dry_run": True, "executions": []},
        {"older_than": 0, "executions": [{"execution_id": "x", "events": 1}]},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(
    plane: Plane, http: TestClient, request_: dict[str, Any]
) -> None:
    old = cancelled(plane)
    assert http.post(URL, json=request_).status_code == 422
    assert http.get(f"/api/executions/{old}").status_code == 200


def test_workers_may_not() -> None:
    plane = build(api_token="client", worker_tokens="default=worker")
    request = {"older_than": 0}
    assert plane.client("worker").post(URL, json=request).status_code == 403
    assert plane.client().post(URL, json=request).status_code == 401
    assert plane.client("client").post(URL, json=request).status_code == 200


def test_a_key_is_known_as_long_as_its_execution(plane: Plane, http: TestClient) -> None:
    def start() -> str:
        body, headers = {"path": "tests/chain"}, {"Idempotency-Key": "k"}
        answer = http.post("/api/execute", json=body, headers=headers)
        return str(answer.json()["execution_id"])

    first = start()
    assert start() == first
    plane.control.executions.cancel(int(first))
    pruned(http, ended_before=LATER)
    assert start() != first


def test_an_archive_is_one_line(plane: Plane, http: TestClient) -> None:
    old = cancelled(plane)
    answer = http.get(f"/api/executions/{old}/archive")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.count("\n") == 1
    found = json.loads(answer.text)
    assert found["execution"]["status"] == "CANCELLED"
    assert found["events"][0]["payload"]["path"] == "tests/chain"
