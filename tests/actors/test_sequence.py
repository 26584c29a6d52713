"""A step's tasks on the real tools: rules, retries, jumps, what is set, what comes out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.actors.sequence import Outcome, TaskSequence
from app.engine.language.parse import parse_step
from app.engine.playbook import Rule
from app.engine.policy import Action, choose, delay, jump_target
from app.engine.templates.scope import Scope
from app.errors import TemplateError
from app.settings import load
from app.tools import Context
from app.tools.child.launcher import launcher
from app.wire import Resume
from app.wiring import ToolKinds

KINDS = ToolKinds()
#: Fails until its third try, which it learns through its input.
FLAKY = "{kind: python, input: {n: '{{ _attempt }}'}, code: 'result = 1 // (n >= 3) and n'"


@pytest.fixture(scope="module", autouse=True)
def _children() -> Iterator[None]:
    """Ends the fork server of these tests."""
    yield
    launcher.close()


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(
        execution_id=7,
        step="s",
        visit=1,
        iteration=-1,
        attempt=1,
        settings=load({}).settings,
        timeout=60.0,
        workspace=tmp_path,
    )


def run(
    text: str,
    context: Context,
    *,
    seconds: float = 60.0,
    resume: Resume | None = None,
    **layers: Mapping[str, Any],
) -> Outcome:
    """Run the step ``{step: s, <text>}`` in a scope of *layers*, or go on from *resume*."""
    step = parse_step({"step": "s", **yaml.safe_load("{" + text + "}")}, KINDS)
    return TaskSequence(step, Scope(**layers), context, time.monotonic() + seconds, resume).run()


def rules(*rules: str) -> str:
    return f"spec: {{policy: {{rules: [{', '.join(rules)}]}}}}"


def retry(attempts: int, delay: str = "0", **more: str) -> str:
    extra = "".join(f", {key}: {value}" for key, value in more.items())
    then = f"{{do: retry, attempts: {attempts}, delay: {delay}{extra}}}"
    return f"{{when: \"output.status == 'error'\", then: {then}}}"


def says(result: Any, name: str = "") -> str:
    label = f"name: {name}, " if name else ""
    return f"{{{label}kind: noop, result: {result}}}"


# ---------------------------------------------------------------------- rules, as values
SCOPE = Scope(local={"n": 1, "word": "no"})


@pytest.mark.parametrize(
    ("given", "failed", "expected"),
    [
        pytest.param([], False, Action("continue"), id="no rules: success continues"),
        pytest.param([], True, Action("fail"), id="no rules: failure fails"),
        pytest.param([Rule("n == 2", "break")], True, Action("fail"), id="none holds"),
        pytest.param(
            [Rule("n == 2", "break"), Rule("n == 1", "jump"), Rule(None, "fail")],
            False,
            Action("jump", Rule("n == 1", "jump")),
            id="the first that holds",
        ),
        pytest.param([Rule(None, "retry")], True, Action("retry", Rule(None, "retry")), id="else"),
        pytest.param([Rule(False, "retry")], True, Action("fail"), id="a condition that is false"),
        pytest.param([Rule("word", "break")], False, Action("continue"), id="false words"),
        pytest.param([Rule("n")], False, Action("continue", Rule("n")), id="only set, success"),
        pytest.param([Rule("n")], True, Action("fail", Rule("n")), id="only set, failure"),
    ],
)
def test_the_rule_that_decides(given: list[Rule], failed: bool, expected: Action) -> None:
    assert choose(given, SCOPE, failed=failed) == expected


def test_a_condition_that_cannot_be_evaluated_is_an_error() -> None:
    with pytest.raises(TemplateError, match="n > 'x'"):
        choose([Rule("n > 'x'", "continue")], SCOPE, failed=False)


@pytest.mark.parametrize(
    ("rule", "waits"),
    [
        pytest.param(Rule(None), [0, 0, 0, 0], id="nothing said"),
        pytest.param(Rule(None, delay=2), [2, 2, 2, 2], id="a delay"),
        pytest.param(Rule(None, delay=2, backoff="fixed"), [2, 2, 2, 2], id="fixed"),
        pytest.param(Rule(None, delay=2, backoff="linear"), [2, 4, 6, 8], id="linear"),
        pytest.param(Rule(None, delay=2, backoff="exponential"), [2, 4, 8, 16], id="exponential"),
        pytest.param(
            Rule(None, delay=2, backoff="exponential", max_delay=7), [2, 4, 7, 7], id="capped"
        ),
    ],
)
def test_delays_after_each_try(rule: Rule, waits: list[float]) -> None:
    assert [delay(rule, tries) for tries in range(1, 5)] == waits


def test_jitter_keeps_a_share_of_the_delay_and_the_cap_comes_first() -> None:
    rule = Rule(None, delay=8, backoff="exponential", max_delay=10, jitter=True)
    assert [delay(rule, 3, share) for share in (0.0, 0.25, 1.0)] == [0.0, 2.5, 10.0]
    assert delay(replace(rule, jitter=False), 3, 0.25) == 10.0


def test_a_thousand_tries_overflow_nothing() -> None:
    rule = Rule(None, delay=1, backoff="exponential", max_delay=60)
    assert delay(rule, 1000) == 60


@pytest.mark.parametrize(
    ("to", "current", "expected"),
    [
        ("b", 0, 1),
        ("b", 1, 1),
        ("previous", 2, 1),
        ("prev", 1, 0),
        ("@previous", 1, 0),
        ("_previous", 0, None),
        ("gone", 1, None),
        (None, 1, None),
    ],
)
def test_jump_targets(to: str | None, current: int, expected: int | None) -> None:
    assert jump_target(["a", "b", "c"], current, to) == expected


# ---------------------------------------------------------------------- results
@pytest.mark.parametrize(
    ("tool", "result"),
    [
        pytest.param(says("{a: 1}"), {"a": 1}, id="a single tool gives its data"),
        pytest.param(says("[1, 2]"), [1, 2], id="whatever it is"),
        pytest.param("{kind: python, code: 'return 40 + 2'}", 42, id="python"),
        pytest.param(
            f"[{says('{a: 1, c: 1}', 'x')}, {says('{b: 2, c: 2}', 'y')}]",
            {"a": 1, "b": 2, "c": 2, "x": {"a": 1, "c": 1}, "y": {"b": 2, "c": 2}},
            id="a sequence: all fields, later ones win, then each task",
        ),
        pytest.param(
            f"[{says('{a: 1}', 'x')}, {says('3', 'y')}]",
            {"x": {"a": 1}, "y": 3},
            id="a sequence in which one result has no fields",
        ),
        pytest.param(f"[{says('{a: 1}')}]", {"a": 1, "task_0": {"a": 1}}, id="a sequence of one"),
    ],
)
def test_what_a_step_gives(tool: str, result: Any, context: Context) -> None:
    outcome = run(f"tool: {tool}", context)
    assert outcome == Outcome(result=result)


def test_a_task_sees_those_before_it_by_every_name(context: Context) -> None:
    names = ["a.n", "results.a.n", "_prev.n", "a.data.n", "_task"]
    result = says(str([f"{{{{ {name} }}}}" for name in names]))
    outcome = run(f"tool: [{{a: {says('{n: 5}')}}}, {{b: {result}}}]", context)
    assert outcome.result["b"] == [5, 5, 5, 5, "b"]


def test_input_of_the_step_wins_over_that_of_the_tool(context: Context) -> None:
    tool = "{kind: python, input: {a: 1, b: '{{ n }}'}, code: 'return [a, b]'}"
    assert run(f"tool: {tool}, input: {{a: '{{{{ n + 1 }}}}'}}", context, workload={"n": 6}) == (
        Outcome(result=[7, 6])
    )


def test_templates_in_code_are_left_alone_and_those_in_shell_programs_are_text(
    context: Context,
) -> None:
    code = """{kind: python, code: "return '{{ n }}'"}"""
    assert run(f"tool: {code}", context, workload={"n": 1}).result == "{{ n }}"
    shell = """{kind: shell, cmds: "printf '%s' '{{ rows }}'"}"""
    outcome = run(f"tool: {shell}", context, workload={"rows": [1, {"a": None}]})
    assert outcome.result["stdout"] == '[1, {"a": null}]'


def test_python_in_a_loop_sees_the_item_without_asking(context: Context) -> None:
    names = {"city": "Oslo", "_index": 3, "_total": 9, "loop_index": 3}
    loop = "loop: {in: [], iterator: city}, tool: {kind: python, code: 'return [city, _index]'}"
    assert run(loop, context, local=names).result == ["Oslo", 3]


# ---------------------------------------------------------------------- failing
def test_a_failing_tool_fails_the_step_with_what_it_said_and_where(context: Context) -> None:
    outcome = run("tool: [{name: a, kind: python, code: 'raise ValueError(\"odd\")'}]", context)
    assert outcome.result is None
    assert outcome.error is not None
    assert outcome.error["task"] == "a"
    assert "odd" in outcome.error["message"]
    assert outcome.error["py"]["exception"] == "ValueError"


def test_what_came_before_a_failure_is_not_run_again_nor_given(context: Context) -> None:
    outcome = run(f"tool: [{says('{a: 1}', 'x')}, {{kind: shell, cmds: 'exit 3'}}]", context)
    assert outcome.result is None
    assert outcome.error is not None
    assert outcome.error["kind"] == "exit"


@pytest.mark.parametrize(
    ("tool", "kind", "message"),
    [
        pytest.param("{kind: noop, result: '{{ 1 / 0 }}'}", "template", "1 / 0", id="a template"),
        pytest.param("{kind: shell, cmds: []}", "schema", "cmds", id="a config that does not fit"),
        pytest.param("{kind: python}", "schema", "no program", id="a tool without its program"),
        pytest.param(
            f"{{kind: noop, {rules('{when: 1 / 0, then: {do: continue}}')}}}",
            "template",
            "1 / 0",
            id="a condition of a rule",
        ),
        pytest.param("{kind: noop, set: {ctx.a: '{{ 1 / 0 }}'}}", "template", "1 / 0", id="a set"),
        pytest.param(
            f"{{kind: noop, {rules('{else: {do: fail}}')}}}", "rule", "says fail", id="a rule"
        ),
    ],
)
def test_ways_to_fail(tool: str, kind: str, message: str, context: Context) -> None:
    outcome = run(f"tool: {tool}", context)
    assert outcome.error is not None
    assert outcome.error["kind"] == kind
    assert message in outcome.error["message"]


def test_a_step_input_that_cannot_be_rendered_fails_the_step(context: Context) -> None:
    outcome = run("tool: {kind: noop}, input: {a: '{{ 1 / 0 }}'}", context)
    assert outcome.error is not None
    assert outcome.error["kind"] == "template"


def test_a_rule_that_says_continue_swallows_the_failure(context: Context) -> None:
    fails = f"{{name: a, kind: shell, cmds: 'exit 3', {rules('{else: {do: continue}}')}}}"
    after = "{name: b, kind: noop, result: '{{ _prev }}'}"
    outcome = run(f"tool: [{says('1', 'first')}, {fails}, {after}]", context)
    assert outcome.error is None
    assert outcome.result["b"] == 1, "the previous result is still that of the last success"
    assert outcome.result["a"]["returncode"] == 3, "what it produced all the same is kept"


def test_break_ends_the_sequence_well(context: Context) -> None:
    outcome = run(
        f"tool: [{{name: a, kind: noop, result: 1, {rules('{else: {do: break}}')}}}, "
        "{kind: shell, cmds: 'exit 1'}]",
        context,
    )
    assert outcome == Outcome(result={"a": 1})


# ---------------------------------------------------------------------- retries
def test_a_task_is_tried_again_until_it_succeeds(context: Context) -> None:
    outcome = run(f"tool: {FLAKY}, {rules(retry(5))}}}", context)
    assert outcome == Outcome(result=3)


def test_attempts_count_all_tries_and_the_last_error_stands(context: Context) -> None:
    outcome = run(f"tool: {FLAKY}, {rules(retry(2))}}}", context)
    assert outcome.error is not None
    assert outcome.error["py"]["exception"] == "ZeroDivisionError"
    assert outcome.retry_in is None


def test_each_task_of_a_sequence_has_its_own_tries(context: Context) -> None:
    flaky = f"{FLAKY}, {rules(retry(3))}}}"
    outcome = run(f"tool: [{{a: {flaky}}}, {{b: {flaky}}}]", context)
    assert outcome.result == {"a": 3, "b": 3}


def test_tries_begin_again_when_a_jump_comes_back_to_a_task(context: Context) -> None:
    flaky = (
        f"{FLAKY}, {rules(retry(3))}, set: {{step.turns: '{{{{ (turns | default(0)) + 1 }}}}'}}}}"
    )
    again = f"{{kind: noop, {rules('{when: turns < 2, then: {do: jump, to: a}}')}}}"
    outcome = run(f"tool: [{{a: {flaky}}}, {{b: {again}}}]", context)
    assert outcome.error is None
    assert outcome.result["a"] == 3, "the third try of the second turn, not the fourth in all"


def test_tries_of_earlier_attempts_count(context: Context) -> None:
    outcome = run(f"tool: {FLAKY}, {rules(retry(3))}}}", context, local={"_tries": 2})
    assert outcome == Outcome(result=3)
    outcome = run(f"tool: {FLAKY}, {rules(retry(2))}}}", context, local={"_tries": 1})
    assert outcome.error is not None


def test_a_long_wait_of_a_single_tool_goes_through_the_log(context: Context) -> None:
    outcome = run(
        f"tool: {FLAKY}, {rules(retry(5, '1m', backoff='linear'))}}}", context, local={"_tries": 1}
    )
    assert outcome.retry_in == 120.0
    assert outcome.error is not None
    assert outcome.error["kind"] != "cancelled"


def test_a_short_wait_is_waited_for(context: Context) -> None:
    began = time.monotonic()
    outcome = run(f"tool: {FLAKY}, {rules(retry(3, '100ms'))}}}", context)
    assert outcome == Outcome(result=3)
    assert time.monotonic() - began >= 0.2


# ---------------------------------------------------------------------- jumps
def test_a_jump_back_turns_until_its_rule_no_longer_holds(context: Context) -> None:
    again = "{when: 'n < 4', then: {do: jump, to: count}}"
    count = "{name: count, kind: noop, result: '{{ (n | default(0)) + 1 }}', set: {step.n: '{{ output }}'}}"
    outcome = run(f"tool: [{count}, {{name: look, kind: noop, {rules(again)}}}]", context)
    assert outcome.result["count"] == 4


def test_a_jump_to_before_the_first_task_fails(context: Context) -> None:
    jump = f"{{kind: noop, {rules('{else: {do: jump, to: previous}}')}}}"
    outcome = run(f"tool: [{jump}]", context)
    assert outcome.error is not None
    assert "no task 'previous'" in outcome.error["message"]


def test_jumping_in_circles_ends(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.actors.sequence.MAX_TASKS", 50)
    jump = f"{{name: a, kind: noop, {rules('{else: {do: jump, to: a}}')}}}"
    outcome = run(f"tool: [{jump}]", context)
    assert outcome.error is not None
    assert "jump in circles" in outcome.error["message"]


# ---------------------------------------------------------------------- set
def test_what_is_set_goes_where_its_scope_says(context: Context) -> None:
    first = (
        "{name: a, kind: noop, result: {n: 1}, set: {ctx.kept: '{{ output.n }}', bare: '{{ kept }}',"
        " iter.turn: 2, step.local: 3}}"
    )
    second = says("['{{ kept }}', '{{ ctx.bare }}', '{{ iter.turn }}', '{{ local }}']", "b")
    outcome = run(f"tool: [{first}, {second}]", context)
    assert outcome.ctx == {"kept": 1, "bare": 1}
    assert outcome.result["b"] == [1, 1, 2, 3]


def test_names_of_the_iteration_are_kept_beside_what_is_set(context: Context) -> None:
    first = "{name: a, kind: noop, set: {iter.turn: 2}}"
    second = "{name: b, kind: noop, result: ['{{ iter._index }}', '{{ iter.turn }}']}"
    outcome = run(f"tool: [{first}, {second}]", context, local={"iter": {"_index": 4}})
    assert outcome.result["b"] == [4, 2]


def test_a_rule_sets_from_the_envelope_even_where_it_fails(context: Context) -> None:
    sets = "{ctx.why: '{{ output.error.kind }}', ctx.try: '{{ output.meta.attempt }}'}"
    rule = f"{{when: true, then: {{do: fail, set: {sets}}}}}"
    outcome = run(f"tool: {{kind: shell, cmds: 'exit 3', {rules(rule)}}}", context)
    assert outcome.ctx == {"why": "exit", "try": 1}
    assert outcome.error is not None


def test_a_failed_task_sets_nothing_of_its_own(context: Context) -> None:
    outcome = run("tool: {kind: shell, cmds: 'exit 3', set: {ctx.a: 1}}", context)
    assert outcome.ctx == {}


# ---------------------------------------------------------------------- time and cancellation
def test_a_step_out_of_time_says_which_task_it_did_not_reach(context: Context) -> None:
    outcome = run("tool: {name: late, kind: noop}", context, seconds=0)
    assert outcome.error is not None
    assert outcome.error["kind"] == "timeout"
    assert "'late'" in outcome.error["message"]


def test_a_tool_gets_no_more_time_than_the_step_has_left(context: Context) -> None:
    began = time.monotonic()
    outcome = run("tool: {kind: shell, cmds: 'sleep 60'}", context, seconds=0.3)
    assert time.monotonic() - began < 10
    assert outcome.error is not None
    assert outcome.error["kind"] == "timeout"


def test_no_retry_waits_beyond_the_end_of_the_step(context: Context) -> None:
    began = time.monotonic()
    outcome = run(
        f"tool: [{{kind: noop}}, {FLAKY}, {rules(retry(9, '5s'))}}}]", context, seconds=0.5
    )
    assert time.monotonic() - began < 10
    assert outcome.error is not None
    assert outcome.error["kind"] == "timeout"


def test_a_cancelled_attempt_stops_its_tool(context: Context) -> None:
    began = time.monotonic()
    alarm = threading.Timer(0.2, context.cancelled.set)
    alarm.start()
    outcome = run("tool: {kind: shell, cmds: 'sleep 60'}", context)
    alarm.join()
    assert time.monotonic() - began < 10
    assert outcome.error is not None
    assert outcome.error["kind"] == "cancelled"


def test_a_long_wait_gives_the_worker_back_and_goes_on_where_it_was(context: Context) -> None:
    text = f"tool: [{{kind: noop, result: {{a: 1}}}}, {FLAKY}, {rules(retry(9, '60s'))}}}]"
    parked = run(text, context)
    assert (parked.retry_in, parked.error) == (60.0, None)
    assert parked.progress is not None
    assert parked.progress["results"] == {"task_0": {"a": 1}}
    resumed = run(text, context, resume=Resume(progress=dict(parked.progress)))
    # The second try of the same task; the first task did not run again.
    assert resumed.progress is not None
    assert resumed.progress["tries"] == {"task_1": 2}


def test_a_cancelled_attempt_does_not_wait_for_its_retry(context: Context) -> None:
    alarm = threading.Timer(0.2, context.cancelled.set)
    alarm.start()
    began = time.monotonic()
    outcome = run(f"tool: [{{kind: noop}}, {FLAKY}, {rules(retry(9, '5s'))}}}]", context)
    alarm.join()
    assert time.monotonic() - began < 10
    assert outcome.error is not None
    assert outcome.error["kind"] == "cancelled"


def test_a_cancelled_attempt_starts_no_task(context: Context) -> None:
    context.cancelled.set()
    outcome = run("tool: {kind: noop}", context)
    assert outcome.error is not None
    assert outcome.error["kind"] == "cancelled"


# ---------------------------------------------------------------------- what templates see
def test_input_is_seen_by_the_other_templates_of_its_tool(context: Context) -> None:
    outcome = run(
        "input: {a: 5}, tool: {kind: noop, input: {a: 1, n: '{{ n }}', job: x},"
        " result: '{{ [a, n, input.a, args.n, job.id] }}'}",
        context,
        workload={"a": 0, "n": 2},
        local={"job": {"id": "12"}},
    )
    assert outcome.result == [5, 2, 5, 2, "12"]


def test_input_of_a_call_is_not_the_callers(context: Context) -> None:
    outcome = run(
        "tool: {kind: playbook, path: '{{ path }}', input: {path: inner}}",
        context,
        workload={"path": "outer"},
    )
    assert outcome.call is not None
    assert outcome.call["path"] == "outer"


def test_the_task_before_has_its_data_below_data_too(context: Context) -> None:
    tools = f"[{says('{n: 1}')}, {says(chr(39) + '{{ [_prev.n, _prev.data.n] }}' + chr(39), 'b')}]"
    outcome = run(f"tool: {tools}", context)
    assert outcome.result["b"] == [1, 1]


def test_code_finds_the_workload_in_its_context(context: Context) -> None:
    code = "result = [context['workload'], variables['workload']['n'], {{ workload.n }}]"
    outcome = run(
        f'tool: {{kind: python, code: "{code}"}}', context, workload={"n": 2}, ctx={"n": 3}
    )
    assert outcome.result == [{"n": 2}, 2, 2]
