"""Starts that are repeated: under one ``Idempotency-Key`` they are one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.plane import CHAIN, Plane

BODY = {"path": "tests/chain", "payload": {"greeting": "hi"}}


def start(http: TestClient, key: str, body: Any = BODY) -> Any:
    return http.post("/api/execute", json=body, headers={"Idempotency-Key": key})


def test_a_second_start_under_one_key_gives_the_answer_of_the_first(http: TestClient) -> None:
    first, second = start(http, "order-17"), start(http, "order-17")
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    assert len(http.get("/api/executions").json()) == 1
    assert start(http, "order-18").json()["execution_id"] != first.json()["execution_id"]


def test_the_key_holds_for_both_forms_of_the_route(http: TestClient) -> None:
    first = start(http, "order-17").json()
    again = http.post("/api/execute/playbook/tests/chain", headers={"Idempotency-Key": "order-17"})
    assert again.json() == first


def test_starts_without_a_key_are_different_ones(http: TestClient) -> None:
    ids = {http.post("/api/execute", json=BODY).json()["execution_id"] for _ in range(2)}
    assert len(ids) == 2


def test_the_answer_stays_when_a_newer_version_is_registered(http: TestClient) -> None:
    first = start(http, "order-17").json()
    http.post("/api/catalog/register", json={"content": CHAIN + "# newer\n"})
    assert start(http, "order-17").json() == first


def test_a_key_of_another_playbook_is_refused(http: TestClient) -> None:
    started = start(http, "order-17").json()["execution_id"]
    http.post(
        "/api/catalog/register", json={"content": CHAIN.replace("tests/chain", "tests/other")}
    )
    refused = start(http, "order-17", {"path": "tests/other"})
    assert refused.status_code == 409
    assert started in refused.text


@pytest.mark.parametrize("key", ["", "x" * 256, "two words"])
def test_a_key_that_is_none_is_refused(http: TestClient, key: str) -> None:
    assert start(http, key).status_code == 422
    assert http.get("/api/executions").json() == []


def test_a_repeated_start_wakes_the_execution_again(plane: Plane, http: TestClient) -> None:
    started = int(start(http, "order-17").json()["execution_id"])
    start(http, "order-17")
    assert plane.dispatcher.woken == [started], "the first call may have died before"


def test_of_eight_starts_at_once_there_is_one_execution(plane: Plane) -> None:
    def begin(_: int) -> int:
        return plane.control.executions.start("tests/chain", key="order-17").execution_id

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(begin, range(8)))) == 1
