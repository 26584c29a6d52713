"""Registering, checking, listing and reading resources."""

from __future__ import annotations

import base64
import json

import pytest
from fastapi.testclient import TestClient

from tests.api.plane import CHAIN, Plane, build

BROKEN = CHAIN.replace("step: finish}", "step: finnish}").replace("kind: noop", "kind: nope", 1)
ENCODED = base64.b64encode(CHAIN.encode()).decode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(CHAIN, id="raw YAML"),
        pytest.param(ENCODED, id="base64"),
        pytest.param(json.dumps({"content": CHAIN}), id="envelope"),
        pytest.param(
            json.dumps({"content": ENCODED, "resource_type": "Playbook"}),
            id="envelope with base64",
        ),
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "application/yaml", None])
def test_a_playbook_is_registered_in_every_form(body: str, content_type: str | None) -> None:
    http = build().client()
    headers = {"content-type": content_type} if content_type else {}
    answer = http.post("/api/catalog/register", content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "status": "success",
        "message": "Resource 'tests/chain' version '1' registered.",
        "path": "tests/chain",
        "version": 1,
        "catalog_id": "1",
        "kind": "Playbook",
        "warnings": [],
    }


def test_registering_again_makes_the_next_version(http: TestClient) -> None:
    assert http.post("/api/catalog/register", content=CHAIN).json()["version"] == 2


def test_an_invalid_playbook_is_refused_with_all_findings_and_not_stored(
    plane: Plane, http: TestClient
) -> None:
    answer = http.post("/api/catalog/register", content=BROKEN)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_playbook"
    assert len(problem["findings"]) >= 2
    assert all(finding["line"] > 0 for finding in problem["findings"])
    assert "finnish" in problem["detail"]
    assert [entry.version for entry in plane.control.catalog.entries(path="tests/chain")] == [1]


def test_validate_gives_the_findings_as_an_answer(plane: Plane, http: TestClient) -> None:
    assert http.post("/api/catalog/validate", content=CHAIN).json() == {
        "valid": True,
        "findings": [],
    }
    checked = http.post("/api/catalog/validate", content=BROKEN).json()
    assert checked["valid"] is False
    refused = http.post("/api/catalog/register", content=BROKEN).json()
    assert checked["findings"] == refused["findings"]
    assert len(plane.control.catalog.entries(path="tests/chain")) == 1


@pytest.mark.parametrize("kind", [None, "Playbook", "playbook", "playbooks"])
def test_list_shows_the_newest_version_without_its_content(
    http: TestClient, kind: str | None
) -> None:
    http.post("/api/catalog/register", content=CHAIN)
    answer = http.post("/api/catalog/list", json={"resource_type": kind})
    (entry,) = answer.json()["entries"]
    assert (entry["path"], entry["version"], entry["kind"]) == ("tests/chain", 2, "Playbook")
    assert entry["catalog_id"] == "2"
    assert entry["content"] is None
    assert {"layout", "payload", "meta", "created_at"} <= entry.keys()


def test_list_without_a_body_lists_all_and_another_kind_none(http: TestClient) -> None:
    assert len(http.post("/api/catalog/list").json()["entries"]) == 1
    other = http.post("/api/catalog/list", json={"resource_type": "Tool"})
    assert other.json() == {"entries": []}


def test_list_of_a_path_shows_every_version(http: TestClient) -> None:
    http.post("/api/catalog/register", content=CHAIN)
    entries = http.post("/api/catalog/list", json={"path": "tests/chain"}).json()["entries"]
    assert [entry["version"] for entry in entries] == [1, 2]


@pytest.mark.parametrize(
    ("query", "version"),
    [
        ({"path": "tests/chain"}, 2),
        ({"path": "tests/chain", "version": "latest"}, 2),
        ({"path": "tests/chain", "version": 1}, 1),
        ({"catalog_id": "1"}, 1),
        ({"catalog_id": 2}, 2),
    ],
)
def test_one_resource_comes_with_its_content(
    http: TestClient, query: dict[str, object], version: int
) -> None:
    http.post("/api/catalog/register", content=CHAIN)
    entry = http.post("/api/catalog/resource", json=query).json()
    assert (entry["version"], entry["content"]) == (version, CHAIN)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"path": "nowhere"}, 404),
        ({"path": "tests/chain", "version": 9}, 404),
        ({"catalog_id": "77"}, 404),
        ({"catalog_id": "seven"}, 422),
        ({}, 422),
    ],
)
def test_a_resource_that_is_not_there(
    http: TestClient, query: dict[str, object], status: int
) -> None:
    answer = http.post("/api/catalog/resource", json=query)
    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [(b"", "the body is empty"), (b"\xff\xfe", "the body is not UTF-8 text")],
)
def test_a_body_without_a_playbook(looker: TestClient, body: bytes, detail: str) -> None:
    answer = looker.post("/api/catalog/register", content=body)
    assert (answer.status_code, answer.json()["detail"]) == (422, detail)
    assert answer.json()["remedy"]
