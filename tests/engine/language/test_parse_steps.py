"""What a step says of itself: admission, output, how it ends, and that the engine has no secrets."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.playbook import AdmitRule, Rule
from tests.engine.language.parsing import HEAD, findings, step, step_of


# ---------------------------------------------------------------------- admission
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ("[]", ()),
        (
            "[{when: '{{ n }}', then: {allow: true}}, {else: {then: {allow: false}}}]",
            (AdmitRule("{{ n }}", True), AdmitRule(None, False)),
        ),
        ("[{when: a, then: {allow: 'false'}}]", (AdmitRule("a", False),)),
        ("[{else: {allow: 'True'}}]", (AdmitRule(None, True),)),
        (
            "[{when: a, then: {allow: true}, else: {allow: false}}]",
            (AdmitRule("a", True), AdmitRule(None, False)),
        ),
    ],
)
def test_admission(rules: str, expected: tuple[AdmitRule, ...]) -> None:
    policy = f"{{admit: {{mode: exclusive, rules: {rules}}}, lifecycle: {{}}, failure: {{}}, emit: {{}}}}"
    assert step(f"spec: {{policy: {policy}}}").admit == expected


# ---------------------------------------------------------------------- output
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("tool: {kind: noop}", {}),
        ("tool: {kind: noop}, output: {store: {kind: auto}}", {}),
        (
            "tool: {kind: noop}, output: {output_select: [a, b.c.d]}",
            {"a": "a", "d": "b.c.d"},
        ),
        (
            "tool: {kind: noop}, output: {select: [{path: b.c, as: x}, {path: y}]}",
            {"x": "b.c", "y": "y"},
        ),
        ("tool: {kind: noop}, output_select: {x: b.c}", {"x": "b.c"}),
        ("tool: {kind: noop, output_select: [b.c], output: {select: [d]}}", {"c": "b.c", "d": "d"}),
        ("tool: [{kind: noop, output_select: a.b}, {kind: noop}]", {"b": "a.b"}),
        ("tool: {kind: noop, output_select: [a.b]}, output: {output_select: [a.b]}", {"b": "a.b"}),
    ],
)
def test_selected_output(keys: str, expected: Any) -> None:
    read = step(keys)
    assert read.output_select == expected
    assert all(not {"output", "output_select"} & task.config.keys() for task in read.tasks)


# ---------------------------------------------------------------------- arcs and rules
def test_a_branch_may_end_without_a_word() -> None:
    assert step("next: {spec: {on_no_match: quiet}, arcs: [{step: t, when: a}]}").quiet
    assert not step("next: {spec: {on_no_match: complete}, arcs: []}").quiet
    assert not step("next: t").quiet


def test_several_arcs_to_one_step_are_fine() -> None:
    assert [arc.step for arc in step("next: [t, t]").arcs] == ["t", "t"]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (
            "{rules: [{when: a, then: {do: retry}}], on_unmatched: fail}",
            [Rule("a", "retry"), Rule(None, "fail")],
        ),
        (
            "{mode: exclusive, rules: [{when: a, then: {do: retry}}], on_unmatched: continue}",
            [Rule("a", "retry"), Rule(None, "continue")],
        ),
        (
            "{rules: [{else: {do: break}}], on_unmatched: fail}",
            [Rule(None, "break")],
        ),
        ("{on_unmatched: fail}", []),
        (
            "{rules: [{when: a, then: {do: fail}, else: {do: break}}]}",
            [Rule("a", "fail"), Rule(None, "break")],
        ),
        ("{rules: [{then: {when: a, do: fail}}]}", [Rule("a", "fail")]),
        ("{rules: [{when: a, then: {when: true, do: fail}}]}", [Rule("a", "fail")]),
        ("{rules: [{else: {when: true, do: fail}}]}", [Rule(None, "fail")]),
        ("{rules: [{else: true, then: {do: fail}}]}", [Rule(None, "fail")]),
        (
            "{rules: [{when: a, then: {do: retry, delay_seconds: 2, cap: 9, backoff: constant}}]}",
            [Rule("a", "retry", 3, 2.0, "fixed", 9.0)],
        ),
        (
            "{rules: [{when: a, then: {do: retry, max_delay_seconds: 9, jitter: 'false'}}]}",
            [Rule("a", "retry", max_delay=9.0)],
        ),
        ("{rules: [{when: a, then: {do: retry, attempts: }}]}", [Rule("a", "retry", 3)]),
    ],
)
def test_forms_of_policies(policy: str, expected: list[Rule]) -> None:
    read = step(f"tool: {{kind: noop, spec: {{policy: {policy}}}}}")
    assert list(read.tasks[0].rules) == expected


@pytest.mark.parametrize(
    "tool",
    [
        "{kind: python, script: main.py}",
        "{kind: python, script: {uri: 'gs://b/x.py', source: {type: gcs, auth: a}}}",
        "{kind: python, script: {source: {type: inline, code: x}}}",
        "{kind: python, code: x, libs: }",
        "{kind: python, code: x, libs: {np: numpy, sqrt: {from: math, import: sqrt}}}",
        "{kind: python, code: x, libs: [json]}",
    ],
)
def test_scripts_and_libs_are_handed_on(tool: str) -> None:
    task = step(f"tool: {tool}").tasks[0]
    assert {"script", "libs"} & task.config.keys()


# ---------------------------------------------------------------------- secrets and routers
CURSOR = "cursor: {kind: postgres, auth: '{{ keychain.a.b }}', claim: x}"


def test_secrets_may_be_named_where_a_worker_renders() -> None:
    secret = "'{{ keychain.a.b }}'"
    read = step_of(
        f"tool: {{kind: http, url: u, headers: {{x: {secret}}}, set: {{ctx.a: {secret}}}}}\n"
        f"input: {{y: {secret}}}\nloop: {{{CURSOR}}}\n"
    )
    assert "keychain" in read.needs.names
    assert step("set: {ctx.a: '{{ workload.keychain.x }}'}").set, (
        "a key of the workload is no secret"
    )


def test_a_router_names_every_key_that_needs_a_tool() -> None:
    text = f"{HEAD}workflow:\n- step: s\n  command: ls\n  url: u\n  args: {{a: 1}}\n  when: a\n"
    assert [(found.code, found.line) for found in findings(text)] == [
        ("tool-missing", 6),
        ("tool-missing", 7),
        ("tool-missing", 8),
    ]
    assert ["'command'" in found.message for found in findings(text)] == [True, False, False]
