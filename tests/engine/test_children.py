"""Sub-playbooks: who starts them, what their end gives, and when a step stops waiting."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.children import Caller, Outcome, Target, call_of, ending
from app.engine.decide import Limits
from app.engine.events import (
    ChildEnded,
    ChildStarted,
    ExecutionCompleted,
    ExecutionFailed,
    LoopDone,
    StepDone,
    StepFailed,
    StepParked,
    StepScheduled,
)
from tests.engine.driver import Lost, Run, playbook_of

CHILD = {"sub/child": Target(7, "sub/child", 3)}


def begun(tool: str, *, more: str = "", **kwargs: Any) -> Run:
    text = f"""
workload: {{n: 5}}
workflow:
- {{step: start, {more} tool: {tool}, next: {{arcs: [{{step: end}}]}}}}
- {{step: end}}
"""
    return Run(playbook_of(text), targets=CHILD, **kwargs).begin()


def tell(run: Run, status: str, value: Any = None, error: str | None = None) -> None:
    """What the end of the only child appends, and what follows."""
    ((_, child),) = run.state.children.items()
    run.append(ending(child.caller, Outcome(child.execution_id, child.path, status, value, error)))
    run.decide()


WAITING = "{kind: playbook, path: sub/child, return_step: last, input: {n: '{{ n + 1 }}'}}"


def test_a_call_starts_the_child_without_a_worker() -> None:
    run = begun(WAITING)
    (started,) = run.of(ChildStarted)
    assert run.of(StepScheduled) == []
    assert (started.catalog_id, started.version, started.child_execution_id) == (7, 3, 101)
    assert (started.payload, started.returns, started.waits) == ({"n": 6}, "last", True)
    assert run.state.is_running
    assert run.decide() == []


def test_the_end_of_the_child_is_the_end_of_the_step() -> None:
    run = begun(WAITING)
    tell(run, "completed", {"score": 1})
    (done,) = run.of(StepDone)
    assert done.result == {
        "status": "completed",
        "execution_id": "101",
        "path": "sub/child",
        "completed": True,
        "failed": False,
        "score": 1,
    }
    assert run.finish().state.status == "completed"


def test_without_waiting_the_result_is_there_at_once() -> None:
    run = begun("{kind: playbook, path: sub/child}").finish()
    done = run.of(StepDone)[0]
    assert done.result == {
        "status": "started",
        "execution_id": "101",
        "path": "sub/child",
        "async": True,
    }
    assert run.state.status == "completed"


@pytest.mark.parametrize(
    ("status", "failed"), [("failed", True), ("cancelled", True), ("completed", False)]
)
def test_a_failed_child_is_data_unless_it_is_asked_to_fail(status: str, failed: bool) -> None:
    run = begun(WAITING)
    tell(run, status, None, "broken")
    assert run.of(StepDone)[0].result["failed"] is failed
    assert run.finish().state.status == "completed"

    strict = begun("{kind: playbook, path: sub/child, wait: true, on_failure: fail}")
    tell(strict, status, None, "broken")
    assert strict.finish().state.status == ("failed" if failed else "completed")


def test_a_step_waits_as_long_as_its_timeout_says() -> None:
    run = begun("{kind: playbook, path: sub/child, wait: true, timeout: 2m}")
    assert run.of(ChildStarted)[0].deadline == 120.0
    run.values.now = 119.0
    assert run.decide() == []
    run.values.now = 120.0
    run.decide()
    done = run.of(StepDone)[0]
    assert (done.result["status"], done.result["completed"]) == ("timeout", False)
    assert run.finish().state.status == "completed"


def test_the_childs_own_keys_win_and_values_that_are_no_mapping_are_data() -> None:
    own = Outcome(1, "p", "completed", {"status": "mine"}).result()
    assert own["status"] == "mine"
    assert Outcome(1, "p", "completed", [1]).result()["data"] == [1]


@pytest.mark.parametrize(
    ("tool", "limits", "said"),
    [
        ("{kind: playbook, path: sub/none}", Limits(), "no playbook is registered under path"),
        ("{kind: playbook, path: '{{ nothing }}'}", Limits(), "'path' must name"),
        ("{kind: playbook, path: sub/child, input: '{{ n }}'}", Limits(), "'input' must be"),
        ("{kind: playbook, path: '{{ 1 / 0 }}'}", Limits(), "ZeroDivisionError"),
        ("{kind: playbook, path: sub/child}", Limits(max_depth=0), "CALLBOARD_MAX_DEPTH"),
    ],
)
def test_a_call_that_cannot_be_made_fails_its_step(tool: str, limits: Limits, said: str) -> None:
    run = begun(tool, limits=limits)
    assert said in run.of(StepFailed)[0].error["message"]
    assert isinstance(run.log[-1], ExecutionFailed)


def test_a_failed_call_in_a_loop_is_a_failed_iteration() -> None:
    run = begun(
        "{kind: playbook, path: 'sub/{{ x }}'}", more="loop: {in: [child, none], iterator: x},"
    )
    run.finish()
    done = run.of(LoopDone)[0]
    assert (done.total, done.success, done.failed) == (2, 1, 1)


def test_a_loop_of_children_keeps_its_window() -> None:
    loop = "loop: {in: '{{ range(5) | list }}', iterator: i, spec: {mode: parallel, max_in_flight: 2}},"
    run = begun(WAITING.replace("n + 1", "i"), more=loop)
    assert len(run.of(ChildStarted)) == 2
    for told in range(5):
        key, child = next(iter(run.state.children.items()))
        outcome = Outcome(child.execution_id, child.path, "completed", {"i": key.iteration})
        run.append(ending(child.caller, outcome))
        run.decide()
        assert len(run.state.children) == min(2, 4 - told)
    assert [event.payload for event in run.of(ChildStarted)] == [{"n": i} for i in range(5)]
    assert run.of(LoopDone)[0].success == 5


def parked(run: Run, scheduled: StepScheduled, **call: Any) -> None:
    run.out.remove(scheduled)
    asked = call_of({"path": "sub/child", **call}).to_dict() if call else None
    at = None if call else 60.0
    run.append(StepParked(*scheduled.key, scheduled.attempt, {"index": 1}, asked, at))
    run.decide()


IN_A_SEQUENCE = f"[{{kind: noop}}, {WAITING}]"


def test_a_parked_step_goes_on_with_what_its_child_gave() -> None:
    run = begun(IN_A_SEQUENCE)
    parked(run, run.out[0], return_step="last")
    (started,) = run.of(ChildStarted)
    assert started.resumes
    assert run.out == []
    tell(run, "completed", {"score": 1})
    (ended,) = run.of(ChildEnded)
    assert ended.result["score"] == 1
    again = run.out[0]
    assert again.attempt == 2
    assert again.parked_seq is not None
    assert again.child_seq is not None
    assert isinstance(run.log[again.parked_seq - 1], StepParked)
    assert run.log[again.child_seq - 1] == ended
    run.finish()
    assert isinstance(run.log[-1], ExecutionCompleted)


def test_an_attempt_lost_after_its_child_ended_goes_on_there_again() -> None:
    run = begun(IN_A_SEQUENCE)
    parked(run, run.out[0], wait=True)
    tell(run, "completed")
    places = []

    def outcomes(scheduled: StepScheduled) -> Any:
        places.append((scheduled.parked_seq, scheduled.child_seq))
        return Lost() if len(places) == 1 else {}

    run.outcomes = outcomes
    run.finish()
    assert places[0] == places[1]
    assert run.state.status == "completed"


def test_a_parked_call_to_nowhere_tells_the_attempt() -> None:
    run = begun(IN_A_SEQUENCE)
    run.targets = {}
    parked(run, run.out[0], wait=True)
    (ended,) = run.of(ChildEnded)
    assert ended.error["kind"] == "not_found"
    assert run.out[0].child_seq is not None


def test_a_step_may_be_parked_for_a_time_only() -> None:
    run = begun(IN_A_SEQUENCE)
    parked(run, run.out[0])
    assert (run.out[0].attempt, run.out[0].not_before) == (2, 60.0)
    assert run.finish().state.status == "completed"


def test_a_caller_that_resumes_is_told_and_not_ended() -> None:
    caller = Caller("s", 1, -1, 1, resumes=True, fails=True)
    event = ending(caller, Outcome(9, "p", "failed", None, "broken"))
    assert isinstance(event, ChildEnded)
    assert event.error is not None
    assert "broken" in event.error["message"]
