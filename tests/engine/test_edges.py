"""Cases that random playbooks and orders have found, or could: one small playbook each."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.children import Outcome, Target, call_of, ending
from app.engine.decide import Limits, cancel
from app.engine.events import (
    ChildEnded,
    ChildStarted,
    ExecutionCompleted,
    ExecutionFailed,
    LoopDone,
    StepCancelled,
    StepParked,
    StepScheduled,
    StepSkipped,
)
from tests.engine.driver import Failed, Lost, Run, playbook_of, run

CHILD = {"sub/child": Target(7, "sub/child", 3)}
SEQUENCE = "[{kind: noop}, {kind: playbook, path: sub/child, wait: true}]"


def begun(workflow: str, outcomes: Any = lambda scheduled: {}, **kwargs: Any) -> Run:
    return Run(playbook_of(workflow), outcomes, targets=CHILD, **kwargs).begin()


def park(run: Run, step: str, **call: Any) -> None:
    scheduled = next(out for out in run.out if out.step == step)
    run.out.remove(scheduled)
    asked = call_of({"path": "sub/child", "wait": True, **call}).to_dict()
    run.append(StepParked(*scheduled.key, scheduled.attempt, {"index": 1}, asked))
    run.decide()


def tell(run: Run) -> None:
    ((_, child),) = run.state.children.items()
    run.append(ending(child.caller, Outcome(child.execution_id, child.path, "completed", {})))
    run.decide()


def test_a_dead_end_is_one_although_the_arc_not_taken_leads_to_a_step() -> None:
    done = run("""
executor: {spec: {no_next_is_error: true}}
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: a, when: "{{ false }}"}]}}
- {step: a, tool: {kind: noop}}
""")
    assert done.state.status == "failed"


TURNING = """
workflow:
- {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: m}]}}
- {step: a, tool: {kind: noop}, next: {arcs: [{step: x, when: "{{ false }}"}]}}
- {step: m, tool: {kind: noop}, next: {arcs: [{step: x, when: "{{ output.turn >= 2 }}"}, {step: l}]}}
- {step: l, tool: {kind: noop}, next: {arcs: [{step: m}]}}
- {step: x, tool: {kind: noop}}
"""


@pytest.mark.parametrize("order", [["start", "a"], ["start", "m", "a"], ["start", "m", "l", "a"]])
def test_a_step_is_not_skipped_while_a_cycle_may_still_lead_to_it(order: list[str]) -> None:
    turning = begun(TURNING, lambda scheduled: {"turn": scheduled.visit})
    for name in order:
        turning.complete(next(out for out in turning.out if out.step == name))
        turning.decide()
    assert sorted(turning.finish().order()) == ["a", "l", "m", "m#2", "start", "x"]


def test_nothing_starts_beside_a_step_that_was_entered_too_often() -> None:
    done = run(
        """
workflow:
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: start}, {step: b}]}
- {step: b, tool: {kind: noop}}
""",
        limits=Limits(max_visits=1),
    )
    assert done.order() == ["start"]
    assert isinstance(done.log[-1], ExecutionFailed)


def test_the_body_of_a_loop_reads_the_result_that_led_there() -> None:
    done = run("""
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: b}]}}
- {step: b, loop: {in: [1, 2], iterator: i}, tool: {kind: http, url: "{{ result.x }}"}}
""")
    reads = [event.reads for event in done.of(StepScheduled) if event.step == "b"]
    assert reads == [{"result": 3}, {"result": 3}]


@pytest.mark.parametrize(
    "step",
    [
        "loop: {in: [1], iterator: i}, tool: {kind: playbook, path: sub/child}",
        "when: '{{ result.x is not defined }}', tool: {kind: noop}",
        "tool: {kind: http, url: '{{ result.x }}'}",
    ],
)
def test_a_step_that_was_passed_over_has_no_result(step: str) -> None:
    done = begun(f"""
workflow:
- {{step: a, when: "{{{{ false }}}}", tool: {{kind: noop}}, next: {{arcs: [{{step: b}}]}}}}
- {{step: b, {step}}}
""").finish()
    assert isinstance(done.log[-1], ExecutionCompleted)
    assert done.state.step("b").status == "done"
    assert all(0 not in event.reads.values() for event in done.of(StepScheduled))


FINAL = f"""
executor: {{spec: {{final_step: fin}}}}
workflow:
- step: start
  tool: {{kind: noop}}
  next: {{spec: {{mode: inclusive}}, arcs: [{{step: a}}, {{step: b}}]}}
- {{step: a, tool: {SEQUENCE}}}
- {{step: b, tool: {{kind: noop}}}}
- {{step: fin, tool: {{kind: noop}}}}
"""


def failing(scheduled: StepScheduled) -> Any:
    return Failed("planned") if scheduled.step == "b" else {}


def parked_beside_a_failure(**kwargs: Any) -> Run:
    run = begun(FINAL, failing, **kwargs)
    run.complete(run.out[0])
    run.decide()
    park(run, "a")
    run.complete(next(out for out in run.out if out.step == "b"))
    run.decide()
    return run


def test_the_final_step_waits_for_what_is_parked_when_another_step_fails() -> None:
    run = parked_beside_a_failure()
    assert run.out == []
    assert run.state.is_running
    tell(run)
    assert [str(out.key) for out in run.out] == ["a"]
    run.finish()
    assert run.order() == ["start", "a", "b", "a", "fin"]
    assert isinstance(run.log[-1], ExecutionFailed)


def test_a_deadline_ends_what_is_parked() -> None:
    run = parked_beside_a_failure(deadline=60.0)
    run.values.now = 60.0
    run.decide()
    assert [event.step for event in run.of(StepCancelled)] == ["a"]
    end = run.log[-1]
    assert isinstance(end, ExecutionFailed)
    assert end.error["kind"] == "timeout"
    assert run.decide() == []


def test_a_cancelled_execution_takes_no_note_of_its_children() -> None:
    run = parked_beside_a_failure()
    for event in cancel(run.state, "asked"):
        run.append(event)
    assert run.decision() == []
    assert cancel(run.state, "asked") == []


def test_a_parked_step_that_is_lost_later_goes_on_where_it_was() -> None:
    run = begun(f"workflow: [{{step: start, tool: {SEQUENCE}}}]")
    park(run, "start")
    tell(run)
    (ended,) = run.of(ChildEnded)
    run.outcomes = lambda scheduled: Lost() if scheduled.attempt < 4 else {}
    run.finish()
    resumed = run.of(StepScheduled)[1:]
    assert [event.attempt for event in resumed] == [2, 3, 4]
    assert all(run.log[event.child_seq - 1] == ended for event in resumed)
    assert len(run.of(ChildStarted)) == 1


def test_a_loop_that_is_entered_again_counts_anew() -> None:
    again = run(
        """
workflow:
- step: start
  loop: {in: [1, 2, 3], iterator: i, spec: {mode: parallel, max_in_flight: 2}}
  tool: {kind: noop}
  next: {arcs: [{step: start, when: "{{ (output.results | first).turn < 2 }}"}, {step: end}]}
""",
        lambda scheduled: {"turn": scheduled.visit},
    )
    assert [(done.visit, done.total) for done in again.of(LoopDone)] == [(1, 3), (2, 3)]
    assert len(again.order()) == 6


def test_a_join_behind_a_step_that_may_not_begin_does_not_wait_for_it() -> None:
    done = run("""
workflow:
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}
- step: a
  tool: {kind: noop}
  spec: {policy: {admit: {rules: [{else: {then: {allow: false}}}]}}}
  next: {arcs: [{step: c}]}
- {step: b, when: "{{ false }}", tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: c, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: join, tool: {kind: noop}}
""")
    assert done.order() == ["start", "join"]
    assert done.state.status == "completed"


def test_a_join_that_may_not_begin_is_asked_once() -> None:
    done = run("""
workflow:
- step: start
  tool: {kind: noop}
  next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}
- {step: a, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: b, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- step: join
  tool: {kind: noop}
  spec: {policy: {admit: {rules: [{else: {then: {allow: false}}}]}}}
""")
    assert done.order() == ["start", "a", "b"]
    assert [event.step for event in done.of(StepSkipped)] == ["join"]
    assert done.state.status == "completed"
