"""Killing any process in the middle of a wide loop loses nothing and counts nothing twice."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.plane import System, readable_home
from tests.system.test_executions import CYCLE, WIDE


@pytest.fixture(scope="module")
def fragile() -> Iterator[System]:
    with (
        tempfile.TemporaryDirectory(prefix="cb-") as home,
        System(readable_home(Path(home))) as running,
    ):
        yield running


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
def test_killing_a_process_in_the_middle(fragile: System, module: str) -> None:
    execution_id = fragile.begin(WIDE)
    in_the_middle(fragile, execution_id)
    fragile.kill(module)
    fragile.start(module)
    assert fragile.wait(execution_id, seconds=100)["status"] == "COMPLETED"
    assert_counted_once(fragile, execution_id)


@pytest.mark.parametrize("server", ["nats", "postgres"])
def test_killing_a_server_in_the_middle(fragile: System, server: str) -> None:
    execution_id = fragile.begin(WIDE)
    in_the_middle(fragile, execution_id)
    fragile.stack.kill(server)
    fragile.stack.restart(server)
    assert fragile.wait(execution_id, seconds=100)["status"] == "COMPLETED"
    assert_counted_once(fragile, execution_id)


def test_a_worker_that_is_told_to_stop_charges_no_attempt(fragile: System) -> None:
    execution_id = fragile.begin(WIDE)
    in_the_middle(fragile, execution_id)
    assert fragile.terminate("worker") == 0
    fragile.start("worker")
    assert fragile.wait(execution_id, seconds=100)["status"] == "COMPLETED"
    assert_counted_once(fragile, execution_id)
    types = Counter(event["type"] for event in all_events(fragile, execution_id))
    assert types["attempt.expired"] == 0


def test_every_process_stops_when_told_to(fragile: System) -> None:
    assert fragile.run(CYCLE, {"turns": 3})["status"] == "COMPLETED"
    for module in ("scheduler", "orchestrator", "worker", "server"):
        assert fragile.terminate(module) == 0, module
        fragile.start(module)
    assert fragile.run(CYCLE, {"turns": 3})["status"] == "COMPLETED"
