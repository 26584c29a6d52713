"""Why a step stands where it stands, with the real services on the memory twins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.engine.ports import Pointer
from app.errors import NotFoundError
from app.services.why import StepWhy, Why
from app.wire import Beat
from tests.services.conftest import Bench, bench, make_bench  # noqa: F401 (fixtures)

ONE = "workflow: [{step: start, tool: {kind: noop}}]"
GPU = "workflow: [{step: start, pool: gpu, tool: {kind: noop}}]"
JOIN = """
workflow:
- {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}}
- {step: a, tool: {kind: noop}, next: {arcs: [{step: both}]}}
- {step: b, tool: {kind: noop}, next: {arcs: [{step: both}]}}
- {step: both, tool: {kind: noop}, next: {arcs: [{step: last}]}}
- {step: last, tool: {kind: noop}}
"""
CHOICE = """
workflow:
- step: start
  tool: {kind: noop}
  next: {arcs: [{step: hot, when: "{{ start.n > 30 }}"}, {step: cold}]}
- {step: hot, tool: {kind: noop}}
- {step: cold, tool: {kind: noop}}
"""
LOOP = """
workflow:
- step: start
  loop: {in: [1, 2, 3, 4], iterator: i, spec: {mode: parallel, max_in_flight: 2}}
  tool: {kind: noop}
"""
CALLS = """
workflow:
- {step: start, tool: {kind: playbook, path: child, return_step: start}}
"""


class Desk:
    """A bench, and the heartbeats that its processes give."""

    def __init__(self, bench: Bench) -> None:  # noqa: F811 (the fixture's value)
        self.bench = bench
        self.alive()

    def alive(self, *, workers: bool = True, queue: str = "default.io", **told: Any) -> None:
        """Everybody beats now."""
        beats = [Beat(name="o1", kind="orchestrator"), Beat(name="s1", kind="scheduler")]
        if workers:
            labels = {"pool": queue.partition(".")[0], "queues": [queue]}
            beats.append(Beat(name="w1", capacity=2, labels=labels, runtime=told))
        for beat in beats:
            self.bench.control.presence.beat(beat)

    def later(self, seconds: float) -> None:
        self.bench.now[0] += seconds

    def why(self, execution_id: int, step: str | None = None) -> Why:
        return self.bench.control.whys.why(execution_id, step)

    def step(self, execution_id: int, step: str = "start") -> StepWhy:
        (found,) = self.why(execution_id, step).steps
        return found


@pytest.fixture
def desk(bench: Bench) -> Desk:  # noqa: F811 (the fixture's value)
    return Desk(bench)


def begun(desk: Desk, workflow: str) -> tuple[int, list[Pointer]]:
    execution_id = desk.bench.start(workflow)
    return execution_id, desk.bench.advance(execution_id)


# ---------------------------------------------------------------------- waits for a worker
def test_a_pool_without_a_worker(desk: Desk) -> None:
    execution_id, _ = begun(desk, GPU)
    desk.bench.dispatcher.oldest = 1.0
    desk.later(12)
    desk.alive()
    why = desk.why(execution_id)
    assert why.reason.because == (
        "Nothing is lost: step start waits since 12 s for a worker of pool 'gpu' (queue 'io'), "
        "which has none; the oldest message there waits since 1 s"
    )
    assert why.reason.remedy == "start one with CALLBOARD_POOL=gpu and CALLBOARD_QUEUES=io"
    assert (why.reason.code, why.reason.needs_help) == ("no_worker", True)


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        pytest.param({"in_progress": 2, "idle": 60}, "busy", "whose 2 slots are busy", id="busy"),
        pytest.param(
            {"in_progress": 0, "idle": 60}, "wedged", "w1, alive and with free slots", id="wedged"
        ),
        pytest.param(
            {"in_progress": 0, "idle": 1}, "unclaimed", "workers take them", id="its turn comes"
        ),
    ],
)
def test_workers_that_do_not_take_it(
    desk: Desk, told: Mapping[str, Any], code: str, words: str
) -> None:
    execution_id, _ = begun(desk, ONE)
    desk.later(30)
    desk.alive(**told)
    reason = desk.step(execution_id).reason
    assert reason.code == code
    assert words in reason.because
    assert "since 30 s" in reason.because


def test_a_broker_that_is_away_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.errors import UnavailableError

    def away(_queue: str) -> float:
        raise UnavailableError("no NATS")

    execution_id, _ = begun(desk, ONE)
    monkeypatch.setattr(desk.bench.dispatcher, "waited", away)
    reason = desk.step(execution_id).reason
    assert (reason.code, reason.needs_help) == ("nats", True)
    assert "NATS does not answer" in reason.because


# ---------------------------------------------------------------------- claimed
def test_a_running_attempt_has_a_worker_a_heartbeat_and_a_lease(desk: Desk) -> None:
    execution_id, (pointer,) = begun(desk, ONE)
    assert desk.bench.claim(pointer).granted
    desk.later(40)
    desk.alive()
    desk.later(4)
    why = desk.why(execution_id)
    assert why.reason.because == (
        "It goes on: step start runs on w1 since 44 s; its last heartbeat was 4 s ago, its lease "
        "ends in 11 s"
    )
    assert (why.reason.code, why.reason.needs_help) == ("running", False)


@pytest.mark.parametrize("scheduler", [True, False])
def test_a_lease_that_ran_out_needs_help_where_no_scheduler_is(desk: Desk, scheduler: bool) -> None:
    execution_id, (pointer,) = begun(desk, ONE)
    assert desk.bench.claim(pointer).granted
    desk.later(40)
    if scheduler:
        desk.alive(workers=False)
    reason = desk.step(execution_id).reason
    assert reason.code == "expired"
    assert "gives no sign of life for 40 s: its lease has run out" in reason.because
    assert reason.needs_help is not scheduler


# ---------------------------------------------------------------------- between attempts
def test_a_retry_says_when_and_why(desk: Desk) -> None:
    execution_id, (pointer,) = begun(desk, ONE)
    assert desk.bench.claim(pointer).granted
    error = {"kind": "timeout", "message": "no answer", "retryable": True}
    desk.bench.report(pointer, outcome="failed", error=error, retry_in=90.0)
    for _ in range(2):  # before and after the next attempt is scheduled
        reason = desk.step(execution_id).reason
        assert reason.code == "retry"
        assert "waits until 08:01:30 UTC, in 90 s" in reason.because
        desk.bench.advance(execution_id)
    first, second = desk.step(execution_id).histories[0].attempts
    assert (first.outcome, first.worker, first.error) == ("retry", "w1", error)
    assert (second.number, second.outcome) == (2, "scheduled")


def test_all_attempts_are_told(desk: Desk) -> None:
    execution_id, (pointer,) = begun(desk, ONE)
    assert desk.bench.claim(pointer, worker="dead").granted
    desk.later(60)
    desk.bench.control.sweeper.sweep()
    (again,) = desk.bench.advance(execution_id)
    desk.bench.report(pointer, worker="dead")
    assert desk.bench.claim(again).granted
    desk.bench.report(again, outcome="interrupted")
    (third,) = desk.bench.advance(execution_id)
    assert desk.bench.claim(third).granted
    desk.bench.report(
        third,
        outcome="failed",
        error={"kind": "exit", "message": "exit code 3", "retryable": False, "task": "start"},
        tail="the last words\n",
        duration_ms=12.0,
    )
    desk.bench.advance(execution_id)
    found = desk.step(execution_id)
    told = [(one.outcome, one.worker, one.late) for one in found.histories[0].attempts]
    assert told == [
        ("expired", "dead", True),
        ("interrupted", "w1", False),
        ("failed", "w1", False),
    ]
    assert found.reason.because == "failed: exit code 3"
    assert (found.status, found.tail) == ("failed", "the last words\n")
    assert found.error is not None
    assert found.error["kind"] == "exit"
    why = desk.why(execution_id)
    assert why.reason.code == "failed"
    assert "exit code 3" in why.reason.because
    assert [step.name for step in why.steps] == ["start"]


# ---------------------------------------------------------------------- other steps
def test_a_join_says_what_came_and_what_may_still(desk: Desk) -> None:
    execution_id, (start,) = begun(desk, JOIN)
    desk.bench.work(start)
    a, b = desk.bench.advance(execution_id)
    desk.bench.work(a)
    desk.bench.advance(execution_id)
    reason = desk.step(execution_id, "both").reason
    assert reason.code == "join"
    assert reason.because == "waits at its join: a came, and these may still: b (running)"
    last = desk.step(execution_id, "last")
    assert (last.status, last.reason.code) == ("pending", "not_reached")
    assert "b (running), both (waiting)" in last.reason.because
    desk.bench.work(b)
    desk.bench.settle(execution_id)
    assert desk.why(execution_id).reason.because == "It completed; nothing of it waits"
    assert desk.step(execution_id, "last").reason.because == "is done"


def test_a_step_that_was_passed_over_names_the_condition(desk: Desk) -> None:
    execution_id, (start,) = begun(desk, CHOICE)
    desk.bench.work(start, {"n": 3})
    desk.bench.settle(execution_id)
    reason = desk.step(execution_id, "hot").reason
    assert reason.code == "skipped"
    assert "after step 'start' '{{ start.n > 30 }}' did not hold" in reason.because


def test_a_loop_says_how_far_it_is_and_what_is_out(desk: Desk) -> None:
    execution_id, (first, second) = begun(desk, LOOP)
    desk.bench.work(first)
    desk.bench.advance(execution_id)
    assert desk.bench.claim(second).granted
    desk.later(20)
    desk.alive(workers=False)
    desk.bench.control.presence.leave("worker_pool", "w1")
    found = desk.step(execution_id)
    assert "1 of 4 iterations ended, 2 are out (window 2)" in found.reason.because
    assert "1 no_worker" in found.reason.because
    assert found.reason.needs_help
    assert [history.key.iteration for history in found.histories] == [1, 2]


def test_a_late_report_of_an_iteration_that_ended_well_is_no_unit_of_its_own(desk: Desk) -> None:
    execution_id, (first, _) = begun(desk, LOOP)
    assert desk.bench.claim(first, worker="dead").granted
    desk.later(60)
    desk.alive()
    desk.bench.control.sweeper.sweep()
    again = next(p for p in desk.bench.advance(execution_id) if p.iteration == 0)
    desk.bench.work(again)
    desk.bench.report(first, worker="dead")
    desk.bench.advance(execution_id)
    assert 0 not in [history.key.iteration for history in desk.step(execution_id).histories]


def test_a_parent_names_its_child(desk: Desk) -> None:
    desk.bench.register(ONE, name="child")
    execution_id, _ = begun(desk, CALLS)
    (child,) = desk.bench.children(execution_id)
    reason = desk.step(execution_id).reason
    assert reason.because == f"waits for execution {child} of child, which is RUNNING"
    assert reason.remedy == f"callboard why {child}"


# ---------------------------------------------------------------------- the orchestrator
@pytest.mark.parametrize("alive", [True, False])
def test_a_decision_that_is_due_and_not_taken(desk: Desk, alive: bool) -> None:
    execution_id, (start,) = begun(desk, JOIN)
    desk.bench.work(start)
    assert desk.why(execution_id).reason.code == "deciding", "a wake takes a moment"
    desk.later(30)
    if alive:
        desk.alive()
    reason = desk.why(execution_id).reason
    assert (reason.code, reason.needs_help) == ("lag", not alive)
    assert "Nothing is lost: a decision is due since 30 s" in reason.because
    assert ("no orchestrator is alive" in reason.because) is not alive
    before = desk.bench.types(execution_id)
    desk.why(execution_id)
    assert desk.bench.types(execution_id) == before, "looking changes nothing"


def test_an_execution_nobody_has_looked_at(desk: Desk) -> None:
    execution_id = desk.bench.start(ONE)
    assert desk.why(execution_id).reason.code == "deciding"
    desk.later(10)
    assert desk.why(execution_id).reason.code == "lag"


def test_cancelled_and_unknown(desk: Desk) -> None:
    execution_id, _ = begun(desk, JOIN)
    desk.bench.control.executions.cancel(execution_id)
    assert desk.why(execution_id).reason.code == "cancelled"
    assert desk.step(execution_id).reason.code == "cancelled"
    assert "the execution is cancelled" in desk.step(execution_id, "last").reason.because
    with pytest.raises(NotFoundError, match="did you mean 'both'"):
        desk.why(execution_id, "bot")
    with pytest.raises(NotFoundError):
        desk.why(404)


# ---------------------------------------------------------------------- paused
def test_a_paused_execution_says_that_its_steps_wait_for_that_alone(desk: Desk) -> None:
    execution_id = desk.bench.start(JOIN)
    (pointer,) = desk.bench.advance(execution_id)
    desk.bench.control.intervention.pause(execution_id)
    desk.later(90)
    why = desk.why(execution_id)
    assert (why.reason.code, why.reason.needs_help) == ("paused", True)
    assert "it is paused since 90 s" in why.reason.because
    assert why.reason.remedy == f"let it go on: callboard resume {execution_id}"
    assert desk.step(execution_id).reason.code == "paused"
    assert desk.step(execution_id, "both").reason.code == "paused"
    desk.bench.control.intervention.resume(execution_id)
    desk.alive()
    assert desk.step(execution_id).reason.code != "paused"
    assert pointer.step == "start"


def test_what_runs_in_a_paused_execution_is_named(desk: Desk) -> None:
    execution_id = desk.bench.start(ONE)
    (pointer,) = desk.bench.advance(execution_id)
    assert desk.bench.claim(pointer).granted
    desk.bench.control.intervention.pause(execution_id)
    why = desk.why(execution_id)
    assert why.reason.because.endswith("; what runs may end (start)")
    assert desk.step(execution_id).reason.code == "running"
