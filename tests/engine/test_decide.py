"""What must follow from what happened: one row per rule of the language."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from app.engine.decide import Limits, cancel
from app.engine.events import (
    CtxUpdated,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionPaused,
    ExecutionResumed,
    LoopDone,
    LoopStarted,
    StepCancelled,
    StepDone,
    StepFailed,
    StepRouted,
    StepScheduled,
    StepSkipped,
)
from app.engine.loops import collection
from tests.engine.driver import Failed, Lost, Run, playbook_of, run

CHAIN = """
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: middle}]}}
- {step: middle, tool: {kind: noop}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}
"""

DIAMOND = """
workflow:
- {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}}
- {step: a, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: b, tool: {kind: noop}, next: {arcs: [{step: join}]}}
- {step: join, tool: {kind: noop}}
"""


def test_a_chain_runs_in_order_and_completes() -> None:
    done = run(CHAIN)
    assert done.order() == ["start", "middle", "end"]
    assert done.log[-1] == ExecutionCompleted("end")


def test_a_trivial_step_costs_three_events() -> None:
    # Scheduled and done here, started is written by the claim; one more records the dead end.
    assert len(run(CHAIN).log) == 1 + 3 * 2 + 1 + 1


def test_deciding_again_without_news_gives_nothing() -> None:
    started = Run(playbook_of(CHAIN)).begin()
    assert started.decide() == []


def test_nothing_follows_while_it_is_paused_and_all_of_it_afterwards() -> None:
    run = Run(playbook_of(CHAIN)).begin()
    run.append(ExecutionPaused())
    run.append(StepDone("start", 1, -1, 1))
    assert run.decide() == []
    run.append(ExecutionResumed())
    assert [event.type for event in run.decide()] == ["step.scheduled"]


def test_nothing_follows_after_the_end() -> None:
    assert run(CHAIN).decide() == []


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        pytest.param(
            "start", "workflow: [{step: a}, {step: start}]", id="start where there is one"
        ),
        pytest.param("a", "workflow: [{step: a}, {step: b}]", id="else the first"),
        pytest.param(
            "b",
            "executor: {spec: {entry_step: b}}\nworkflow: [{step: start}, {step: b}]",
            id="entry_step above all",
        ),
    ],
)
def test_it_begins_at_the_entry_step(entry: str, text: str) -> None:
    assert run(text).order()[0] == entry


# ---------------------------------------------------------------------- arcs
def routed(arcs: str, mode: str = "exclusive", result: Any = None) -> list[str]:
    text = f"""
workload: {{yes: true, word: 'false'}}
workflow:
- {{step: start, tool: {{kind: noop}}, next: {{spec: {{mode: {mode}}}, arcs: [{arcs}]}}}}
- {{step: a}}
- {{step: b}}
- {{step: c}}
"""
    return run(text, lambda scheduled: result if scheduled.step == "start" else {}).order()[1:]


@pytest.mark.parametrize(
    ("arcs", "mode", "expected"),
    [
        ("{step: a}, {step: b}", "exclusive", ["a"]),
        ("{step: a, when: '{{ not yes }}'}, {step: b}", "exclusive", ["b"]),
        (
            "{step: a}, {step: b, when: '{{ yes }}'}, {step: c, when: false}",
            "inclusive",
            ["a", "b"],
        ),
        ("{step: a, when: 'yes'}", "exclusive", ["a"]),
        ("{step: a, when: '{{ word }}'}, {step: b}", "exclusive", ["b"]),
        ("{step: a, when: '{{ missing.deep.name }}'}, {step: b}", "exclusive", ["b"]),
        ("{step: a, when: '{{ missing.deep | default(true) }}'}", "exclusive", ["a"]),
        ("{step: a, when: '{{ start.rows | length == 2 }}'}", "exclusive", ["a"]),
        (
            "{step: a, when: '{{ output.rows[0] == 1 and output.data.rows[1] == 2 }}'}",
            "exclusive",
            ["a"],
        ),
        ("{step: a, when: \"{{ event.name == 'call.done' }}\"}", "exclusive", ["a"]),
        ("{step: a, when: '{{ result.rows == [1, 2] }}'}", "exclusive", ["a"]),
        ("{step: end}", "exclusive", []),
    ],
)
def test_arcs_lead_where_their_conditions_say(arcs: str, mode: str, expected: list[str]) -> None:
    assert routed(arcs, mode, {"rows": [1, 2]}) == expected


def test_a_dead_end_completes_the_execution() -> None:
    done = run("workflow: [{step: start, next: {arcs: [{step: a, when: false}]}}, {step: a}]")
    assert done.log[-1] == ExecutionCompleted("start")
    assert done.of(StepSkipped) == [StepSkipped("a", 1, source="start", source_visit=1)]


def test_a_raising_condition_fails_the_execution_with_its_text() -> None:
    done = run("workflow: [{step: start, next: {arcs: [{step: end, when: '{{ 1 / 0 }}'}]}}]")
    assert isinstance(done.log[-1], ExecutionFailed)
    assert "{{ 1 / 0 }}" in done.log[-1].error["message"]
    assert "ZeroDivisionError" in done.log[-1].error["message"]


# ---------------------------------------------------------------------- set
def test_set_applies_before_arcs_and_lasts() -> None:
    done = run(
        """
workload: {offset: 1}
workflow:
- step: start
  set: {ctx.offset: '{{ workload.offset + 10 }}', plain: '{{ output.v }}'}
  next: {arcs: [{step: a, when: '{{ offset == 11 and ctx.plain == 7 }}', set: {ctx.why: arc}}]}
- {step: a, tool: {kind: http, url: '{{ ctx.offset }}/{{ why }}/{{ workload.offset }}'}}
""",
        lambda scheduled: {"v": 7},
    )
    assert done.of(CtxUpdated) == [
        CtxUpdated("start", 1, {"offset": 11, "plain": 7}),
        CtxUpdated("start", 1, {"why": "arc"}),
    ]
    scheduled = done.of(StepScheduled)[-1]
    assert scheduled.reads == {"ctx.offset": 4, "ctx.why": 5}


def test_a_step_reads_exactly_what_its_templates_name() -> None:
    done = run(
        """
workload: {url: x}
workflow:
- {step: start, next: {arcs: [{step: b}]}}
- {step: b, next: {arcs: [{step: c}]}}
- {step: c, tool: {kind: http, url: '{{ url }}', params: {q: '{{ start.v }}'}}}
"""
    )
    assert done.of(StepScheduled)[-1].reads == {"start": 3}


def test_code_that_asks_for_the_context_reads_everything() -> None:
    done = run(
        """
workflow:
- {step: start, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: python, code: 'context'}}
"""
    )
    assert done.of(StepScheduled)[-1].reads == {"start": 3}


# ---------------------------------------------------------------------- joins
@pytest.mark.parametrize("last", [0, 1])
def test_a_join_runs_once_after_every_branch(last: int) -> None:
    done = Run(playbook_of(DIAMOND)).begin().finish(lambda count: last if count > 1 else 0)
    assert sorted(done.order()) == ["a", "b", "join", "start"]
    assert done.order()[-1] == "join"


def test_both_branches_ending_at_once_fire_the_join_once() -> None:
    done = Run(playbook_of(DIAMOND)).begin()
    done.complete(done.out[0])
    done.decide()
    for scheduled in list(done.out):
        done.complete(scheduled)
    done.decide()
    assert done.order().count("join") == 1


def test_a_skipped_branch_does_not_hold_a_join() -> None:
    done = run(DIAMOND.replace("{step: b}]", "{step: b, when: false}]"))
    assert done.order() == ["start", "a", "join"]
    assert [event.step for event in done.of(StepSkipped)] == ["b"]


def test_a_branch_that_ends_elsewhere_does_not_hold_a_join() -> None:
    done = run(
        DIAMOND.replace(
            "- {step: b, tool: {kind: noop}, next: {arcs: [{step: join}]}}",
            "- {step: b, next: {arcs: [{step: join, when: false}]}}",
        )
    )
    assert sorted(done.order()) == ["a", "b", "join", "start"]


def test_a_join_waits_for_a_branch_that_is_several_steps_away() -> None:
    text = """
workflow:
- {step: start, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b1}]}}
- {step: a, next: {arcs: [{step: join}]}}
- {step: b1, next: {arcs: [{step: b2}]}}
- {step: b2, next: {arcs: [{step: join}]}}
- {step: join}
"""
    assert run(text).order() == ["start", "a", "b1", "b2", "join"]


def test_an_if_else_merge_does_not_wait() -> None:
    text = """
workflow:
- {step: start, next: {arcs: [{step: a, when: '{{ workload.x }}'}, {step: b}]}}
- {step: a, next: {arcs: [{step: merge}]}}
- {step: b, next: {arcs: [{step: merge}]}}
- {step: merge}
"""
    assert run(text).order() == ["start", "b", "merge"]
    assert run(text, payload={"x": 1}).order() == ["start", "a", "merge"]


def picking(last: int, count: int) -> int:
    return min(last, count - 1)


def test_nested_joins_fire_from_the_inside_out() -> None:
    text = """
workflow:
- {step: start, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}, {step: c}]}}
- {step: a, next: {arcs: [{step: inner}]}}
- {step: b, next: {arcs: [{step: inner}]}}
- {step: inner, next: {arcs: [{step: outer}]}}
- {step: c, next: {arcs: [{step: outer}]}}
- {step: outer}
"""
    for last in (0, 1, 2):
        order = Run(playbook_of(text)).begin().finish(partial(picking, last)).order()
        assert order.index("inner") > max(order.index("a"), order.index("b"))
        assert order[-1] == "outer"
        assert len(order) == 6


# ---------------------------------------------------------------------- cycles
CYCLE = """
workload: {turns: 4}
workflow:
- {step: start, set: {ctx.n: 0}, next: {arcs: [{step: work}]}}
- step: work
  set: {ctx.n: '{{ ctx.n + 1 }}'}
  next: {arcs: [{step: work, when: '{{ ctx.n < turns }}'}, {step: done}]}
- {step: done}
"""


def test_a_cycle_runs_until_its_condition_ends_it() -> None:
    done = run(CYCLE)
    assert done.order() == ["start", "work", "work#2", "work#3", "work#4", "done"]
    assert done.of(StepSkipped) == []


def test_a_cycle_over_two_steps_enters_both_again() -> None:
    text = """
workflow:
- {step: start, next: {arcs: [{step: fetch}]}}
- {step: fetch, next: {arcs: [{step: check}]}}
- {step: check, next: {arcs: [{step: fetch, when: '{{ output.turn < 3 }}'}, {step: end}]}}
- {step: end}
"""
    done = run(text, lambda scheduled: {"turn": scheduled.visit})
    assert done.order() == [
        "start",
        "fetch",
        "check",
        "fetch#2",
        "check#2",
        "fetch#3",
        "check#3",
        "end",
    ]


def test_a_join_inside_a_cycle_waits_in_every_turn() -> None:
    text = """
workflow:
- {step: start, next: {arcs: [{step: split}]}}
- {step: split, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b1}]}}
- {step: a, next: {arcs: [{step: join}]}}
- {step: b1, next: {arcs: [{step: b2}]}}
- {step: b2, next: {arcs: [{step: join}]}}
- {step: join, next: {arcs: [{step: split, when: '{{ output.turn < 2 }}'}, {step: end}]}}
"""
    done = run(text, lambda scheduled: {"turn": scheduled.visit})
    assert done.order() == [
        "start",
        "split",
        "a",
        "b1",
        "b2",
        "join",
        "split#2",
        "a#2",
        "b1#2",
        "b2#2",
        "join#2",
    ]


def test_a_cycle_without_end_fails_at_the_visit_limit() -> None:
    text = "workflow: [{step: start, next: {arcs: [{step: start}]}}]"
    done = run(text, limits=Limits(max_visits=10))
    assert len(done.order()) == 10
    assert "CALLBOARD_MAX_VISITS" in done.log[-1].error["message"]  # type: ignore[union-attr, index]


def test_no_arc_catches_the_visit_limit() -> None:
    text = """
workflow:
- {step: start, next: {arcs: [{step: start, when: "{{ output.status == 'error' }}"}, {step: start}]}}
"""
    done = run(text, lambda scheduled: Failed("again"), limits=Limits(max_visits=10))
    assert len(done.order()) == 10
    assert isinstance(done.log[-1], ExecutionFailed)


def test_a_loop_that_cannot_be_entered_and_catches_itself_ends() -> None:
    text = """
workflow:
- step: start
  loop: {in: null}
  tool: {kind: noop}
  next: {arcs: [{step: start, when: "{{ output.status == 'error' }}"}]}
"""
    done = run(text, limits=Limits(max_visits=10))
    assert isinstance(done.log[-1], ExecutionFailed)


def test_a_result_outlives_re_entry_until_it_is_replaced() -> None:
    text = """
workflow:
- step: start
  tool: {kind: http, url: '{{ start.v | default("none") }}'}
  next: {arcs: [{step: start, when: '{{ output.v < 2 }}'}]}
"""
    done = run(text, lambda scheduled: {"v": scheduled.visit})
    assert [event.reads for event in done.of(StepScheduled)] == [{}, {"start": 3}]


# ---------------------------------------------------------------------- loops
def loop(spec: str, items: str = "[1, 2, 3, 4]") -> str:
    return f"""
workflow:
- step: start
  loop: {{in: {items}, iterator: x, spec: {spec}}}
  tool: {{kind: noop}}
  next: {{arcs: [{{step: after, when: "{{{{ event.name == 'loop.done' }}}}"}}]}}
- {{step: after}}
"""


def test_a_sequential_loop_runs_one_at_a_time() -> None:
    begun = Run(playbook_of(loop("{mode: sequential}"))).begin()
    while begun.state.step("start").status == "running":
        assert len(begun.out) == 1
        begun.finish(most=1)
    assert begun.finish().order() == ["start[0]", "start[1]", "start[2]", "start[3]", "after"]


def test_a_parallel_loop_keeps_its_window_full() -> None:
    begun = Run(playbook_of(loop("{mode: parallel, max_in_flight: 3}"))).begin()
    assert begun.order() == ["start[0]", "start[1]", "start[2]"]
    begun.finish(most=1)
    assert begun.order()[-1] == "start[3]"
    assert begun.finish().log[-1] == ExecutionCompleted("after")


@pytest.mark.parametrize("window", ["'{{ 1 + 1 }}'", "'2'", "2"])
def test_the_window_may_be_a_template(window: str) -> None:
    assert (
        len(Run(playbook_of(loop(f"{{mode: parallel, max_in_flight: {window}}}"))).begin().out) == 2
    )


def test_an_empty_loop_is_done_at_once() -> None:
    done = run(loop("{mode: parallel}", "[]"))
    assert done.of(LoopDone) == [LoopDone("start", 1, 0, 0, 0)]
    assert done.order() == ["after"]


@pytest.mark.parametrize("items", ["null", "'{{ missing }}'", "true"])
def test_a_loop_over_nothing_fails_clearly(items: str) -> None:
    done = run(loop("{mode: parallel}", items))
    assert "did not evaluate to an iterable" in done.log[-1].error["message"]  # type: ignore[union-attr, index]


@pytest.mark.parametrize(
    ("value", "items"),
    [
        ([1], [1]),
        ({"a": 1}, [{"key": "a", "value": 1}]),
        (3, [0, 1, 2]),
        ("[1, 2]", [1, 2]),
        ("a, b\nc", ["a", "b", "c"]),
        (0, []),
    ],
)
def test_many_things_can_be_gone_over(value: Any, items: list[Any]) -> None:
    assert collection(value) == items


def test_the_results_of_a_loop_are_ordered_by_index() -> None:
    text = loop("{mode: parallel}").replace(
        "{step: after}",
        "{step: after, set: {ctx.all: '{{ start.results }}', ctx.stats: '{{ start.stats }}'}}",
    )
    begun = Run(playbook_of(text), lambda scheduled: {"i": scheduled.iteration}).begin()
    done = begun.finish(lambda count: count - 1)
    assert done.of(CtxUpdated)[0].values == {
        "all": [{"i": 0}, {"i": 1}, {"i": 2}, {"i": 3}],
        "stats": {"total": 4, "success": 4, "failed": 0},
    }


def test_a_failed_iteration_does_not_stop_the_others() -> None:
    done = run(
        loop("{mode: sequential}"),
        lambda scheduled: Failed("no") if scheduled.iteration == 1 else {},
    )
    assert done.of(LoopDone)[0].failed == 1
    # the arc names the event, so it also catches a loop that had failures
    assert done.order()[-1] == "after"
    assert done.log[-1] == ExecutionCompleted("after")


def test_failed_iterations_that_nobody_catches_fail_the_execution() -> None:
    text = loop("{mode: parallel}").replace(", when: \"{{ event.name == 'loop.done' }}\"", "")
    done = run(text, lambda scheduled: Failed("no") if scheduled.iteration == 1 else {})
    assert "1 of 4 iterations failed; the first: no" in done.log[-1].error["message"]  # type: ignore[union-attr, index]


def test_a_loop_entered_again_starts_afresh() -> None:
    text = """
workflow:
- step: start
  tool: {kind: noop}
  loop: {in: '{{ 2 }}', iterator: x, spec: {mode: parallel}}
  set: {ctx.turn: '{{ (ctx.turn | default(0)) + 1 }}'}
  next: {arcs: [{step: start, when: '{{ ctx.turn < 2 }}'}]}
"""
    assert run(text).order() == ["start[0]", "start[1]", "start#2[0]", "start#2[1]"]


def test_the_collection_is_frozen_at_entry() -> None:
    begun = Run(
        playbook_of(loop("{mode: sequential}", "'{{ workload.xs }}'")), payload={"xs": [1, 2]}
    ).begin()
    started = begun.of(LoopStarted)[0]
    assert (started.items, started.size, started.window) == ([1, 2], 2, 1)
    assert {
        event.loop_seq for event in begun.finish().of(StepScheduled) if event.step == "start"
    } == {2}


# ---------------------------------------------------------------------- failure
def test_an_unhandled_failure_fails_the_execution() -> None:
    done = run(CHAIN, lambda scheduled: Failed("boom") if scheduled.step == "middle" else {})
    assert done.order() == ["start", "middle"]
    assert done.log[-1].error["message"] == "Failed steps: middle (boom)"  # type: ignore[union-attr, index]


def test_arcs_without_a_word_of_failure_do_not_fire_on_failure() -> None:
    text = "workflow: [{step: start, next: {arcs: [{step: a, when: true}, {step: b}]}}, {step: a}, {step: b}]"
    assert run(text, lambda scheduled: Failed("x")).order() == ["start"]


@pytest.mark.parametrize(
    "when",
    [
        "{{ event.name == 'call.error' }}",
        "{{ output.status == 'error' }}",
        "{{ start.error is defined and start.error.message == 'x' }}",
        "{{ output.error.kind == 'test' }}",
    ],
)
def test_an_arc_that_names_the_failure_catches_it(when: str) -> None:
    text = (
        f'workflow: [{{step: start, next: {{arcs: [{{step: a, when: "{when}"}}]}}}}, {{step: a}}]'
    )
    done = run(text, lambda scheduled: Failed("x") if scheduled.step == "start" else {})
    assert done.order() == ["start", "a"]
    assert done.log[-1] == ExecutionCompleted("a")


def test_a_result_with_status_error_is_data_not_failure() -> None:
    text = """
workflow:
- {step: start, next: {arcs: [{step: a, when: "{{ start.status == 'error' }}"}]}}
- {step: a}
"""
    assert run(text, lambda scheduled: {"status": "error"}).order() == ["start", "a"]


def test_what_runs_is_drained_before_the_execution_fails() -> None:
    begun = Run(
        playbook_of(DIAMOND), lambda scheduled: Failed("x") if scheduled.step == "a" else {}
    ).begin()
    begun.finish(most=2)  # start, a
    assert begun.state.is_running
    begun.finish()
    assert begun.order() == ["start", "a", "b"]
    assert isinstance(begun.log[-1], ExecutionFailed)


def test_a_loop_stops_scheduling_once_another_branch_failed() -> None:
    text = """
workflow:
- {step: start, next: {spec: {mode: inclusive}, arcs: [{step: bad}, {step: many}]}}
- {step: bad}
- {step: many, loop: {in: '{{ 10 }}', spec: {mode: sequential}}}
""".replace("{step: many, loop", "{step: many, tool: {kind: noop}, loop")
    done = run(text, lambda scheduled: Failed("x") if scheduled.step == "bad" else {})
    assert done.order() == ["start", "bad", "many[0]"]


# ---------------------------------------------------------------------- attempts
def test_a_lost_attempt_is_scheduled_again() -> None:
    done = run(
        CHAIN,
        lambda scheduled: Lost() if scheduled.step == "middle" and scheduled.attempt == 1 else {},
    )
    assert [(event.step, event.attempt) for event in done.of(StepScheduled)] == [
        ("start", 1),
        ("middle", 1),
        ("middle", 2),
        ("end", 1),
    ]


def test_a_step_that_keeps_losing_its_worker_fails() -> None:
    done = run(CHAIN, lambda scheduled: Lost(), limits=Limits(max_attempts=3))
    assert [event.attempt for event in done.of(StepScheduled)] == [1, 2, 3]
    assert "lost its worker 3 times" in done.log[-1].error["message"]  # type: ignore[union-attr, index]


# ---------------------------------------------------------------------- the end
def test_cancelling_ends_what_runs() -> None:
    begun = Run(playbook_of(DIAMOND)).begin().finish(most=1)
    assert cancel(begun.state, "enough") == [
        StepCancelled("a", 1),
        StepCancelled("b", 1),
        ExecutionCancelled("enough"),
    ]
    assert cancel(run(CHAIN).state, None) == []


def test_routing_is_recorded_only_where_no_other_event_tells() -> None:
    assert run(CHAIN).of(StepRouted) == [StepRouted("end", 1)]
    assert run(CHAIN).of(StepFailed) == []
    assert len(run(CHAIN).of(StepDone)) == 3


def test_a_second_attempt_reads_the_result_that_led_to_the_first() -> None:
    text = """
workflow:
- {step: start, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: http, url: '{{ result.v }}'}}
"""
    done = run(
        text, lambda scheduled: Lost() if (scheduled.step, scheduled.attempt) == ("b", 1) else {}
    )
    assert [event.reads for event in done.of(StepScheduled)] == [{}, {"result": 3}, {"result": 3}]


def test_a_step_that_a_turning_cycle_may_still_reach_is_not_skipped() -> None:
    text = """
workflow:
- {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: m}]}}
- {step: a, tool: {kind: noop}, next: {arcs: [{step: x, when: '{{ false }}'}]}}
- step: m
  tool: {kind: noop}
  next: {arcs: [{step: x, when: '{{ output.turn >= 2 }}'}, {step: l}]}
- {step: l, tool: {kind: noop}, next: {arcs: [{step: m}]}}
- {step: x, tool: {kind: noop}}
"""
    started = Run(playbook_of(text), lambda scheduled: {"turn": scheduled.visit}).begin()
    for name in ("start", "m", "a", "l", "m"):
        started.complete(next(out for out in started.out if out.step == name))
        started.decide()
    assert [out.step for out in started.out] == ["x"]


def test_nothing_starts_beside_a_step_entered_too_often() -> None:
    text = """
workflow:
- {step: start, tool: {kind: noop}, next: {spec: {mode: inclusive}, arcs: [{step: start}, {step: b}]}}
- {step: b, tool: {kind: noop}}
"""
    done = run(text, limits=Limits(max_visits=1))
    assert done.order() == ["start"]
    assert done.state.status == "failed"


def test_the_body_of_a_loop_reads_the_result_that_led_to_it() -> None:
    text = """
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: b}]}}
- {step: b, loop: {in: [1], iterator: i}, tool: {kind: http, url: '{{ result.x }}'}}
"""
    started = Run(playbook_of(text)).begin()
    started.complete(started.out[0])
    started.decide()
    assert "result" in started.out[0].reads


def test_the_end_tells_the_errors_without_what_the_tasks_were_given() -> None:
    error = {"kind": "test", "message": "broken", "rendered": {"cmd": "x" * 1000}}
    begun = Run(playbook_of("workflow: [{step: a, tool: {kind: noop}}]")).begin()
    begun.append(StepFailed("a", 1, -1, 1, error))
    begun.decide()
    end = begun.log[-1]
    assert isinstance(end, ExecutionFailed)
    assert end.error["errors"] == {"a": {"kind": "test", "message": "broken"}}
