"""Pause, resume, retry and rerun over HTTP."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.api.plane import Plane


def test_pause_and_resume(plane: Plane, http: TestClient) -> None:
    execution_id = str(plane.started())
    url = f"/api/executions/{execution_id}"
    paused = http.post(f"{url}/pause", json={"reason": "look"}).json()
    assert paused == {
        "status": "paused",
        "execution_id": execution_id,
        "executions": [execution_id],
        "message": "1 execution paused",
    }
    assert http.get(f"{url}/status").json()["paused_at"] is not None
    assert http.get("/api/executions").json()[0]["paused_at"] is not None
    event = http.get(f"{url}/events?event_type=execution.paused").json()["events"][0]
    assert (event["status"], event["context"]) == ("PAUSED", {"reason": "look"})
    assert http.post(f"{url}/pause").json()["message"] == "it was paused already"
    assert http.post(f"{url}/resume").json()["executions"] == [execution_id]
    assert http.get(f"{url}/status").json()["paused_at"] is None


def test_an_ended_execution_is_not_paused(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    url = f"/api/executions/{execution_id}"
    http.post(f"{url}/pause")
    http.post(f"{url}/cancel")
    assert http.get(f"{url}/status").json()["paused_at"] is None
    for verb in ("pause", "resume"):
        answer = http.post(f"{url}/{verb}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert http.post("/api/executions/7/pause").status_code == 404


def test_retry_and_rerun_start_another_execution(plane: Plane, http: TestClient) -> None:
    execution_id = str(plane.started())
    url = f"/api/executions/{execution_id}"
    http.post(f"{url}/cancel")
    retried = http.post(f"{url}/retry", json={"step": "start", "version": "latest"}).json()
    assert (retried["status"], retried["retry_of"]) == ("started", execution_id)
    detail = http.get(f"/api/executions/{retried['execution_id']}").json()
    assert (detail["retry_of"], detail["status"]) == (execution_id, "RUNNING")
    rerun = http.post(f"{url}/rerun").json()
    assert (rerun["status"], rerun["retry_of"]) == ("started", None)
    assert http.post(f"{url}/retry", json={"step": "nowhere"}).status_code == 404


def test_what_waits_in_a_running_execution_is_sent_now(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    url = f"/api/executions/{execution_id}/retry"
    assert http.post(url).json() == {
        "status": "resent",
        "execution_id": str(execution_id),
        "retry_of": None,
        "path": "",
        "version": 0,
        "message": "1 attempt sent now",
    }
    answer = http.post(url, json={"step": "elsewhere"})
    assert answer.status_code == 409
    assert "nothing of step 'elsewhere' of it waits" in answer.json()["detail"]
    assert answer.json()["remedy"]
