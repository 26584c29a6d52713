"""What people do about executions: pause and resume, try again, run again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.engine.events import ExecutionStarted, StepDone, StepScheduled
from app.engine.ports import Pointer
from app.errors import BadRequestError, ConflictError, NotFoundError
from app.services.audit import Audit
from tests.services.conftest import Bench

CHAIN = """
workload: {city: Oslo}
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: middle}]}}
- {step: middle, tool: {kind: noop, result: "{{ start.n }}"}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}
"""
LOOP = """
workflow:
- step: start
  loop: {in: [a, b, c], iterator: item, spec: {mode: parallel, max_in_flight: 3}}
  tool: {kind: noop}
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop}}
"""
LATER = """
workflow:
- step: start
  tool:
    kind: noop
    spec: {policy: {rules: [{when: "{{ output.error }}", then: {do: retry, delay: 3600}}]}}
"""
CHILD = "workflow: [{step: start, tool: {kind: noop}}]"
PARENT = """
workflow:
- step: start
  tool: {kind: playbook, path: child, return_step: start}
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop}}
"""


def status_of(bench: Bench, execution_id: int) -> str:
    return bench.control.executions.get(execution_id).status


def fail(bench: Bench, pointer: Pointer, **extra: Any) -> None:
    error = {"kind": "test", "message": "broken", "retryable": False}
    assert bench.claim(pointer).granted
    assert bench.report(pointer, outcome="failed", error=error, **extra).accepted


def failed_in_the_middle(bench: Bench, workflow: str = CHAIN) -> int:
    """An execution whose first step was done and whose second failed."""
    execution_id = bench.start(workflow, {"city": "Rome"})
    (first,) = bench.advance(execution_id)
    bench.work(first, {"n": 5})
    (second,) = bench.advance(execution_id)
    fail(bench, second)
    bench.advance(execution_id)
    assert status_of(bench, execution_id) == "FAILED"
    return execution_id


def faultless(bench: Bench, execution_id: int) -> bool:
    """Its log passes the audit."""
    audit = Audit()
    for entry in bench.log(execution_id):
        audit.see(entry)
    return audit.found == []


# ---------------------------------------------------------------------- pause
def test_a_paused_execution_starts_nothing_new(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    (first,) = bench.advance(execution_id)
    assert bench.claim(first).granted
    assert bench.control.intervention.pause(execution_id, reason="look") == [execution_id]
    assert bench.report(first, {"n": 1}).accepted  # what runs may end
    assert bench.advance(execution_id) == []
    assert bench.types(execution_id)[-2:] == ["execution.paused", "step.done"]
    assert status_of(bench, execution_id) == "RUNNING"
    assert bench.control.executions.get(execution_id).paused_at is not None


def test_what_was_sent_before_the_pause_is_not_claimed_and_is_sent_again_at_its_end(
    bench: Bench,
) -> None:
    execution_id = bench.start(CHAIN)
    (first,) = bench.advance(execution_id)
    bench.control.intervention.pause(execution_id)
    answer = bench.claim(first)
    assert (answer.granted, answer.reason) == (False, "the execution is paused")
    bench.dispatcher.sent.clear()
    assert bench.control.intervention.resume(execution_id) == [execution_id]
    assert [dispatch.pointer for dispatch in bench.dispatcher.sent] == [first]
    assert bench.dispatcher.wakes[-1] == execution_id
    bench.work(first, {"n": 1})
    bench.settle(execution_id)
    assert status_of(bench, execution_id) == "COMPLETED"
    assert faultless(bench, execution_id)


def test_a_claim_whose_answer_was_lost_is_answered_again_in_a_pause(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    (first,) = bench.advance(execution_id)
    assert bench.claim(first).granted
    bench.control.intervention.pause(execution_id)
    assert bench.claim(first).granted


def test_pausing_and_resuming_twice_is_doing_it_once(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    intervention = bench.control.intervention
    assert intervention.resume(execution_id) == []
    assert intervention.pause(execution_id) == [execution_id]
    assert intervention.pause(execution_id) == []
    assert intervention.resume(execution_id) == [execution_id]
    assert intervention.resume(execution_id) == []
    assert bench.types(execution_id).count("execution.paused") == 1


def test_an_execution_that_has_ended_is_neither_paused_nor_resumed(bench: Bench) -> None:
    execution_id = failed_in_the_middle(bench)
    for change in (bench.control.intervention.pause, bench.control.intervention.resume):
        with pytest.raises(ConflictError, match="has ended already"):
            change(execution_id)
        with pytest.raises(NotFoundError):
            change(7)


def test_a_paused_execution_can_be_cancelled(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    bench.advance(execution_id)
    bench.control.intervention.pause(execution_id)
    bench.control.executions.cancel(execution_id)
    assert status_of(bench, execution_id) == "CANCELLED"


def test_time_limits_go_on_in_a_pause(bench: Bench) -> None:
    execution_id = bench.start("executor: {spec: {timeout: 60s}}" + CHAIN)
    bench.advance(execution_id)
    bench.control.intervention.pause(execution_id)
    bench.now[0] += 61
    bench.advance(execution_id)
    assert status_of(bench, execution_id) == "FAILED"


def test_an_attempt_lost_in_a_pause_is_scheduled_again_at_its_end(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    (first,) = bench.advance(execution_id)
    assert bench.claim(first).granted
    bench.control.intervention.pause(execution_id)
    bench.now[0] += 3600
    assert bench.control.sweeper.sweep().expired == 1
    assert bench.advance(execution_id) == []
    bench.control.intervention.resume(execution_id)
    (again,) = bench.advance(execution_id)
    assert again == first._replace(attempt=2)
    assert faultless(bench, execution_id)


def test_the_sweeper_sends_nothing_of_a_paused_execution(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    bench.advance(execution_id)
    bench.control.intervention.pause(execution_id)
    bench.now[0] += 3600
    bench.dispatcher.sent.clear()
    bench.control.sweeper.sweep()
    assert bench.dispatcher.sent == []


@pytest.mark.parametrize("cascade", [True, False])
def test_a_pause_reaches_the_executions_below_where_asked_to(bench: Bench, cascade: bool) -> None:
    bench.register(CHILD, "child")
    parent = bench.start(PARENT)
    bench.advance(parent)
    (child,) = bench.children(parent)
    changed = bench.control.intervention.pause(parent, cascade=cascade)
    assert changed == ([parent, child] if cascade else [parent])
    bench.settle(child)
    assert status_of(bench, child) == ("RUNNING" if cascade else "COMPLETED")
    bench.settle(parent)
    assert status_of(bench, parent) == "RUNNING"
    bench.control.intervention.resume(parent)
    bench.settle(child)
    bench.settle(parent)
    assert status_of(bench, parent) == "COMPLETED"


def test_resuming_while_the_broker_is_away_leaves_the_rest_to_the_sweeper(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    (first,) = bench.advance(execution_id)
    bench.control.intervention.pause(execution_id)
    bench.dispatcher.down = True
    assert bench.control.intervention.resume(execution_id) == [execution_id]
    bench.dispatcher.down = False
    bench.now[0] += 3600
    bench.dispatcher.sent.clear()
    bench.control.sweeper.sweep()
    assert [dispatch.pointer for dispatch in bench.dispatcher.sent] == [first]


# ---------------------------------------------------------------------- retry
def test_a_retry_does_what_was_not_done_and_takes_over_the_rest(bench: Bench) -> None:
    before = failed_in_the_middle(bench)
    retried = bench.control.intervention.retry(before)
    assert retried.started is not None
    after = retried.started.execution_id
    first = bench.log(after)[0].event
    assert isinstance(first, ExecutionStarted)
    assert (first.retry_of, first.workload) == (before, {"city": "Rome"})
    (pointer,) = bench.advance(after)
    assert pointer.step == "middle"
    answer = bench.claim(pointer)
    assert answer.variables is not None
    assert answer.variables.results["start"] == {"n": 5}
    assert bench.report(pointer, {}).accepted
    bench.settle(after)
    assert (status_of(bench, before), status_of(bench, after)) == ("FAILED", "COMPLETED")
    taken = next(e.event for e in bench.log(after) if isinstance(e.event, StepDone))
    assert (taken.step, taken.taken_from, taken.worker) == ("start", before, None)
    assert faultless(bench, after)
    assert bench.control.inspection.verify(after).findings == []


def test_a_retry_from_a_step_does_that_and_what_follows_again(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    bench.settle(execution_id, {"n": 1})
    retried = bench.control.intervention.retry(execution_id, step="middle")
    assert retried.started is not None
    after = retried.started.execution_id
    (pointer,) = bench.advance(after)
    assert pointer.step == "middle"
    bench.work(pointer, {"n": 2})
    (last,) = bench.advance(after)
    assert last.step == "end"


def test_a_retry_can_be_retried(bench: Bench) -> None:
    before = failed_in_the_middle(bench)
    second = bench.control.intervention.retry(before).started
    assert second is not None
    (pointer,) = bench.advance(second.execution_id)
    fail(bench, pointer)
    bench.advance(second.execution_id)
    third = bench.control.intervention.retry(second.execution_id).started
    assert third is not None
    (pointer,) = bench.advance(third.execution_id)
    assert pointer.step == "middle"
    assert bench.control.results.text(third.execution_id, "start") == b'{"n":5}'


def test_of_a_loop_only_the_iterations_that_failed_are_done_again(bench: Bench) -> None:
    before = bench.start(LOOP)
    one, two, three = bench.advance(before)
    bench.work(one, "A")
    fail(bench, two)
    bench.work(three, "C")
    bench.settle(before)
    assert status_of(bench, before) == "FAILED"
    retried = bench.control.intervention.retry(before)
    assert retried.started is not None
    after = retried.started.execution_id
    pointers = bench.advance(after)
    assert [pointer.iteration for pointer in pointers] == [1]
    bench.work(pointers[0], "B")
    bench.settle(after, "end")
    assert bench.control.executions.result(after, "start")["results"] == ["A", "B", "C"]
    assert status_of(bench, after) == "COMPLETED"
    assert faultless(bench, after)


def test_a_large_result_is_taken_over_whole(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(inline_bytes=100)
    before = bench.start(CHAIN)
    (first,) = bench.advance(before)
    large = {"n": 5, "text": "x" * 1000}
    bench.work(first, large)
    (second,) = bench.advance(before)
    fail(bench, second)
    bench.advance(before)
    started = bench.control.intervention.retry(before).started
    assert started is not None
    bench.advance(started.execution_id)
    assert bench.control.executions.result(started.execution_id, "start") == large


def test_a_sub_playbook_that_completed_is_not_started_again(bench: Bench) -> None:
    bench.register(CHILD, "child")
    before = bench.start(PARENT)
    bench.advance(before)
    bench.settle(bench.children(before)[0], {"x": 1})
    (pointer,) = bench.advance(before)
    fail(bench, pointer)
    bench.advance(before)
    started = bench.control.intervention.retry(before).started
    assert started is not None
    (pointer,) = bench.advance(started.execution_id)
    assert pointer.step == "end"
    assert bench.children(started.execution_id) == []
    assert bench.control.executions.result(started.execution_id, "start")["x"] == 1


def test_a_retry_runs_the_version_that_is_asked_for(bench: Bench) -> None:
    before = failed_in_the_middle(bench)
    mended = bench.register(CHAIN.replace("start.n", "start.m"))
    intervention = bench.control.intervention
    same, newest = intervention.retry(before), intervention.retry(before, version="latest")
    assert same.started is not None
    assert newest.started is not None
    assert (same.started.entry.version, newest.started.entry.version) == (1, mended.version)
    with pytest.raises(NotFoundError):
        intervention.retry(before, version=9)
    with pytest.raises(BadRequestError, match="latest"):
        intervention.retry(before, version="newest")


def test_nothing_is_retried_that_did_not_fail(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    bench.settle(execution_id, {"n": 1})
    with pytest.raises(ConflictError, match="nothing failed"):
        bench.control.intervention.retry(execution_id)


def test_a_step_that_is_not_there_is_named_with_its_like(bench: Bench) -> None:
    with pytest.raises(NotFoundError) as caught:
        bench.control.intervention.retry(failed_in_the_middle(bench), step="midle")
    assert caught.value.remedy == "did you mean 'middle'?"


def test_in_a_running_execution_the_attempt_that_waits_for_later_is_made_now(bench: Bench) -> None:
    execution_id = bench.start(LATER)
    (pointer,) = bench.advance(execution_id)
    fail(bench, pointer, retry_in=3600.0)
    bench.advance(execution_id)
    scheduled = bench.log(execution_id)[-1].event
    assert isinstance(scheduled, StepScheduled)
    bench.dispatcher.sent.clear()
    assert bench.control.intervention.retry(execution_id, step="start").resent == 1
    (sent,) = bench.dispatcher.sent
    assert (sent.pointer.attempt, sent.delay) == (2, 0.0)
    bench.work(sent.pointer, 1)
    bench.settle(execution_id)
    assert status_of(bench, execution_id) == "COMPLETED"


def test_in_a_running_execution_with_nothing_to_hurry_that_is_said(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    (first,) = bench.advance(execution_id)
    assert bench.claim(first).granted
    with pytest.raises(ConflictError, match="nothing of it waits"):
        bench.control.intervention.retry(execution_id)


# ---------------------------------------------------------------------- rerun
def test_a_rerun_begins_again_with_the_same_workload(bench: Bench) -> None:
    before = failed_in_the_middle(bench)
    started = bench.control.intervention.rerun(before)
    first = bench.log(started.execution_id)[0].event
    assert isinstance(first, ExecutionStarted)
    assert (first.workload, first.retry_of) == ({"city": "Rome"}, None)
    (pointer,) = bench.advance(started.execution_id)
    assert pointer.step == "start"


# ---------------------------------------------------------------------- found by the simulation
def test_a_loop_that_begins_beside_what_is_taken_over_finds_its_items(bench: Bench) -> None:
    """Seed 28365: events of a decision name each other by their numbers."""
    workflow = """
workflow:
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: l}]}
- {step: a, tool: {kind: noop}}
- {step: l, loop: {in: [1, 2], iterator: i, spec: {mode: parallel}}, tool: {kind: noop}}
"""
    before = bench.start(workflow)
    (first,) = bench.advance(before)
    bench.work(first, {})
    for pointer in bench.advance(before):
        if pointer.step == "a":
            bench.work(pointer, {})
        else:
            fail(bench, pointer)
    bench.settle(before)
    started = bench.control.intervention.retry(before).started
    assert started is not None
    bench.settle(started.execution_id, {"n": 1})
    assert status_of(bench, started.execution_id) == "COMPLETED"
    assert faultless(bench, started.execution_id)


def test_a_sub_playbook_that_nobody_waited_for_is_not_started_again(bench: Bench) -> None:
    """Seed 9084: the decision itself ends such a step."""
    bench.register(CHILD, "child")
    before = bench.start(PARENT.replace(", return_step: start", ""))
    (pointer,) = bench.advance(before)
    fail(bench, pointer)
    bench.advance(before)
    started = bench.control.intervention.retry(before).started
    assert started is not None
    (again,) = bench.advance(started.execution_id)
    assert again.step == "end"
    assert bench.children(started.execution_id) == []
    bench.work(again, {})
    bench.settle(started.execution_id)
    assert status_of(bench, started.execution_id) == "COMPLETED"
    assert faultless(bench, started.execution_id)


def test_resuming_one_that_has_ended_resumes_what_it_left_paused(bench: Bench) -> None:
    """Seed 45302: cancelled alone, it left a paused sub-playbook behind."""
    bench.register(CHILD, "child")
    parent = bench.start(PARENT)
    bench.advance(parent)
    (child,) = bench.children(parent)
    bench.control.intervention.pause(parent)
    bench.control.executions.cancel(parent, cascade=False)
    assert bench.control.intervention.resume(parent) == [child]
    with pytest.raises(ConflictError):
        bench.control.intervention.resume(parent)
