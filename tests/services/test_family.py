"""Parents and children on one log: started together, told of each other's end, left to nobody."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.engine.events import ExecutionStarted, StepDone
from app.errors import UnavailableError
from app.services import family as family_module
from tests.services.conftest import Bench

CHILD = """
workload: {n: 1, extra: 2}
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: last}]}}
- {step: last, tool: {kind: noop}}
"""
PARENT = """
workflow:
- step: start
  tool: {kind: playbook, path: child, input: {n: 7}, return_step: start, timeout: 5m}
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop}}
"""
LOOSE = "workflow: [{step: start, tool: {kind: playbook, path: child}}]"


@pytest.fixture
def family(bench: Bench) -> Callable[[str], tuple[int, int]]:
    """Starts a parent; gives its id and that of its child."""

    def start(parent: str = PARENT) -> tuple[int, int]:
        bench.register(CHILD, "child")
        execution_id = bench.start(parent)
        bench.advance(execution_id)
        (child,) = bench.children(execution_id)
        return execution_id, child

    return start


def status_of(bench: Bench, execution_id: int) -> str:
    return bench.control.executions.get(execution_id).status


Family = Callable[..., tuple[int, int]]


def test_a_child_begins_with_what_it_was_given(bench: Bench, family: Family) -> None:
    parent, child = family()
    first = bench.log(child)[0].event
    assert isinstance(first, ExecutionStarted)
    assert first.workload == {"n": 7, "extra": 2}
    assert (first.parent_execution_id, first.depth) == (parent, 1)
    assert child in bench.dispatcher.wakes
    assert bench.dispatcher.later == [(parent, 300.0)]
    assert bench.control.executions.get(child).parent_execution_id == parent


def test_the_parents_log_does_not_repeat_what_the_child_was_given(
    bench: Bench, family: Family
) -> None:
    parent, _ = family()
    assert bench.types(parent) == ["execution.started", "child.started"]
    assert bench.log(parent)[1].event.payload is None  # type: ignore[union-attr]  # see above


def test_the_end_of_the_child_is_told_and_the_parent_goes_on(bench: Bench, family: Family) -> None:
    parent, child = family()
    bench.settle(child, {"score": 3})
    assert status_of(bench, child) == "COMPLETED"
    told = bench.log(parent)[-1].event
    assert isinstance(told, StepDone)
    assert told.result["score"] == 3
    assert bench.dispatcher.wakes[-1] == parent
    bench.settle(parent)
    assert status_of(bench, parent) == "COMPLETED"


def test_an_end_that_nobody_told_is_told_by_the_sweeper(
    bench: Bench, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, child = family()
    for pointer in bench.advance(child):
        bench.work(pointer)
    (last,) = bench.advance(child)
    bench.work(last)
    with monkeypatch.context() as crash:
        crash.setattr(bench.control.advance._family, "settle", lambda *_: None)
        bench.advance(child)  # the process dies right after its commit
    assert bench.types(parent)[-1] == "child.started"
    bench.control.sweeper.sweep()
    assert bench.types(parent)[-1] == "step.done"
    assert bench.control.sweeper.sweep().woken == 1
    assert bench.types(parent).count("step.done") == 1


def test_a_child_is_told_of_once(bench: Bench, family: Family) -> None:
    parent, child = family()
    bench.settle(child)
    events = bench.types(parent)
    bench.control.advance._family._tell(child, bench.control.executions.state(child))
    assert bench.types(parent) == events


def test_cancelling_the_parent_cancels_its_children(bench: Bench, family: Family) -> None:
    parent, child = family()
    assert bench.control.executions.cancel(parent) == [parent, child]
    assert status_of(bench, child) == "CANCELLED"


def test_a_cancelled_child_is_told_of(bench: Bench, family: Family) -> None:
    parent, child = family()
    bench.control.executions.cancel(child)
    told = bench.log(parent)[-1].event
    assert isinstance(told, StepDone)
    assert told.result["status"] == "cancelled"


def test_a_parent_out_of_time_cancels_the_child_that_it_waits_for(bench: Bench) -> None:
    bench.register(CHILD, "child")
    parent = bench.start("executor: {spec: {timeout: 60}}" + PARENT)
    bench.advance(parent)
    assert (parent, 60.0) in bench.dispatcher.later
    bench.now[0] += 60.0
    bench.advance(parent)
    assert status_of(bench, parent) == "FAILED"
    assert status_of(bench, bench.children(parent)[0]) == "CANCELLED"


@pytest.mark.parametrize("head", ["", "executor: {spec: {timeout: 60}}"])
def test_after_the_end_no_time_limit_is_waited_for(bench: Bench, family: Family, head: str) -> None:
    parent, child = family(head + PARENT)
    bench.settle(child)
    bench.settle(parent)
    assert status_of(bench, parent) == "COMPLETED"
    assert bench.dispatcher.calmed == [parent]


def test_a_cancelled_execution_waits_for_no_time_limit(bench: Bench) -> None:
    limited = bench.start("executor: {spec: {timeout: 60}}" + CHILD)
    plain = bench.start(CHILD)
    bench.control.executions.cancel(limited)
    bench.control.executions.cancel(plain)
    assert bench.dispatcher.calmed == [limited]


def test_every_sweep_has_the_broker_tidy_up(bench: Bench) -> None:
    bench.control.sweeper.sweep()
    assert bench.dispatcher.tidied == 1


def test_an_orphan_that_nobody_cancelled_is_cancelled_by_the_sweeper(
    bench: Bench, family: Family
) -> None:
    parent, child = family()
    # What a crash between the two cancellations leaves behind.
    bench.control.advance._family.cancel_one(parent, "a crash follows")
    assert status_of(bench, child) == "RUNNING"
    bench.control.sweeper.sweep()
    assert status_of(bench, child) == "CANCELLED"


def test_without_cascade_a_child_goes_on(bench: Bench, family: Family) -> None:
    parent, child = family()
    assert bench.control.executions.cancel(parent, cascade=False) == [parent]
    bench.control.sweeper.sweep()
    assert status_of(bench, child) == "RUNNING"
    bench.settle(child)
    assert status_of(bench, child) == "COMPLETED"


def test_a_child_nobody_waits_for_outlives_its_parent(bench: Bench, family: Family) -> None:
    parent, child = family(LOOSE)
    bench.settle(parent)
    assert status_of(bench, parent) == "COMPLETED"
    bench.control.sweeper.sweep()
    assert status_of(bench, child) == "RUNNING"
    events = bench.types(parent)
    bench.settle(child)
    assert bench.types(parent) == events


def test_a_step_that_stopped_waiting_leaves_the_child_alone(bench: Bench, family: Family) -> None:
    parent, child = family()
    bench.now[0] += 300.0
    bench.settle(parent)
    assert status_of(bench, parent) == "COMPLETED"
    bench.settle(child)
    assert status_of(bench, child) == "COMPLETED"


def test_nothing_is_begun_where_the_parents_events_cannot_be_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.register(CHILD, "child")
    parent = bench.start(PARENT)
    lighten = bench.control.advance._storage.lighten

    def fail(*_: object) -> None:
        raise UnavailableError("the disk is full")

    monkeypatch.setattr(type(bench.control.advance._storage), "lighten", fail)
    with pytest.raises(UnavailableError):
        bench.advance(parent)
    monkeypatch.setattr(type(bench.control.advance._storage), "lighten", lighten)
    assert len(bench.ports.events.open_executions()) == 1


def test_a_playbook_that_calls_itself_ends_at_the_limit(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(max_depth=3)
    text = (
        "workflow: [{step: start, tool: {kind: playbook, path: t, wait: true, on_failure: fail}}]"
    )
    ids = [bench.start(text)]
    while bench.children(ids[-1]) or not bench.advance(ids[-1]):
        below = bench.children(ids[-1])
        if not below:
            break
        ids.append(below[0])
    assert len(ids) == 4
    for execution_id in reversed(ids):
        bench.advance(execution_id)
    assert {status_of(bench, execution_id) for execution_id in ids} == {"FAILED"}
    assert "CALLBOARD_MAX_DEPTH" in (bench.control.executions.get(ids[0]).error or "")


def test_cancelling_reaches_children_behind_those_that_were_looked_at_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family_module, "BATCH", 2)  # 500 would take long here
    bench.register(CHILD, "child")
    parent = bench.start(
        "workflow: [{step: start, loop: {in: [1, 2, 3, 4, 5], spec: {mode: parallel}}, "
        "tool: {kind: playbook, path: child, return_result: true}}]"
    )
    bench.advance(parent)
    children = bench.children(parent)
    assert len(children) == 5
    assert {parent, *children} == set(bench.control.executions.cancel(parent))
