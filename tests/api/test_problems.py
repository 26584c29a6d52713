"""Errors: one form for all, nothing secret in them, nothing of ours either."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest
import structlog
from fastapi import Request
from fastapi.testclient import TestClient

from app.api.bodies import TooLargeError, read_playbook
from app.errors import (
    CallboardError,
    ConflictError,
    Finding,
    InvalidPlaybookError,
    NotFoundError,
    UnavailableError,
)
from tests.api.plane import CHAIN, Plane, build


def failing(plane: Plane, error: Exception) -> TestClient:
    """A client of a plane whose route ``/api/fails`` raises *error*."""

    @plane.app.get("/api/fails")
    def fails() -> None:
        raise error

    return plane.client()


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFoundError("gone", remedy="look elsewhere"), 404, "not_found"),
        (ConflictError("taken", remedy="look elsewhere"), 409, "conflict"),
        (CallboardError("odd", remedy="look elsewhere"), 500, "error"),
        (UnavailableError("away", remedy="look elsewhere"), 503, "unavailable"),
    ],
)
def test_the_form(plane: Plane, error: CallboardError, status: int, code: str) -> None:
    answer = failing(plane, error).get("/api/fails")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem.pop("title")
    assert problem == {
        "type": f"urn:callboard:problem:{code}",
        "status": status,
        "detail": error.message,
        "code": code,
        "remedy": "look elsewhere",
    }


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (1.0, "1"), (2.5, "3")])
def test_unavailable_says_when_to_come_back(plane: Plane, seconds: float, header: str) -> None:
    answer = failing(plane, UnavailableError("away", retry_after=seconds)).get("/api/fails")
    assert answer.headers["retry-after"] == header


def test_findings_travel_along(plane: Plane) -> None:
    finding = Finding("c", "m", line=3, column=4, key="k", suggestion="s")
    answer = failing(plane, InvalidPlaybookError([finding], source="f.yaml")).get("/api/fails")
    problem = answer.json()
    assert (answer.status_code, problem["source"]) == (422, "f.yaml")
    assert problem["findings"] == [
        {
            "code": "c",
            "message": "m",
            "line": 3,
            "column": 4,
            "path": "k",
            "severity": "error",
            "suggestion": "s",
        }
    ]


def test_an_unexpected_error_is_logged_with_an_id_and_not_shown(plane: Plane) -> None:
    http = failing(plane, ZeroDivisionError("the password is hunter2"))
    with structlog.testing.capture_logs() as lines:
        answer = http.get("/api/fails")
    assert answer.status_code == 500
    problem = answer.json()
    assert problem["code"] == "internal"
    assert problem["incident"] in problem["remedy"]
    for inside in ("hunter2", "ZeroDivision", "Traceback", ".py"):
        assert inside not in answer.text
    (line,) = lines
    assert (line["event"], line["path"]) == ("http.failed", "/api/fails")
    assert line["incident"] == problem["incident"]
    assert isinstance(line["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/executions/1/nowhere", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/openapi.json", 404, "not_found"),
        ("PUT", "/api/executions", 405, "method_not_allowed"),
    ],
)
def test_unknown_routes(looker: TestClient, method: str, path: str, status: int, code: str) -> None:
    answer = looker.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert path in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        ("/api/worker/claim", {"worker": "w"}, "claims"),
        ("/api/worker/claim", {"worker": "w", "claims": [{"step": "s"}]}, "claims.0.execution_id"),
        (
            "/api/worker/report",
            {
                "worker": "w",
                "reports": [
                    {
                        "execution_id": 1,
                        "step": "s",
                        "visit": 1,
                        "iteration": -1,
                        "attempt": 1,
                        "path": "k",
                        "outcome": "hunter2",
                    }
                ],
            },
            "reports.0.outcome",
        ),
        ("/api/worker/beat", {"name": "n", "capacity": "hunter2"}, "capacity"),
        ("/api/worker/pool/register", {"capacity": 1}, "name"),
        ("/api/execute", {"path": ["hunter2"]}, "path"),
        ("/api/execute", {"path": "p", "version": "hunter2"}, "version"),
        ("/api/executions/1/cancel", {"cascade": "hunter2"}, "cascade"),
        ("/api/catalog/resource", {"version": "hunter2"}, "version"),
    ],
)
def test_a_wrong_request_names_the_key_and_never_the_value(
    looker: TestClient, path: str, body: Any, key: str
) -> None:
    answer = looker.post(path, json=body)
    assert answer.status_code == 422
    problem = answer.json()
    assert problem["code"] == "bad_request"
    assert key in problem["detail"]
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("query", ["status=hunter2", "page_size=hunter2", "started_after=hunter2"])
def test_a_wrong_query_never_repeats_the_value(looker: TestClient, query: str) -> None:
    answer = looker.get(f"/api/executions?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]
    assert "hunter2" not in answer.text


def test_a_body_that_is_not_json(looker: TestClient) -> None:
    answer = looker.post("/api/execute", content=b'{"path": hunter2}')
    assert answer.status_code == 422
    assert "hunter2" not in answer.text
    assert "JSON" in answer.json()["detail"]


LIMITED = {"playbook_bytes": 2_000, "result_bytes": 1_000}


@pytest.mark.parametrize(
    ("path", "size", "setting"),
    [
        ("/api/catalog/register", 2_001, "CALLBOARD_PLAYBOOK_BYTES"),
        ("/api/catalog/validate", 2_001, "CALLBOARD_PLAYBOOK_BYTES"),
        ("/api/catalog/register", 100_000, "CALLBOARD_PLAYBOOK_BYTES"),
        ("/api/catalog/register", 10_000_000, "CALLBOARD_PLAYBOOK_BYTES"),
        ("/api/worker/report", 16 * 2**20 + 1_001, "CALLBOARD_RESULT_BYTES"),
        ("/api/worker/exchange", 16 * 2**20 + 1_001, "CALLBOARD_RESULT_BYTES"),
        ("/api/worker/claim", 16 * 2**20 + 1, "less"),
        ("/api/execute", 16 * 2**20 + 1, "less"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_above_its_limit_is_refused(
    path: str, size: int, setting: str, chunked: bool
) -> None:
    body = b"#" * size
    http = build(**LIMITED).client()
    pieces = (body[i : i + 100_000] for i in range(0, size, 100_000))
    answer = http.post(path, content=pieces if chunked else body)
    assert answer.status_code == 413
    problem = answer.json()
    assert problem["code"] == "too_large"
    assert setting in problem["remedy"]


def test_a_body_at_its_limit_is_read() -> None:
    http = build(playbook_bytes=2_000).client()
    body = CHAIN + "#" * (2_000 - len(CHAIN))
    assert http.post("/api/catalog/register", content=body).status_code == 200


def test_no_more_of_a_body_is_held_than_its_limit() -> None:
    plane = build(playbook_bytes=100_000)
    limit = plane.app.state.limits.playbook
    taken = 0

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 50_000
        return {"type": "http.request", "body": bytes(50_000), "more_body": True}

    request = Request({"type": "http", "headers": [], "app": plane.app}, receive)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            asyncio.run(read_playbook(request))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 4 * limit < taken < 5 * limit  # read on, so that the sender hears why; not for ever
    assert peak < 2 * limit


def test_a_body_that_lies_about_its_length_is_counted() -> None:
    http = build(**LIMITED).client()
    answer = http.post(
        "/api/catalog/register", content=iter([b"#" * 100_000]), headers={"content-length": "x"}
    )
    assert answer.status_code == 413


def test_without_a_token_a_body_is_not_even_read() -> None:
    plane = build(api_token="t", **LIMITED)
    answer = plane.client().post("/api/catalog/register", content=b"#" * 10_000_000)
    assert answer.status_code == 401
