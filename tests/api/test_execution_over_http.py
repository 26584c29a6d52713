"""A whole execution, driven by hand through the API."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.api.plane import CHAIN, Plane, build


def test_register_execute_claim_report_until_completed() -> None:
    plane = build(eager=False)
    http = plane.client()
    registered = http.post("/api/catalog/register", content=CHAIN).json()
    started = http.post("/api/execute", json={"path": "tests/chain", "payload": {"greeting": "hi"}})
    execution_id = int(started.json()["execution_id"])
    assert plane.dispatcher.woken == [execution_id]

    plane.control.advance.advance(execution_id)
    (pointer,) = plane.pointers()
    claims = [{**pointer, "key": "delivery-1"}]
    claim = http.post("/api/worker/claim", json={"worker": "w1", "claims": claims}).json()
    (answer,) = claim["answers"]
    assert answer["granted"]
    assert answer["variables"]["workload"] == {"greeting": "hi"}
    assert claim["steps"][answer["step"]]["step"] == "start"

    report = {**pointer, "key": "report-1", "outcome": "done", "result": {"message": "hi"}}
    body = {"worker": "w1", "reports": [report]}
    assert http.post("/api/worker/report", json=body).json()["answers"] == [
        {"accepted": True, "duplicate": False, "reason": None, "follows": None}
    ]
    assert http.post("/api/worker/report", json=body).json()["answers"][0]["duplicate"]

    plane.control.advance.advance(execution_id)
    plane.work(execution_id, http)
    status = http.get(f"/api/executions/{execution_id}/status").json()
    assert status["status"] == "COMPLETED"
    assert status["version"] == registered["version"] == 1
    assert status["completed_steps"] == ["start", "work", "finish"]
    assert [(step["name"], step["total"], step["ended"]) for step in status["steps"]] == [
        ("start", 0, 0),
        ("work", 3, 3),
        ("finish", 0, 0),
    ]


def test_a_claim_by_a_second_worker_is_refused_with_a_reason(
    plane: Plane, http: TestClient
) -> None:
    plane.started()
    (pointer,) = plane.pointers()
    for worker, granted in (("w1", True), ("w2", False)):
        claims = [{**pointer, "key": f"by {worker}"}]
        answer = http.post("/api/worker/claim", json={"worker": worker, "claims": claims}).json()
        assert answer["answers"][0]["granted"] is granted
    assert answer["answers"][0]["reason"] == "claimed by another worker"
    assert answer["steps"] == {}


def test_reports_and_claims_travel_together(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    reports: list[dict[str, object]] = []
    claims = [{**pointer, "key": plane.key()} for pointer in plane.pointers()]
    while reports or claims:
        body = {"worker": "w1", "reports": reports, "claims": claims}
        answer = http.post("/api/worker/exchange", json=body).json()
        assert [report["accepted"] for report in answer["reports"]] == [True] * len(reports)
        assert [claim["granted"] for claim in answer["claims"]] == [True] * len(claims)
        assert all(claim["step"] in answer["steps"] for claim in answer["claims"])
        reports = [{**claim, "outcome": "done", "result": 1} for claim in claims]
        plane.control.advance.advance(execution_id)
        claims = [{**pointer, "key": plane.key()} for pointer in plane.pointers()]
    status = http.get(f"/api/executions/{execution_id}/status").json()
    assert (status["status"], status["steps"][1]["ended"]) == ("COMPLETED", 3)
    counted = http.get("/metrics").text
    assert 'callboard_claims_total{outcome="granted"} 5.0' in counted
    assert 'callboard_reports_total{outcome="done"} 5.0' in counted
