"""Checking playbooks over HTTP: everything there is to say, and the schema to check them with."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from app.engine.language.source import read
from tests.api.plane import CHAIN, Plane

SLIP = CHAIN.replace("kind: noop", "kind: noop, resul: hello", 1)
LACKING = CHAIN.replace("kind: noop", "kind: python", 1)


def test_warnings_keep_nobody_from_registering(plane: Plane, http: TestClient) -> None:
    checked = http.post("/api/catalog/validate", content=SLIP).json()
    assert checked["valid"] is True
    (warning,) = checked["findings"]
    assert warning == {
        "code": "tool-key-unknown",
        "severity": "warning",
        "message": "a tool of the kind noop has no key 'resul'; it is ignored.",
        "line": warning["line"],
        "column": warning["column"],
        "path": "workflow.0.tool.resul",
        "suggestion": "Did you mean 'result'?",
    }
    assert SLIP.splitlines()[warning["line"] - 1][warning["column"] - 1 :].startswith("resul:")
    registered = http.post("/api/catalog/register", content=SLIP)
    assert registered.status_code == 200
    assert registered.json()["warnings"] == [warning]


def test_what_a_tool_cannot_do_without_is_refused_with_the_same_findings(
    plane: Plane, http: TestClient
) -> None:
    versions = len(plane.control.catalog.entries(path="tests/chain"))
    checked = http.post("/api/catalog/validate", json={"content": LACKING}).json()
    assert checked["valid"] is False
    assert [(finding["severity"], finding["code"]) for finding in checked["findings"]] == [
        ("error", "tool-key-missing"),
        ("warning", "tool-key-unknown"),
    ]
    refused = http.post("/api/catalog/register", content=LACKING)
    assert refused.status_code == 422
    assert refused.json()["findings"] == checked["findings"]
    assert len(plane.control.catalog.entries(path="tests/chain")) == versions


@pytest.mark.parametrize("content", ["a: [", "- 1", "just text"])
def test_text_that_is_no_playbook_is_an_answer_too(http: TestClient, content: str) -> None:
    answer = http.post("/api/catalog/validate", content=content)
    assert answer.status_code == 200
    assert answer.json()["valid"] is False
    assert answer.json()["findings"][0]["line"] > 0


def test_a_playbook_that_was_stored_before_a_check_came_still_runs(plane: Plane) -> None:
    """What is in the catalog is read as leniently as ever; looks inside to put it there."""
    entry = plane.control.catalog._catalog.add("old/one", "Playbook", LACKING, meta={})
    assert plane.control.catalog.playbook(entry.catalog_id).steps


def test_the_schema_knows_the_tools_that_are_there(http: TestClient) -> None:
    answer = http.get("/api/catalog/schema")
    assert answer.headers["content-type"] == "application/schema+json"
    schema = answer.json()
    Draft202012Validator.check_schema(schema)
    assert not list(Draft202012Validator(schema).iter_errors(read(CHAIN).data))
    assert "tool-noop" in schema["$defs"]
    assert "tool-shell" not in schema["$defs"]  # this server has noop and python


def test_the_schema_of_one_tool(http: TestClient) -> None:
    schema = http.get("/api/catalog/schema", params={"tool": "python"}).json()
    assert schema["properties"]["kind"] == {"const": "python"}
    unknown = http.get("/api/catalog/schema", params={"tool": "shell"})
    assert unknown.status_code == 404
    assert json.loads(unknown.text)["remedy"] == "known kinds: noop, python"
