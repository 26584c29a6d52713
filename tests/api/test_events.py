"""Events over HTTP: both vocabularies, shapes, pages."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from app.api.vocabulary import WORDS
from app.engine.events import TYPES
from tests.api.plane import Plane

FIELDS = {
    "execution_id",
    "event_id",
    "event_type",
    "type",
    "seq",
    "node_id",
    "node_name",
    "status",
    "created_at",
    "timestamp",
    "context",
    "result",
    "error",
    "catalog_id",
    "parent_execution_id",
    "parent_event_id",
    "duration",
    "step",
    "visit",
    "iteration",
    "attempt",
    "worker",
}


@pytest.fixture
def done(plane: Plane, http: TestClient) -> str:
    """URL of the events of a completed execution."""
    execution_id = plane.started()
    plane.work(execution_id, http)
    return f"/api/executions/{execution_id}/events"


def test_every_event_type_has_a_word() -> None:
    assert WORDS.keys() == TYPES.keys()


def test_rows_speak_both_vocabularies(http: TestClient, done: str) -> None:
    answer = http.get(done).json()
    assert answer["status"] == "COMPLETED"
    rows = answer["events"]
    assert all(row.keys() == FIELDS for row in rows)
    assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
    first = [(row["type"], row["event_type"], row["status"], row["node_name"]) for row in rows[:4]]
    assert first == [
        ("execution.started", "playbook.initialized", "STARTED", "tests/chain"),
        ("step.scheduled", "command.issued", "PENDING", "start"),
        ("step.started", "command.started", "STARTED", "start"),
        ("step.done", "call.done", "COMPLETED", "start"),
    ]
    assert rows[-1]["event_type"] == "playbook.completed"


def test_the_row_of_a_completion(http: TestClient, done: str) -> None:
    rows = http.get(f"{done}?event_type=call.done").json()["events"]
    row = next(row for row in rows if row["step"] == "work" and row["iteration"] == 2)
    assert isinstance(row["event_id"], int)
    assert isinstance(row["execution_id"], str)
    assert row["result"] == {"status": "ok", "context": {"data": {"step": "work", "index": 2}}}
    assert "result" not in row["context"]
    assert (row["visit"], row["attempt"], row["worker"]) == (1, 1, "w")
    assert row["duration"] == 1.5
    assert row["node_id"] == "work[2]"
    assert row["created_at"] == row["timestamp"]


def test_the_row_of_a_failure_has_its_error_as_text(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    (pointer,) = plane.pointers()
    error = {"kind": "auth", "message": "no entry", "retryable": False}
    report = {**pointer, "key": "r", "outcome": "failed", "error": error}
    http.post("/api/worker/report", json={"worker": "w", "reports": [report]})
    rows = http.get(f"/api/executions/{execution_id}/events?event_type=call.error").json()
    (row,) = rows["events"]
    assert (row["status"], row["error"]) == ("FAILED", "no entry")
    assert row["result"] == {"status": "error", "context": {"error": error}}


@pytest.mark.parametrize(
    ("word", "types"),
    [
        ("call.done", {"step.done"}),
        ("step.done", {"step.done"}),
        ("playbook.completed", {"execution.completed"}),
        ("execution.completed", {"execution.completed"}),
        ("loop.done", {"loop.done"}),
        ("no.such", set()),
    ],
)
def test_the_type_filter_knows_either_word(
    http: TestClient, done: str, word: str, types: set[str]
) -> None:
    rows = http.get(f"{done}?event_type={word}").json()["events"]
    assert {row["type"] for row in rows} == types


@pytest.mark.parametrize("filtered", ["", "&event_type=call.done"])
def test_pages_cover_every_event_once(http: TestClient, done: str, filtered: str) -> None:
    everything = http.get(f"{done}?page_size=500{filtered}").json()
    total = everything["pagination"]["total_events"]
    assert total == len(everything["events"]) > 4
    seen, page = [], 0
    while True:
        page += 1
        answer = http.get(f"{done}?page={page}&page_size=2{filtered}").json()
        seen += answer["events"]
        pagination = answer["pagination"]
        assert (pagination["page"], pagination["page_size"]) == (page, 2)
        assert pagination["has_prev"] is (page > 1)
        assert pagination["has_next"] is (page < -(-total // 2))
        assert (pagination["total_events"], pagination["total_pages"]) == (total, -(-total // 2))
        if not pagination["has_next"]:
            break
    assert seen == everything["events"]


@pytest.mark.parametrize("filtered", ["", "&event_type=call.done"])
def test_only_what_came_after_an_event(http: TestClient, done: str, filtered: str) -> None:
    rows = http.get(f"{done}?page_size=500").json()["events"]
    for known in rows:
        wanted = [
            row
            for row in rows
            if row["seq"] > known["seq"] and (not filtered or row["event_type"] == "call.done")
        ]
        for query in (f"since_event_id={known['event_id']}", f"since_seq={known['seq']}"):
            answer = http.get(f"{done}?{query}&page_size=500{filtered}").json()
            assert answer["events"] == wanted
            assert answer["pagination"]["total_events"] == len(wanted)


def test_ids_between_and_beyond_those_of_the_execution(
    plane: Plane, http: TestClient, done: str
) -> None:
    plane.started()  # event ids are global: those of the first execution have gaps afterwards
    assert len(http.get(f"{done}?since_event_id=0").json()["events"]) > 4
    assert http.get(f"{done}?since_event_id=999999999").json()["events"] == []


@pytest.mark.parametrize("query", ["page=0", "page_size=0", "page_size=501", "since_event_id=-1"])
def test_a_wrong_page_is_named(http: TestClient, done: str, query: str) -> None:
    answer = http.get(f"{done}?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


def test_ids_inside_an_event_are_text() -> None:
    from datetime import UTC, datetime

    from app.api.vocabulary import event_row
    from app.engine.entry import Entry
    from app.engine.events import ChildStarted
    from app.engine.ports import ExecutionSummary

    child = 2**62 + 1
    event = ChildStarted("a", 1, -1, 1, child, 7, "child", 1, waits=True)
    summary = ExecutionSummary(5, 7, "p", 1, "RUNNING", datetime.now(UTC))
    assert event_row(Entry(5, 2, event), summary).context["child_execution_id"] == str(child)
