"""Older forms are read as what they mean today, and their mistakes stay where they are written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.engine.language.parse import parse_step
from app.engine.playbook import Arc, Rule
from tests.engine.driver import KINDS
from tests.engine.language.parsing import step, step_of

FAILED = "output.status == 'error'"


# ---------------------------------------------------------------------- keys of a step
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("args: {a: 1}", {"a": 1}),
        ("args: {a: 1, b: 1}, input: {b: 2}", {"a": 1, "b": 2}),
    ],
)
def test_args_of_a_step_are_its_input(keys: str, expected: Any) -> None:
    read = step(f"tool: {{kind: noop}}, {keys}")
    assert read.input == expected
    assert "args" not in read.raw


def test_vars_of_a_step_are_what_it_sets() -> None:
    read = step("tool: {kind: noop}, vars: {a: '{{ result.x }}', ctx.b: 1}, set: {ctx.a: 2}")
    assert read.set == {"ctx.a": 2, "ctx.b": 1}


def test_when_of_a_step_is_its_guard() -> None:
    assert step("when: '{{ n > 1 }}', next: t").guard == "{{ n > 1 }}"


def test_timeout_seconds() -> None:
    assert step("tool: {kind: noop}, timeout_seconds: 3").timeout == 3.0


def test_the_mode_of_a_loop_outside_its_spec() -> None:
    loop = step("tool: {kind: noop}, loop: {in: [1], mode: parallel, max_in_flight: '4'}").loop
    assert loop is not None
    assert (loop.parallel, loop.max_in_flight) == (True, 4)


# ---------------------------------------------------------------------- next
@pytest.mark.parametrize(
    ("next_", "arcs", "inclusive"),
    [
        ("[{step: t, args: {x: '{{ y }}'}}]", (Arc("t", None, {"ctx.x": "{{ y }}"}),), True),
        (
            "{arcs: [{step: t, cond: a, set: {ctx.x: 1}, args: {x: 2, z: 3}}]}",
            (Arc("t", "a", {"ctx.x": 1, "ctx.z": 3}),),
            False,
        ),
        ("{arcs: [{step: t, cond: a, when: b}]}", (Arc("t", "b"),), False),
        ("[{step: t, cond: a}, u]", (Arc("t", "a"), Arc("u")), False),
    ],
)
def test_older_arcs(next_: str, arcs: tuple[Arc, ...], inclusive: bool) -> None:
    read = step(f"next: {next_}")
    assert (read.arcs, read.inclusive) == (arcs, inclusive)


@pytest.mark.parametrize(
    ("keys", "arcs", "inclusive"),
    [
        pytest.param(
            "case: [{when: a, then: [{next: t}]}, {when: b, then: {next: [{step: u}]}}]",
            (Arc("t", "a"), Arc("u", "b")),
            False,
            id="in order, the first that holds",
        ),
        pytest.param(
            "case: [{when: a, then: [{set: {x: 1}}, {next: [{step: t, args: {y: 2}}]}], "
            "else: [{next: u}]}]",
            (Arc("t", "a", {"ctx.x": 1, "ctx.y": 2}), Arc("u")),
            False,
            id="with values and else",
        ),
        pytest.param(
            "case: [{when: a, then: {next: t, vars: {ctx.x: 1}}}, {else: {next: u}}]",
            (Arc("t", "a", {"ctx.x": 1}), Arc("u")),
            False,
            id="else as a case of its own",
        ),
        pytest.param(
            "case: [{when: a, then: {next: t}}], next: [{step: u}]",
            (Arc("t", "a"), Arc("u")),
            False,
            id="next is what follows otherwise",
        ),
        pytest.param(
            "case: [{when: a, then: {next: [t, {step: u}]}}]",
            (Arc("t", "a"), Arc("u", "a")),
            True,
            id="several at once",
        ),
    ],
)
def test_case_is_read_as_arcs(keys: str, arcs: tuple[Arc, ...], inclusive: bool) -> None:
    read = step(keys)
    assert (read.arcs, read.inclusive) == (arcs, inclusive)


# ---------------------------------------------------------------------- tools
def rules(tool: str) -> tuple[Rule, ...]:
    return step(f"tool: {{kind: noop, {tool}}}").tasks[0].rules


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        pytest.param(
            "eval: [{expr: a, do: retry, attempts: 4, delay: 2, backoff: linear}, {else: {do: fail}}]",
            (Rule("a", "retry", 4, 2.0, "linear"), Rule(None, "fail")),
            id="eval",
        ),
        pytest.param(
            "eval: [{expr: a, do: jump, to: s, set_ctx: {x: 1}, set_iter: {y: 2}, set: {z: 3}}]",
            (Rule("a", "jump", to="s", set={"ctx.x": 1, "iter.y": 2, "z": 3}),),
            id="eval that sets values",
        ),
        pytest.param(
            "eval: [{expr: b, then: {do: break}}], "
            "spec: {policy: {rules: [{when: a, then: {do: fail}}, {else: {do: continue}}]}}",
            (Rule("a", "fail"), Rule("b", "break"), Rule(None, "continue")),
            id="added to its own rules, before their else",
        ),
        pytest.param(
            "retry: {max_attempts: 5, backoff_seconds: 2, retry_on_status: [429, '503']}",
            (Rule("{{ (output.http.status in [429, 503]) }}", "retry", 5, 2.0, "fixed"),),
            id="retry on statuses",
        ),
        pytest.param(
            "retry: {max_attempts: '5', backoff: exponential, delay: 1, retry_on: [timeout, network]}",
            (
                Rule(
                    f"{{{{ ({FAILED} and output.error.kind in ['timeout', 'connection']) }}}}",
                    "retry",
                    5,
                    1.0,
                    "exponential",
                ),
            ),
            id="retry on kinds of errors",
        ),
        pytest.param(
            "retry: {retry_on: [5xx, any]}",
            (
                Rule(
                    f"{{{{ (500 <= (output.http.status | default(0)) < 600) or ({FAILED}) }}}}",
                    "retry",
                    3,
                    0.0,
                    "fixed",
                ),
            ),
            id="retry on classes of them",
        ),
        pytest.param(
            "retry: {backoff_multiplier: 2, delay_seconds: 1, max_delay: 9, jitter: true}",
            (Rule(f"{{{{ {FAILED} }}}}", "retry", 3, 1.0, "exponential", 9.0, jitter=True),),
            id="retry on any failure",
        ),
        pytest.param(
            "retry: 4", (Rule(f"{{{{ {FAILED} }}}}", "retry", 4, backoff="fixed"),), id="a number"
        ),
        pytest.param("retry: false", (), id="no retry"),
    ],
)
def test_older_rules(tool: str, expected: tuple[Rule, ...]) -> None:
    assert rules(tool) == expected


@pytest.mark.parametrize(
    ("tool", "config"),
    [
        ("{kind: python, code: x, args: {a: 1}}", {"code": "x", "input": {"a": 1}}),
        (
            "{kind: python, code: x, args: {a: 1, b: 1}, input: {b: 2}}",
            {"code": "x", "input": {"a": 1, "b": 2}},
        ),
        ("{kind: python, code: x, args: [a]}", {"code": "x", "args": ["a"]}),
    ],
)
def test_args_of_a_tool(tool: str, config: Any) -> None:
    assert step(f"tool: {tool}").tasks[0].config == config


def test_workers_get_todays_form() -> None:
    read = step_of(
        "args: {q: 1}\nvars: {v: 1}\nwhen: a\ntimeout_seconds: 3\n"
        "loop: {in: [1], mode: parallel}\ncase: [{when: a, then: {next: t}}]\n"
        "tool: [{one: {kind: noop, args: {a: 1}, retry: 2, eval: [{expr: a, do: fail}]}}]\n"
    )
    assert not {"args", "vars", "timeout_seconds", "case", "next"} & read.raw.keys()
    assert read.raw["loop"] == {"in": [1], "spec": {"mode": "parallel"}}
    assert read.raw["tool"][0].keys() == {"name", "kind", "input", "spec"}
    again = parse_step(json.loads(json.dumps(read.raw)), KINDS)
    for part in ("tasks", "input", "set", "loop", "timeout", "guard", "needs"):
        assert getattr(again, part) == getattr(read, part), part
