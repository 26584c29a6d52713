"""Probes, metrics and the front door."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from app.api.app import Check
from app.engine.events import ExecutionStarted
from app.engine.ports import Draft
from app.errors import UnavailableError
from app.services.observed import ObservedLog
from app.store.memory import MemoryLog
from app.telemetry.metrics import Metrics
from tests.api.plane import Plane, build


@pytest.mark.parametrize("path", ["/livez", "/health", "/api/health"])
def test_the_process_lives_whatever_else_does_not(plane: Plane, path: str) -> None:
    plane.health.failing = [Check("postgres", ok=False, message="refused")]
    answer = plane.client().get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_names_every_check(http: TestClient) -> None:
    answer = http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "checks": [
            {"name": name, "ok": True, "message": "", "remedy": None, "severity": "error"}
            for name in ("postgres", "nats", "migrations")
        ],
    }


def test_not_ready_says_what_fails_and_what_to_do(plane: Plane) -> None:
    plane.health.failing = [
        Check("nats", ok=False, message="connection refused", remedy="start nats-server"),
        Check("migrations", ok=False, message="behind", remedy="run 'callboard db upgrade'"),
    ]
    answer = plane.client().get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    problem = answer.json()
    assert problem["detail"] == "nats: connection refused; migrations: behind"
    assert problem["remedy"] == "start nats-server; run 'callboard db upgrade'"
    assert {check["name"]: check["ok"] for check in problem["checks"]} == {
        "postgres": True,
        "nats": False,
        "migrations": False,
    }


def test_what_does_not_keep_us_from_serving_is_told_and_answers_200(plane: Plane) -> None:
    plane.health.failing = [
        Check("nats", ok=False, message="away", remedy="start it", severity="warning")
    ]
    answer = plane.client().get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    (nats,) = [check for check in answer.json()["checks"] if check["name"] == "nats"]
    assert nats == {
        "name": "nats",
        "ok": False,
        "message": "away",
        "remedy": "start it",
        "severity": "warning",
    }


def test_the_doctor_says_whether_all_is_well_and_asks_for_a_token() -> None:
    plane = build(api_token="sesame")
    assert plane.client().get("/api/doctor").status_code == 401
    found = plane.client("sesame").get("/api/doctor").json()
    assert (found["status"], len(found["checks"])) == ("well", 3)
    assert found["version"]
    plane.health.failing = [Check("nats", ok=False, message="away", severity="warning")]
    assert plane.client("sesame").get("/api/doctor").json()["status"] == "trouble"


def test_the_front_door_links_to_routes_that_exist(http: TestClient) -> None:
    front = http.get("/").json()
    assert front["name"] == "callboard"
    assert front["version"]
    for name, path in front["links"].items():
        answer = http.post(path) if name == "catalog" else http.get(path)
        assert answer.status_code == 200, path


def test_the_schema_describes_the_bodies_that_routes_read(http: TestClient) -> None:
    schema = http.get("/api/openapi.json").json()
    body = schema["paths"]["/api/execute"]["post"]["requestBody"]
    assert "payload" in body["content"]["application/json"]["schema"]["properties"]


def samples(http: TestClient) -> Mapping[tuple[str, tuple[str, ...]], float]:
    """What ``/metrics`` shows, by name and label values."""
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_count_what_happened(plane: Plane, http: TestClient) -> None:
    execution_id = plane.started()
    (pointer,) = plane.pointers()
    claims = [{**pointer, "key": "c"}, {**pointer, "key": "d"}]
    http.post("/api/worker/claim", json={"worker": "w", "claims": claims})
    report = {**pointer, "key": "r", "outcome": "done"}
    late = {**pointer, "key": "l", "outcome": "failed"}
    for _ in range(2):
        http.post("/api/worker/report", json={"worker": "w", "reports": [report]})
    http.post("/api/worker/report", json={"worker": "w", "reports": [late]})
    http.get(f"/api/executions/{execution_id}")
    http.get("/api/executions/404404")
    http.get("/nowhere")
    found = samples(http)
    expected: dict[tuple[str, tuple[str, ...]], float] = {
        ("callboard_claims_total", ("granted",)): 1,
        ("callboard_claims_total", ("refused",)): 1,
        ("callboard_reports_total", ("done",)): 1,
        ("callboard_reports_total", ("duplicate",)): 1,
        ("callboard_reports_total", ("refused",)): 1,
        ("callboard_events_appended_total", ("execution.started",)): 1,
        ("callboard_events_appended_total", ("step.started",)): 1,
        ("callboard_events_appended_total", ("step.done",)): 1,
        ("callboard_events_appended_total", ("attempt.late",)): 1,
        ("callboard_executions", ("RUNNING",)): 1,
        ("callboard_executions", ("FAILED",)): 0,
        ("callboard_http_requests_total", ("POST", "/api/worker/report", "200")): 3,
        ("callboard_http_requests_total", ("GET", "/api/executions/{execution_id}", "200")): 1,
        ("callboard_http_requests_total", ("GET", "/api/executions/{execution_id}", "404")): 1,
        ("callboard_http_requests_total", ("GET", "unmatched", "404")): 1,
        ("callboard_http_request_seconds_count", ("POST", "/api/worker/report")): 3,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert not any(str(execution_id) in label for _, labels in found for label in labels)


def test_metrics_stay_readable_while_the_database_is_away() -> None:
    metrics = Metrics()

    def away() -> Any:
        raise UnavailableError("no database")

    metrics.watch_executions(away)
    metrics.request("GET", "/x", 503, 0.1)
    text = metrics.exposition().decode()
    assert 'callboard_http_requests_total{method="GET",route="/x",status="503"} 1.0' in text
    assert "callboard_executions" not in text


def test_events_of_a_transaction_that_was_rolled_back_are_not_counted() -> None:
    metrics = Metrics()
    log = ObservedLog(MemoryLog(), metrics.appended)
    started = ExecutionStarted(catalog_id=1, path="p", version=1, workload={})
    with pytest.raises(UnavailableError), log.transaction([1]) as tx:  # noqa: PT012 (the error must come after the append)
        tx.append(1, [Draft(started)])
        raise UnavailableError("lost")
    assert "execution.started" not in metrics.exposition().decode()
    with log.transaction([1]) as tx:
        tx.append(1, [Draft(started)])
    line = 'callboard_events_appended_total{type="execution.started"} 1.0'
    assert line in metrics.exposition().decode()


def test_two_planes_in_one_process_count_apart() -> None:
    first, second = build().client(), build().client()
    first.get("/livez")
    key = ("callboard_http_requests_total", ("GET", "/livez", "200"))
    assert samples(first)[key] == 1
    assert key not in samples(second)


def test_browsers_get_a_page_where_pages_are_served(http: TestClient, plane: Plane) -> None:
    page = http.get("/", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert 'href="/api/executions"' in page.text
    plane.app.state.settings = replace(plane.app.state.settings, enable_ui=False)
    assert http.get("/", headers={"accept": "text/html,*/*"}).json()["name"] == "callboard"
