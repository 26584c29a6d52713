"""What holds for a whole execution: final step, dead ends, time limits, admission."""

from __future__ import annotations

import pytest

from app.engine.events import ExecutionFailed, StepCancelled, StepSkipped
from tests.engine.driver import Failed, Outcomes, Run, playbook_of, run


def with_spec(spec: str, workflow: str) -> str:
    return f"executor: {{spec: {{{spec}}}}}\nworkload: {{go: false}}\nworkflow:\n{workflow}"


def failing(step: str) -> Outcomes:
    return lambda scheduled: Failed("no") if scheduled.step == step else {}


CLEAN = """
- {step: start, tool: {kind: noop}}
- {step: clean, tool: {kind: noop}}
"""


def test_the_final_step_runs_when_nothing_else_does() -> None:
    done = run(with_spec("final_step: clean", CLEAN))
    assert done.order() == ["start", "clean"]
    assert done.state.status == "completed"


def test_the_final_step_runs_after_a_failure_which_stays_one() -> None:
    done = run(with_spec("final_step: clean", CLEAN), failing("start"))
    assert done.order() == ["start", "clean"]
    assert done.state.status == "failed"


def test_a_final_step_that_fails_fails_the_execution() -> None:
    done = run(with_spec("final_step: clean", CLEAN), failing("clean"))
    assert done.order() == ["start", "clean"]
    assert done.state.status == "failed"


def test_a_final_step_reached_by_an_arc_does_not_run_twice() -> None:
    flow = "- {step: start, next: clean}\n- {step: clean}\n"
    assert run(with_spec("final_step: clean", flow)).order() == ["start", "clean"]


def test_a_final_step_that_runs_last_leads_nowhere() -> None:
    flow = CLEAN + "- {step: more, tool: {kind: noop}}\n"
    flow = flow.replace("{step: clean, tool: {kind: noop}}", "{step: clean, next: more}")
    assert run(with_spec("final_step: clean", flow)).order() == ["start", "clean"]
    reached = flow.replace("{step: start, tool: {kind: noop}}", "{step: start, next: clean}")
    assert run(with_spec("final_step: clean", reached)).order() == ["start", "clean", "more"]


def test_a_final_loop_runs_after_a_failure_too() -> None:
    flow = CLEAN.replace("{step: clean,", "{step: clean, loop: {in: [1, 2], iterator: x},")
    done = run(with_spec("final_step: clean", flow), failing("start"))
    assert done.order() == ["start", "clean[0]", "clean[1]"]


@pytest.mark.parametrize(
    ("flow", "status"),
    [
        pytest.param("- {step: start}", "failed", id="no next"),
        pytest.param(
            "- {step: start, next: {arcs: [{step: end, when: '{{ go }}'}]}}",
            "failed",
            id="no arc matches",
        ),
        pytest.param(
            "- {step: start, next: {arcs: [{step: a, when: '{{ go }}'}]}}\n- {step: a, next: end}",
            "failed",
            id="no arc to a step matches",
        ),
        pytest.param("- {step: start, next: end}", "completed", id="ends at an undefined end"),
        pytest.param("- {step: start, next: end}\n- {step: end}", "completed", id="ends at end"),
        pytest.param(
            "- {step: start, next: {spec: {on_no_match: quiet}, arcs: [{step: end, when: '{{ go }}'}]}}",
            "completed",
            id="quiet",
        ),
    ],
)
def test_a_dead_end_is_an_error_where_the_playbook_says_so(flow: str, status: str) -> None:
    assert run(with_spec("no_next_is_error: true", flow)).state.status == status
    assert run(with_spec("no_next_is_error: false", flow)).state.status == "completed"


def test_an_execution_that_runs_too_long_fails_and_stops_its_steps() -> None:
    started = Run(
        playbook_of("workflow: [{step: start, tool: {kind: noop}}]"), deadline=60.0
    ).begin()
    started.values.now = 59.9
    assert started.decide() == []
    started.values.now = 60.0
    started.decide()
    assert started.of(StepCancelled)[0].step == "start"
    assert isinstance(started.log[-1], ExecutionFailed)
    assert started.log[-1].error["kind"] == "timeout"


GATED = """
workload: {open: false}
workflow:
- {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: gate}, {step: b}]}}
- step: gate
  tool: {kind: noop}
  spec:
    policy:
      admit:
        rules: [{when: "{{ open }}", then: {allow: true}}, {else: {then: {allow: false}}}]
  next: {arcs: [{step: after}, {step: join}]}
- {step: b, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: join, tool: {kind: noop}}
- {step: after, tool: {kind: noop}}
"""


def test_a_step_that_is_not_admitted_is_skipped_and_leads_nowhere() -> None:
    done = run(GATED)
    assert done.order() == ["start", "b", "join"]
    skipped = {event.step: event.reason for event in done.of(StepSkipped)}
    assert skipped["gate"] == "not admitted"
    assert done.state.status == "completed"
    assert "gate" in run(GATED, payload={"open": True}).order()


def test_a_raising_admission_fails_the_step() -> None:
    done = run(GATED.replace('"{{ open }}"', '"{{ 1 / 0 }}"'))
    assert done.state.status == "failed"
    assert "before step 'gate'" in done.of(ExecutionFailed)[0].error["message"]


def test_the_older_when_of_a_step_passes_it_over_and_walks_on() -> None:
    flow = """
workload: {go: false}
workflow:
- {step: start, tool: {kind: noop}, next: maybe}
- {step: maybe, when: "{{ go }}", tool: {kind: noop}, set: {ctx.x: 1}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}
"""
    done = run(flow)
    assert done.order() == ["start", "end"]
    assert "x" not in done.state.ctx
    assert run(flow, payload={"go": True}).order() == ["start", "maybe", "end"]


def test_what_follows_a_step_passed_over_reads_no_result() -> None:
    flow = """
workflow:
- {step: start, when: "{{ false }}", tool: {kind: noop}, next: {arcs: [{step: b}]}}
- {step: b, when: "{{ result is none }}", tool: {kind: http, url: "{{ result }}"}}
"""
    started = Run(playbook_of(flow)).begin()
    assert [(out.step, dict(out.reads)) for out in started.out] == [("b", {})]


def test_the_visit_limit_may_be_the_playbooks_own() -> None:
    flow = "- {step: start, tool: {kind: noop}, next: start}"
    done = run(with_spec("policy: {limits: {max_visits: 3}}", flow))
    assert len(done.order()) == 3
    assert "(executor.spec.policy.limits)" in done.of(ExecutionFailed)[0].error["message"]
