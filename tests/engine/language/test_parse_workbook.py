"""Workbook tools stand in the place of the steps that use them, and of what workers parse again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.engine.language.parse import parse_step
from app.engine.playbook import Task
from tests.engine.driver import KINDS
from tests.engine.language.parsing import HEAD, findings, step_of

WORKBOOK = """\
workbook:
- name: score
  desc: a number
  assert: {returns: [n]}
  tool:
    kind: python
    code: x
    input: {a: 1, b: 2}
    spec: {timeout: 3, policy: {rules: [{else: {do: continue}}]}}
- {name: older, type: python, code: y, args: {a: 1}}
- name: through
  tool: {kind: workbook, name: score, input: {b: 3, c: 4}}
- name: several
  tool: [{name: one, kind: noop, input: {a: 1}}, {kind: http, url: u}]
"""


def configs(tool: str) -> list[tuple[str, str, Any]]:
    read = step_of(f"tool: {tool}", WORKBOOK)
    return [(task.name, task.kind, dict(task.config)) for task in read.tasks]


@pytest.mark.parametrize(
    ("tool", "expected"),
    [
        pytest.param(
            "{kind: workbook, name: score}",
            [("s", "python", {"code": "x", "input": {"a": 1, "b": 2}, "timeout": 3})],
            id="by name",
        ),
        pytest.param(
            "{kind: workbook, name: label, task: score, input: {b: 9}}",
            [("s", "python", {"code": "x", "input": {"a": 1, "b": 9}, "timeout": 3})],
            id="by task, with input over its own",
        ),
        pytest.param(
            "{kind: workbook, name: older, args: {b: 2}, timeout: 7}",
            [("s", "python", {"code": "y", "input": {"a": 1, "b": 2}, "timeout": 7})],
            id="an older entry, older args and another key",
        ),
        pytest.param(
            "{kind: workbook, name: through, input: {c: 5}}",
            [("s", "python", {"code": "x", "input": {"a": 1, "b": 3, "c": 5}, "timeout": 3})],
            id="an entry that refers to another",
        ),
        pytest.param(
            "[{name: t1, kind: workbook, task: older}, {t2: {kind: workbook, name: older}}, "
            "{kind: workbook, name: older}, {kind: workbook, task: older}]",
            [
                (name, "python", {"code": "y", "input": {"a": 1}})
                for name in ("t1", "t2", "older", "task_3")
            ],
            id="inside a sequence its label is kept",
        ),
        pytest.param(
            "{kind: workbook, name: several, input: {b: 2}}",
            [
                ("one", "noop", {"input": {"a": 1, "b": 2}}),
                ("task_1", "http", {"url": "u", "input": {"b": 2}}),
            ],
            id="an entry may be a sequence",
        ),
    ],
)
def test_a_workbook_tool_is_put_in_place(tool: str, expected: list[Any]) -> None:
    assert configs(tool) == expected


def test_a_policy_of_the_step_wins_over_that_of_the_workbook() -> None:
    own = "spec: {policy: {rules: [{else: {do: break}}]}}"
    read = step_of(f"tool: {{kind: workbook, name: score, {own}}}", WORKBOOK)
    assert [rule.do for rule in read.tasks[0].rules] == ["break"]
    assert read.tasks[0].config["timeout"] == 3, "the rest of its spec stays"


@pytest.mark.parametrize("name", ["score", "older", "through", "several"])
def test_workers_need_no_workbook(name: str) -> None:
    read = step_of(f"tool: {{kind: workbook, name: {name}}}\ninput: {{z: 1}}", WORKBOOK)
    raw = json.loads(json.dumps(read.raw))
    assert "workbook" not in json.dumps(raw)
    again = parse_step(raw, KINDS)
    assert (again.tasks, again.sequence, again.input) == (read.tasks, read.sequence, {"z": 1})


def test_an_unused_entry_stays_away() -> None:
    assert step_of("tool: {kind: noop}", WORKBOOK).tasks == (Task("s", "noop", {}),)


STEP = "workflow:\n- step: s\n"


def test_both_ends_of_a_use_keep_their_own_lines() -> None:
    text = f"""{HEAD}workbook:
- name: a
  tool:
    kind: http
    url: '{{{{ x'
    spec:
      policy:
        rules:
        - else: {{do: nothing}}
workflow:
- step: s
  tool:
    kind: workbook
    name: a
    args:
      q: '{{{{ z'
"""
    assert [(found.code, found.line) for found in findings(text)] == [
        ("template", 8),
        ("rule-do", 12),
        ("template", 19),
    ]


def test_a_circle_through_a_list_ends() -> None:
    text = f"{HEAD}workbook:\n- {{name: a, tool: [{{kind: workbook, name: a}}]}}\n{STEP}"
    assert {(found.code, found.line) for found in findings(text)} == {
        ("workbook-cycle", 5),
        ("workbook-sequence", 5),
    }
