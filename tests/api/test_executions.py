"""Starting, listing, looking at and cancelling executions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api.executions import human
from tests.api.plane import CHAIN, Plane, build

ROW = {
    "paused_at",
    "execution_id",
    "catalog_id",
    "path",
    "version",
    "status",
    "start_time",
    "end_time",
    "duration_seconds",
    "duration_human",
    "progress",
    "result",
    "error",
    "parent_execution_id",
}


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/api/execute", {"path": "tests/chain"}),
        ("/api/execute", {"path": "tests/chain", "version": 1}),
        ("/api/execute", {"path": "tests/chain", "version": "latest"}),
        ("/api/execute", {"catalog_id": "1"}),
        ("/api/execute", {"catalog_id": 1}),
        ("/api/execute/playbook/tests/chain", {"input": {}}),
        ("/api/execute/playbook/tests/chain", None),
    ],
)
def test_a_playbook_is_started_by_path_or_id(http: TestClient, url: str, body: Any) -> None:
    answer = http.post(url, json=body) if body is not None else http.post(url)
    assert answer.status_code == 200, answer.text
    started = answer.json()
    assert started["execution_id"].isdigit()
    assert (started["status"], started["commands_generated"]) == ("started", 0)
    assert (started["path"], started["version"], started["catalog_id"]) == ("tests/chain", 1, "1")


@pytest.mark.parametrize("name", ["payload", "workload", "input"])
def test_values_override_the_workload_key_by_key(http: TestClient, name: str) -> None:
    body = {"path": "tests/chain", name: {"greeting": "hi", "extra": 1}}
    execution_id = http.post("/api/execute", json=body).json()["execution_id"]
    variables = http.get(f"/api/executions/{execution_id}/status").json()["variables"]
    assert variables == {"greeting": "hi", "items": [1, 2, 3], "extra": 1}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"path": "nowhere"}, 404),
        ({"catalog_id": "99"}, 404),
        ({"path": "tests/chain", "version": 9}, 404),
        ({}, 422),
        ({"path": "tests/chain", "payload": [1]}, 422),
        ({"path": "tests/chain", "parent_execution_id": "x"}, 422),
    ],
)
def test_what_cannot_be_started_says_so_and_starts_nothing(
    plane: Plane, http: TestClient, body: Any, status: int
) -> None:
    assert http.post("/api/execute", json=body).status_code == status
    assert http.get("/api/executions").json() == []
    assert plane.dispatcher.woken == []


def test_rows_are_newest_first_and_have_the_known_fields(plane: Plane, http: TestClient) -> None:
    ids = [str(plane.started()) for _ in range(3)]
    rows = http.get("/api/executions").json()
    assert [row["execution_id"] for row in rows] == ids[::-1]
    assert rows[0].keys() == ROW
    assert (rows[0]["status"], rows[0]["progress"], rows[0]["end_time"]) == ("RUNNING", 0, None)


def test_a_cursor_leads_through_all_pages(plane: Plane, http: TestClient) -> None:
    ids = [str(plane.started()) for _ in range(5)]
    url, seen = "/api/executions?limit=2&path=tests/chain", []
    while True:
        answer = http.get(url)
        seen.append([row["execution_id"] for row in answer.json()])
        if "link" not in answer.headers:
            break
        target, rel = answer.headers["link"].split(";")
        assert rel.strip() == 'rel="next"'
        url = target.strip("<>")
        assert answer.headers["x-next-cursor"] == seen[-1][-1]
        assert "path=tests%2Fchain" in url
        plane.started()  # what is new does not shift what follows
    assert seen == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]
    assert "x-next-cursor" not in answer.headers


def test_pages_are_counted_from_one(plane: Plane, http: TestClient) -> None:
    ids = [str(plane.started()) for _ in range(3)]
    pages = [http.get(f"/api/executions?page={page}&page_size=2").json() for page in (1, 2, 3)]
    assert [[row["execution_id"] for row in page] for page in pages] == [
        [ids[2], ids[1]],
        [ids[0]],
        [],
    ]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": "RUNNING"}, ["open"]),
        ({"status": "cancelled"}, ["cancelled"]),
        ({"status": "FAILED"}, []),
        ({"path": "tests/other"}, []),
        ({"path": "tests/chain"}, ["cancelled", "open"]),
        ({"started_after": "past"}, ["cancelled", "open"]),
        ({"started_after": "future"}, []),
        ({"started_before": "past"}, []),
        ({"started_before": "future", "status": "running"}, ["open"]),
    ],
)
def test_filters(plane: Plane, http: TestClient, query: dict[str, str], found: list[str]) -> None:
    names = {str(plane.started()): "open", str(plane.started()): "cancelled"}
    http.post(f"/api/executions/{list(names)[1]}/cancel")
    now = datetime.now(UTC)
    times = {
        "past": (now - timedelta(hours=1)).isoformat(),
        "future": (now + timedelta(hours=1)).isoformat(),
    }
    params = {name: times.get(value, value) for name, value in query.items()}
    rows = http.get("/api/executions", params=params).json()
    assert [names[row["execution_id"]] for row in rows] == found


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ("page_size=0", "page_size"),
        ("page_size=501", "page_size"),
        ("page=0", "page"),
        ("page=1000&page_size=500", "page"),
        ("limit=501", "limit"),
        ("status=SLEEPING", "status"),
        ("started_after=yesterday", "started_after"),
        ("cursor=abc", "cursor"),
        ("cursor=99999999999999999999", "cursor"),
    ],
)
def test_a_wrong_filter_is_named(looker: TestClient, query: str, key: str) -> None:
    answer = looker.get(f"/api/executions?{query}")
    assert answer.status_code == 422
    assert key in answer.json()["detail"]


def test_one_execution_by_both_names(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    detail = http.get(f"/api/executions/{execution_id}").json()
    alias = http.get(f"/api/execute/{execution_id}").json()
    for answer in (detail, alias):
        del answer["duration_seconds"], answer["duration_human"]
    assert alias == detail
    assert ROW - {"duration_seconds", "duration_human"} < detail.keys()
    assert detail["events_included"] is True
    assert detail["events_endpoint"] == f"/api/executions/{execution_id}/events"
    assert detail["pagination"]["total_events"] == len(detail["events"]) == 2
    assert detail["progress"] == 0


def test_progress_counts_ended_steps_and_an_ended_execution_shows_its_result(
    plane: Plane, http: TestClient
) -> None:
    execution_id = plane.started()
    plane.work(execution_id, http, rounds=1)
    detail = http.get(f"/api/executions/{execution_id}?include_events=false").json()
    assert (detail["progress"], detail["result"]) == (33, None)
    assert (detail["events"], detail["events_included"], detail["pagination"]) == ([], False, None)
    plane.work(execution_id, http)
    detail = http.get(f"/api/executions/{execution_id}").json()
    assert (detail["status"], detail["progress"]) == ("COMPLETED", 100)
    assert detail["result"] == {"step": "finish", "index": -1}
    assert detail["end_time"] is not None


def test_status_of_a_running_execution(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    plane.work(execution_id, http, rounds=1)
    status = http.get(f"/api/executions/{execution_id}/status").json()
    assert (status["status"], status["completed"], status["failed"]) == ("RUNNING", False, False)
    assert (status["current_step"], status["completed_steps"]) == ("work", ["start"])
    assert (status["source"], status["completion_inferred"]) == ("engine", False)
    assert status["steps"][1] == {
        "name": "work",
        "status": "running",
        "visit": 1,
        "total": 3,
        "ended": 0,
        "failed": 0,
        "error": None,
    }
    assert status["steps"][2]["status"] == "pending"
    assert status["variables"]["start"] == {"step": "start", "index": -1}


def test_status_of_a_failed_execution_tells_the_error(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    (pointer,) = plane.pointers()
    claims = [{**pointer, "key": "c"}]
    http.post("/api/worker/claim", json={"worker": "w", "claims": claims})
    report = {
        **pointer,
        "key": "r",
        "outcome": "failed",
        "error": {"kind": "timeout", "message": "took too long", "retryable": False},
    }
    http.post("/api/worker/report", json={"worker": "w", "reports": [report]})
    plane.control.advance.advance(execution_id)
    status = http.get(f"/api/executions/{execution_id}/status").json()
    assert (status["status"], status["completed"], status["failed"]) == ("FAILED", False, True)
    assert "took too long" in status["error"]
    assert status["steps"][0]["error"] == "took too long"


def test_large_variables_are_mentioned_unless_all_are_asked_for(
    plane: Plane, http: TestClient
) -> None:
    execution_id = plane.started(greeting="x" * 5000)
    url = f"/api/executions/{execution_id}/status"
    compact = http.get(url).json()["variables"]
    assert compact["greeting"] == {"_truncated": True, "_size_bytes": 5002}
    assert compact["items"] == [1, 2, 3]
    assert http.get(f"{url}?full=true").json()["variables"]["greeting"] == "x" * 5000
    assert http.get(f"{url}?variables=false").json()["variables"] == {}


def test_results_of_the_last_step_of_a_named_one_and_of_a_loop(
    plane: Plane, http: TestClient
) -> None:
    execution_id = plane.started()
    url = f"/api/executions/{execution_id}/result"
    assert http.get(url).status_code == 404
    plane.work(execution_id, http)
    assert http.get(url).json() == {
        "execution_id": str(execution_id),
        "step": "finish",
        "status": "done",
        "result": {"step": "finish", "index": -1},
    }
    assert http.get(f"{url}?step=start").json()["result"] == {"step": "start", "index": -1}
    loop = http.get(f"{url}?step=work").json()["result"]
    assert loop["stats"] == {"total": 3, "success": 3, "failed": 0}
    assert [item["index"] for item in loop["results"]] == [0, 1, 2]
    assert http.get(f"{url}?step=nowhere").status_code == 404


def test_a_result_kept_by_reference_is_read_through(http: TestClient) -> None:
    plane = build(inline_bytes=100)
    plane.control.catalog.register(CHAIN)
    http = plane.client()
    execution_id = plane.started()
    (pointer,) = plane.pointers()
    http.post("/api/worker/claim", json={"worker": "w", "claims": [{**pointer, "key": "c"}]})
    report = {**pointer, "key": "r", "outcome": "done", "result": {"text": "x" * 1000, "n": 7}}
    http.post("/api/worker/report", json={"worker": "w", "reports": [report]})
    answer = http.get(f"/api/executions/{execution_id}/result?step=start").json()
    assert (answer["result"]["text"], answer["result"]["n"]) == ("x" * 1000, 7)
    events = http.get(f"/api/executions/{execution_id}/events?event_type=call.done").json()
    (event,) = events["events"]
    assert event["result"]["context"] == {"n": 7}
    assert event["result"]["reference"]["ref"].startswith(f"noetl://execution/{execution_id}/")


def test_cancel_and_cancel_again(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    url = f"/api/executions/{execution_id}"
    check = http.get(f"{url}/cancellation-check").json()
    assert (check["status"], check["cancelled"], check["event_type"]) == ("RUNNING", False, None)
    assert http.post(f"{url}/cancel", json={"reason": "enough"}).json() == {
        "status": "cancelled",
        "execution_id": str(execution_id),
        "cancelled_executions": [str(execution_id)],
        "message": "1 execution cancelled",
    }
    again = http.post(f"{url}/cancel").json()
    assert (again["status"], again["cancelled_executions"]) == ("already_completed", [])
    assert http.get(f"{url}/cancellation-check").json() == {
        "execution_id": str(execution_id),
        "status": "CANCELLED",
        "event_type": "execution.cancelled",
        "cancelled": True,
        "completed": False,
        "failed": False,
    }
    status = http.get(f"{url}/status").json()
    assert (status["completed"], status["failed"]) == (True, False)


def test_cancel_cascades_to_children_unless_told_not_to(plane: Plane, http: TestClient) -> None:
    def family() -> tuple[str, str]:
        parent = str(plane.started())
        body = {"path": "tests/chain", "parent_execution_id": parent}
        return parent, http.post("/api/execute", json=body).json()["execution_id"]

    parent, child = family()
    answer = http.post(f"/api/executions/{parent}/cancel").json()
    assert answer["cancelled_executions"] == [parent, child]
    assert (
        http.get(f"/api/executions?parent_execution_id={parent}").json()[0]["parent_execution_id"]
        == parent
    )
    parent, child = family()
    answer = http.post(f"/api/executions/{parent}/cancel", json={"cascade": False}).json()
    assert answer["cancelled_executions"] == [parent]
    assert http.get(f"/api/executions/{child}/status").json()["status"] == "RUNNING"


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ""),
        ("GET", "/status"),
        ("GET", "/events"),
        ("GET", "/result"),
        ("GET", "/cancellation-check"),
        ("POST", "/cancel"),
    ],
)
@pytest.mark.parametrize(("name", "status"), [("123", 404), ("abc", 422), ("9" * 30, 422)])
def test_an_execution_that_is_not_there(
    looker: TestClient, method: str, rest: str, name: str, status: int
) -> None:
    answer = looker.request(method, f"/api/executions/{name}{rest}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.4204, "420ms"),
        (3.21, "3.2s"),
        (63, "1m 3s"),
        (7500, "2h 5m"),
        (273_600, "3d 4h"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert human(seconds) == text


def test_dashboard_counts_what_there_is(plane: Plane, http: TestClient) -> None:
    first, second, _ = (plane.started() for _ in range(3))
    plane.dispatcher.steps[:] = [s for s in plane.dispatcher.steps if s.pointer[0] == first]
    plane.work(first, http)
    http.post(f"/api/executions/{second}/cancel")
    stats = http.get("/api/dashboard/stats").json()
    assert stats["status"] == "ok"
    assert stats["stats"] == {
        "total_executions": 3,
        "successful_executions": 1,
        "failed_executions": 0,
        "cancelled_executions": 1,
        "total_playbooks": 1,
        "active_workflows": 1,
    }
    assert {k: stats[k] for k in stats["stats"] if k in stats} == {
        k: v for k, v in stats["stats"].items() if k != "cancelled_executions"
    }
