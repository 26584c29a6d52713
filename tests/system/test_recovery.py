"""Killing any process in the middle of a wide loop loses nothing and counts nothing twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.system.plane import System
from tests.system.test_executions import CYCLE, WIDE


def in_the_middle(system: System, execution_id: str) -> None:
    """Wait until the loop is well under way."""

    def under_way() -> bool:
        ended = loop_step(system, execution_id)["ended"]
        assert ended < 900, "too late to be in the middle"
        return bool(ended >= 100)

    system.until(under_way, "the loop to be under way")


def loop_step(system: System, execution_id: str) -> dict[str, Any]:
    steps = system.client.status(execution_id)["steps"]
    (found,) = [step for step in steps if step["name"] == "fan"]
    return dict(found)


def all_events(system: System, execution_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while True:
        page = system.client.events(execution_id, page=len(events) // 500 + 1, page_size=500)
        events += page
        if len(page) < 500:
            return events


def assert_counted_once(system: System, execution_id: str) -> None:
    result = system.client.result(execution_id, "join")
    assert result == {"ordered": True, "sum": 499_500, "total": 1000, "success": 1000, "failed": 0}
    events = all_events(system, execution_id)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    ends = Counter(
        event["iteration"]
        for event in events
        if event["step"] == "fan" and event["type"] == "step.done"
    )
    assert ends == Counter(range(1000))


@pytest.mark.parametrize("module", ["worker", "orchestrator", "server", "scheduler"])
def test_killing_a_process_in_the_middle(system: System, module: str) -> None:
    execution_id = system.begin(WIDE)
    in_the_middle(system, execution_id)
    system.kill(module)
    system.start(module)
    assert system.wait(execution_id, seconds=100)["status"] == "COMPLETED"
    assert_counted_once(system, execution_id)


@pytest.mark.parametrize("server", ["nats", "postgres"])
def test_killing_a_server_in_the_middle(system: System, server: str) -> None:
    execution_id = system.begin(WIDE)
    in_the_middle(system, execution_id)
    system.stack.kill(server)
    system.stack.restart(server)
    assert system.wait(execution_id, seconds=100)["status"] == "COMPLETED"
    assert_counted_once(system, execution_id)


def test_a_worker_that_is_told_to_stop_charges_no_attempt(system: System) -> None:
    execution_id = system.begin(WIDE)
    in_the_middle(system, execution_id)
    assert system.terminate("worker") == 0
    system.start("worker")
    assert system.wait(execution_id, seconds=100)["status"] == "COMPLETED"
    assert_counted_once(system, execution_id)
    types = Counter(event["type"] for event in all_events(system, execution_id))
    assert types["attempt.expired"] == 0


def test_every_process_stops_when_told_to(system: System) -> None:
    assert system.run(CYCLE, {"turns": 3})["status"] == "COMPLETED"
    for module in ("scheduler", "orchestrator", "worker", "server"):
        assert system.terminate(module) == 0, module
        system.start(module)
    system.until_ready()
    assert system.run(CYCLE, {"turns": 3})["status"] == "COMPLETED"
