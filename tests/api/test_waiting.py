"""Requests whose answers wait for the end of an execution."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.api import waiting
from app.client import Client
from app.engine.entry import Entry
from app.engine.events import ExecutionCancelled, ExecutionCompleted
from app.engine.ports import Draft
from app.services.ends import Ends
from tests.api.plane import CHAIN, Plane, build
from tests.waits import until

NEVER = 600.0


@contextmanager
def asked(plane: Plane, url: str) -> Iterator[Future[Any]]:
    """The answer to a request that waits by now."""
    execution_id = int(url.split("/")[3])
    with plane.client() as http, ThreadPoolExecutor(1) as pool:
        future = pool.submit(lambda: http.get(url).json())
        until(lambda: execution_id in plane.control.ends)
        yield future


@pytest.mark.parametrize("route", ["status", "cancellation-check"])
def test_an_end_that_this_process_writes_is_answered_at_once(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setattr(waiting, "FIRST_LOOK", NEVER)
    monkeypatch.setattr(waiting, "LONGEST_LOOK", NEVER)
    execution_id = plane.started()
    with asked(plane, f"/api/executions/{execution_id}/{route}?wait=30") as answer:
        plane.control.executions.cancel(execution_id)
        assert answer.result(timeout=20)["status"] == "CANCELLED"
    assert execution_id not in plane.control.ends


def test_an_end_that_another_process_writes_is_found_by_looking(plane: Plane) -> None:
    execution_id = plane.started()
    with asked(plane, f"/api/executions/{execution_id}/status?wait=30") as answer:
        with plane.ports.events.transaction([execution_id]) as tx:
            tx.append(execution_id, [Draft(ExecutionCancelled())])
        assert answer.result(timeout=20)["status"] == "CANCELLED"


def test_what_goes_on_is_answered_when_the_time_is_over(http: TestClient, plane: Plane) -> None:
    execution_id = plane.started()
    status = http.get(f"/api/executions/{execution_id}/status?wait=0.05").json()
    assert (status["status"], status["current_step"]) == ("RUNNING", "start")


def test_our_client_can_wait(client: Client, plane: Plane) -> None:
    execution_id = plane.started()
    plane.control.executions.cancel(execution_id)
    assert client.status(execution_id, wait=20)["status"] == "CANCELLED"


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
    ends, told = Ends(), threading.Event()
    with ends.watching(1, told.set):
        ends.appended([Entry(2, 1, ExecutionCompleted())])
        assert not told.is_set()
        ends.appended([Entry(1, 1, ExecutionCompleted())])
        assert told.is_set()
    told.clear()
    ends.appended([Entry(1, 1, ExecutionCompleted())])
    assert not told.is_set()
