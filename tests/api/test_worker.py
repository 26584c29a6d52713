"""Workers register, beat and leave; what they claim and report is in the other files."""

from __future__ import annotations

from fastapi.testclient import TestClient

from tests.api.plane import CHAIN, Plane, build

REGISTRATION = {
    "name": "pool-a",
    "runtime": "python",
    "base_url": "http://w:1",
    "capacity": 4,
    "labels": {"zone": "x"},
    "pid": 7,
    "hostname": "h",
    "meta": {"build": 3},
}


def test_register_heartbeat_list_and_deregister(http: TestClient) -> None:
    registered = http.post("/api/worker/pool/register", json=REGISTRATION).json()
    runtime_id = registered["runtime_id"]
    assert runtime_id.isdigit()
    assert registered == {
        "status": "ok",
        "name": "pool-a",
        "runtime_id": runtime_id,
        "kind": "worker_pool",
        "runtime": "python",
    }
    beat = http.post("/api/worker/pool/heartbeat", json={"name": "pool-a"}).json()
    assert (beat["status"], beat["runtime_id"]) == ("ok", runtime_id)
    pools = http.get("/api/worker/pools?runtime=python&status=ready").json()
    assert (pools["count"], pools["runtime"], pools["status"]) == (1, "python", "ready")
    (item,) = pools["items"]
    assert item["runtime"] == {"type": "python", "pid": 7, "hostname": "h", "build": 3}
    assert (item["uri"], item["capacity"], item["labels"]) == ("http://w:1", 4, {"zone": "x"})
    assert item["heartbeat"]
    assert http.get("/api/worker/pools?runtime=rust").json()["items"] == []
    left = http.request("DELETE", "/api/worker/pool/deregister", json={"name": "pool-a"})
    assert left.json()["status"] == "ok"
    left = http.post("/api/worker/pool/deregister", json={"name": "pool-a"})
    assert left.json()["status"] == "unknown"
    assert http.get("/api/worker/pools").json()["count"] == 0


def test_a_heartbeat_of_an_unknown_process_makes_it_known_only_with_a_registration(
    http: TestClient,
) -> None:
    beat = http.post("/api/worker/pool/heartbeat", json={"name": "pool-a"}).json()
    assert beat["status"] == "unknown"
    assert http.get("/api/worker/pools").json()["count"] == 0
    body = {"name": "pool-a", "registration": REGISTRATION}
    beat = http.post("/api/worker/pool/heartbeat", json=body).json()
    assert (beat["status"], beat["runtime"]) == ("recreated", "python")
    assert http.get("/api/worker/pools").json()["count"] == 1


def test_a_beat_is_told_which_attempts_to_stop(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    (pointer,) = plane.pointers()
    claims = [{**pointer, "key": "c"}]
    http.post("/api/worker/claim", json={"worker": "w", "claims": claims})
    beat = {"name": "w", "running": [pointer], "labels": {"pool": "default"}}
    first = http.post("/api/worker/beat", json=beat).json()
    assert (first["status"], first["stop"]) == ("recreated", [])
    http.post(f"/api/executions/{execution_id}/cancel")
    second = http.post("/api/worker/beat", json=beat).json()
    assert (second["status"], second["stop"]) == ("ok", [pointer])
    assert second["runtime_id"] == first["runtime_id"]


def fenced() -> tuple[Plane, TestClient]:
    """A plane with two pools, and a client of the first."""
    plane = build(worker_tokens="default=token-a,gpu=token-b", api_token="token-c")
    plane.control.catalog.register(CHAIN)
    return plane, plane.client("token-a")


def test_a_pool_token_works_for_its_own_pool() -> None:
    plane, http = fenced()
    execution_id = plane.started()
    plane.work(execution_id, http)
    client = plane.client("token-c")
    status = client.get(f"/api/executions/{execution_id}/status").json()
    assert status["status"] == "COMPLETED"
    assert http.post("/api/worker/beat", json={"name": "w1"}).status_code == 200
    (item,) = client.get("/api/worker/pools").json()["items"]
    assert item["labels"] == {"pool": "default"}


def test_a_pool_token_is_refused_for_the_work_of_another_pool() -> None:
    plane, _ = fenced()
    plane.started()
    (pointer,) = plane.pointers()
    other = plane.client("token-b")
    claims = [{**pointer, "key": "c"}]
    answer = other.post("/api/worker/claim", json={"worker": "w", "claims": claims})
    assert answer.status_code == 403
    report = {**pointer, "key": "r", "outcome": "done"}
    answer = other.post("/api/worker/report", json={"worker": "w", "reports": [report]})
    assert answer.status_code == 403
    for part in ({"claims": claims}, {"reports": [report]}):
        answer = other.post("/api/worker/exchange", json={"worker": "w", **part})
        assert answer.status_code == 403


def test_a_pool_token_cannot_speak_for_processes_of_others() -> None:
    plane, own = fenced()
    other = plane.client("token-b")
    assert own.post("/api/worker/beat", json={"name": "w1"}).status_code == 200
    for path, body in (
        ("/api/worker/beat", {"name": "w1"}),
        ("/api/worker/beat", {"name": "w2", "labels": {"pool": "default"}}),
        ("/api/worker/beat", {"name": "o", "kind": "orchestrator"}),
        ("/api/worker/pool/register", {"name": "w1"}),
        ("/api/worker/pool/heartbeat", {"name": "w1"}),
        (
            "/api/worker/pool/heartbeat",
            {"name": "w3", "registration": {"name": "w3", "kind": "server_api"}},
        ),
        ("/api/worker/pool/deregister", {"name": "w1"}),
        ("/api/worker/pool/deregister", {"name": "x", "kind": "server_api"}),
    ):
        answer = other.post(path, json=body)
        assert answer.status_code == 403, (path, body)
        assert answer.json()["code"] == "forbidden"
    assert plane.client("token-c").get("/api/worker/pools").json()["count"] == 1
