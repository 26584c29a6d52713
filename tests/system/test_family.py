"""Sub-playbooks through the servers: no slot held, nothing lost with a process, timers that fire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.system.plane import System

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {name}}}\n"
LEAF = (
    HEAD.format(name="leaf")
    + """
workload: {n: 0}
workflow:
- {step: start, tool: {kind: noop, result: {n: "{{ n }}"}}}
"""
)
MIDDLE = (
    HEAD.format(name="middle")
    + """
workload: {n: 0}
workflow:
- {step: start, tool: {kind: playbook, path: leaf, input: {n: "{{ n }}"}, wait: true}}
"""
)
PARENTS = (
    HEAD.format(name="parents")
    + """
workload: {parents: 150}
workflow:
- step: start
  loop: {in: "{{ parents }}", iterator: n, spec: {mode: parallel}}
  tool: {kind: playbook, path: middle, input: {n: "{{ n }}"}, wait: true}
  next: {arcs: [{step: sum, when: "{{ event.name == 'loop.done' }}"}]}
- step: sum
  tool:
    kind: python
    input: {all: "{{ start.results }}"}
    code: "result = {'ordered': [r['n'] for r in all] == list(range(len(all))), 'count': len(all)}"
"""
)
SLEEPS = (
    HEAD.format(name="sleeps")
    + "workflow: [{step: start, tool: {kind: python, code: 'import time; time.sleep(300)'}}]\n"
)


@pytest.fixture(scope="module")
def narrow(system: System) -> Iterator[System]:
    """The only worker has one thread."""
    for playbook in (LEAF, MIDDLE, SLEEPS):
        system.client.register(playbook)
    system.terminate("worker")
    system.start("worker", CALLBOARD_WORKER_THREADS="1")
    yield system
    system.terminate("worker")
    system.start("worker")


def test_parents_wait_for_their_children_with_one_worker_thread(narrow: System) -> None:
    """Each parent has a child that has a child itself: one slot held for ever would be too many."""
    status = narrow.run(PARENTS, seconds=100)
    assert status["status"] == "COMPLETED", status
    assert narrow.client.result(status["execution_id"]) == {"ordered": True, "count": 150}


def test_children_survive_the_orchestrator(narrow: System) -> None:
    execution_id = narrow.begin(PARENTS, {"parents": 40})
    narrow.until(lambda: ended_children(narrow, execution_id) >= 10, "ten children to end")
    narrow.kill("orchestrator")
    narrow.start("orchestrator")
    assert narrow.wait(execution_id)["status"] == "COMPLETED"
    assert narrow.client.result(execution_id) == {"ordered": True, "count": 40}


def ended_children(system: System, execution_id: str) -> int:
    status: dict[str, Any] = system.client.status(execution_id)
    return int(status["steps"][0]["ended"])


def test_a_step_stops_waiting_when_its_time_is_over(narrow: System) -> None:
    playbook = (
        HEAD.format(name="impatient")
        + "workflow: [{step: start, tool: {kind: playbook, path: sleeps, wait: true, timeout: 1}}]\n"
    )
    status = narrow.run(playbook)
    assert status["status"] == "COMPLETED"
    result = narrow.client.result(status["execution_id"])
    assert (result["status"], result["completed"]) == ("timeout", False)
    narrow.client.cancel(result["execution_id"])


def test_an_execution_out_of_time_fails_and_takes_its_children_along(narrow: System) -> None:
    playbook = (
        HEAD.format(name="late")
        + """
executor: {spec: {timeout: 1}}
workflow: [{step: start, tool: {kind: playbook, path: sleeps, wait: true}}]
"""
    )
    status = narrow.run(playbook)
    assert status["status"] == "FAILED"
    assert "executor.spec.timeout" in status["error"]
    narrow.until(lambda: not running(narrow), "the child to be cancelled")


def running(system: System) -> list[Any]:
    """Sleepers, which nothing else wakes."""
    rows = system.client.executions(status="RUNNING")
    return [row for row in rows if row["path"] == "sleeps"]
