"""Requests whose answers wait for the end of an execution."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from starlette.types import Scope

from app.api import admission, waiting
from app.client import Client
from app.engine.entry import Entry
from app.engine.events import ExecutionCancelled, ExecutionCompleted
from app.engine.ports import Draft
from app.services.ends import Ends
from tests.api.plane import CHAIN, Plane, build, served


@contextmanager
def asked(plane: Plane, url: str) -> Iterator[Future[Any]]:
    """The answer to a request that waits by now."""
    waits = threading.Event()

    @contextmanager
    def aside(scope: Scope) -> Iterator[None]:
        with admission.aside(scope):
            waits.set()
            yield

    with (
        pytest.MonkeyPatch.context() as patch,
        plane.client() as http,
        ThreadPoolExecutor(1) as pool,
    ):
        patch.setattr(waiting, "aside", aside)
        future = pool.submit(lambda: http.get(url).json())
        assert waits.wait(20)
        yield future


@pytest.mark.parametrize("route", ["status", "cancellation-check"])
@pytest.mark.parametrize("is_known", [True, False])
def test_an_end_that_this_process_writes_is_answered_at_once(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, route: str, is_known: bool
) -> None:
    monkeypatch.setattr(waiting, "SHORTEST_LOOK", 30.0)
    monkeypatch.setattr(waiting, "LONGEST_LOOK", 30.0)
    execution_id = plane.started()
    if not is_known:
        plane.control.advance.forget(execution_id)
    with asked(plane, f"/api/executions/{execution_id}/{route}?wait=30") as answer:
        plane.control.executions.cancel(execution_id)
        assert answer.result(timeout=20)["status"] == "CANCELLED"
    assert execution_id not in plane.control.ends


@pytest.mark.parametrize("route", ["status", "cancellation-check"])
def test_what_has_ended_is_not_waited_for(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setattr(waiting, "SHORTEST_LOOK", 30.0)
    execution_id = plane.started()
    plane.control.executions.cancel(execution_id)
    plane.control.advance.forget(execution_id)
    with plane.client() as http:
        found = http.get(f"/api/executions/{execution_id}/{route}?wait=30").json()
    assert found["status"] == "CANCELLED"


def test_an_end_that_another_process_writes_is_found_by_looking(plane: Plane) -> None:
    execution_id = plane.started()
    with asked(plane, f"/api/executions/{execution_id}/status?wait=30") as answer:
        with plane.ports.events.transaction([execution_id]) as tx:
            tx.append(execution_id, [Draft(ExecutionCancelled())])
        assert answer.result(timeout=20)["status"] == "CANCELLED"


def test_what_goes_on_is_answered_when_the_time_is_over(http: TestClient, plane: Plane) -> None:
    execution_id, began = plane.started(), time.monotonic()
    status = http.get(f"/api/executions/{execution_id}/status?wait=0.05").json()
    assert (status["status"], status["current_step"]) == ("RUNNING", "start")
    assert time.monotonic() - began >= 0.05


def test_our_client_waits_longer_than_for_other_answers(plane: Plane) -> None:
    execution_id, began = plane.started(), time.monotonic()
    with served(plane.app) as url, Client(url, timeout=0.2, patience=0) as client:
        assert client.status(execution_id, wait=0.5)["status"] == "RUNNING"
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("route", ["status", "logs"])
def test_a_server_that_stops_waits_no_longer(plane: Plane, route: str) -> None:
    execution_id = plane.started()
    url = f"/api/executions/{execution_id}/{route}?wait=30"
    with plane.client() as http, ThreadPoolExecutor(1) as pool:
        before = pool.submit(lambda: http.get(url))
        plane.control.ends.close()
        assert before.result(timeout=20).status_code == 200
        assert pool.submit(lambda: http.get(url)).result(timeout=20).status_code == 200


@pytest.mark.parametrize(
    ("which", "wait", "code"), [("1", "1", 404), ("1", "31", 422), ("1", "x", 422)]
)
def test_what_cannot_be_waited_for(http: TestClient, which: str, wait: str, code: int) -> None:
    assert http.get(f"/api/executions/{which}/status?wait={wait}").status_code == code


def test_who_waits_does_not_keep_others_out() -> None:
    plane = build(api_requests=1)
    plane.control.catalog.register(CHAIN)
    execution_id = plane.started()
    with asked(plane, f"/api/executions/{execution_id}/status?wait=30") as answer:
        assert plane.client().get("/api/executions").status_code == 200
        plane.control.executions.cancel(execution_id)
        assert answer.result(timeout=20)["status"] == "CANCELLED"


def test_only_who_watches_that_execution_is_told_of_its_end() -> None:
    ends = Ends()
    told: list[str | None] = []
    with ends.watching(1, told.append):
        ends.appended([Entry(2, 1, ExecutionCompleted())])
        assert told == []
        ends.appended([Entry(1, 1, ExecutionCompleted())])
    ends.appended([Entry(1, 1, ExecutionCompleted())])
    with ends.watching(1, told.append):
        ends.close()
    with ends.watching(1, told.append):
        pass
    assert told == ["execution.completed", None, None]
