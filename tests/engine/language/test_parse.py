"""From YAML to playbook: every mistake has a code, a place and a hint; older forms are understood."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
import yaml

from app.engine.language.checks import duration
from app.engine.language.parse import parse, parse_source, parse_step
from app.engine.language.source import Source
from app.engine.playbook import Arc, Rule
from app.engine.templates.analysis import Needs
from app.errors import InvalidPlaybookError
from tests.engine.driver import KINDS
from tests.engine.language.parsing import HEAD, findings, playbook, step


def test_a_valid_playbook_is_read_whole() -> None:
    book = parse(
        """
        apiVersion: noetl.io/v2
        kind: Playbook
        metadata: {name: nightly, path: jobs/nightly, tags: [a]}
        workload: {n: 1}
        executor: {spec: {entry_step: first}}
        anything: else is ignored
        workflow:
        - step: last
          tool: {kind: noop}
        - step: first
          desc: begins
          tool: {kind: python, code: "{{ this is python }}"}
          timeout: 5m
          pool: big
          next: {spec: {mode: inclusive}, arcs: [{step: last, when: "{{ n }}", set: {ctx.a: 1}}]}
        """,
        KINDS,
    )
    assert (book.name, book.path, book.kind, book.entry) == (
        "nightly",
        "jobs/nightly",
        "Playbook",
        "first",
    )
    assert book.workload == {"n": 1}
    assert book.meta["tags"] == ["a"]
    first = book.steps["first"]
    assert first.tasks[0].config == {"code": "{{ this is python }}"}
    assert (first.kind, first.queue, first.timeout, first.pool) == ("python", "cpu", 300.0, "big")
    assert first.inclusive
    assert first.arcs == (Arc("last", "{{ n }}", {"ctx.a": 1}),)
    assert book.graph.reaches("first", "last")


# One mistake each: the head, the YAML below it, then what is said. Lines count from the head's first.
STEP = "- step: s\n  "
TOOL = f"{STEP}tool: {{kind: noop}}\n  "
START = "apiVersion: noetl.io/v2\nkind: Playbook\n"
NAME = "metadata: {name: t}\n"
FLOW = "workflow: [{step: start}]"
MISTAKES = [
    ("api-version", f"kind: Playbook\n{NAME}{FLOW}", 1, "noetl.io/v2"),
    ("api-version", f"apiVersion: v1\nkind: Playbook\n{NAME}{FLOW}", 1, "noetl.io/v2"),
    ("kind", f"apiVersion: noetl.io/v2\nkind: Play\n{NAME}{FLOW}", 2, "kind: Playbook"),
    ("metadata-name", f"{START}metadata: {{}}\n{FLOW}", 3, "name"),
    ("mapping", f"{HEAD}workload: [1]\n{FLOW}", 4, None),
    ("refused-key", f"{HEAD}vars: {{a: 1}}\n{FLOW}", 4, "workload"),
    ("workflow", HEAD, 1, None),
    ("workflow", f"{HEAD}workflow: []", 4, None),
    ("workflow", f"{HEAD}workflow: start", 4, None),
    ("entry-step", f"{HEAD}executor:\n  spec:\n    entry_step: strat\n{FLOW}", 6, "'start'"),
]
IN_STEP = [
    ("step-name", "- desc: no name\n", 1, None),
    ("step-name", "- 3\n", 1, None),
    ("duplicate-step", "- step: s\n- step: s\n", 2, None),
    ("arc-to-nowhere", f"{STEP}next: {{arcs: [{{step: stop}}]}}\n- step: stp\n", 2, "'stp'"),
    ("arc-to-nowhere", f"{STEP}next:\n  - stop\n- step: stp\n", 3, "'stp'"),
    ("arc-step", f"{STEP}next: {{arcs: [{{when: 'true'}}]}}", 2, None),
    ("next-form", f"{STEP}next: {{arcs: t}}", 2, None),
    ("next-form", f"{STEP}next: 7", 2, None),
    ("next-mode", f"{STEP}next: {{spec: {{mode: all}}, arcs: []}}", 2, "inclusive"),
    ("refused-key", f"{TOOL}set_ctx: {{a: 1}}", 3, "'set"),
    ("refused-key", f"{TOOL}set_iter: {{a: 1}}", 3, "iter."),
    ("refused-key", f"{TOOL}outcome: ok", 3, "policy"),
    ("refused-key", f"{STEP}result: {{a: 1}}", 2, "'set'"),
    ("refused-key", f"{STEP}type: python", 2, "kind"),
    ("unknown-key", f"{TOOL}nxt: end", 3, "'next'"),
    ("tool-missing", f"{STEP}loop: {{in: [1]}}", 2, "tool"),
    ("tool-missing", f"{STEP}input: {{a: 1}}", 2, "tool"),
    ("tool-missing", f"{STEP}args: {{a: 1}}", 2, "tool"),
    ("tool-missing", f"{STEP}desc: d\n  command: ls", 3, "tool"),
    ("tool-missing", f"{STEP}desc: d\n  code: x", 3, "tool"),
    ("tool-form", f"{STEP}tool: python", 2, None),
    ("tool-form", f"{STEP}tool: []", 2, None),
    ("tool-form", f"{STEP}tool:\n  - python", 3, None),
    ("tool-kind", f"{STEP}tool: {{code: x}}", 2, "http, noop, "),
    ("unknown-tool", f"{STEP}tool: {{kind: pyton}}", 2, "'python'"),
    ("unknown-tool", f"{STEP}tool: {{kind: zzz}}", 2, "http, noop, "),
    ("duplicate-task", f"{STEP}tool:\n  - {{name: a, kind: noop}}\n  - {{name: a, kind: noop}}", 4, None),
    ("timeout", f"{STEP}timeout: soon\n", 2, "5m"),
    ("timeout", f"{STEP}timeout: 0\n", 2, "5m"),
    ("timeout", f"{STEP}spec:\n    timeout: -1\n", 3, "5m"),
    ("mapping", f"{TOOL}set: [a]", 3, None),
    ("mapping", f"{TOOL}input: x", 3, None),
    ("loop-in", f"{TOOL}loop: {{iterator: x}}", 3, None),
    ("loop-mode", f"{TOOL}loop: {{in: [1], spec: {{mode: fast}}}}", 3, "parallel"),
    ("max-in-flight", f"{TOOL}loop: {{in: [1], spec: {{max_in_flight: 0}}}}", 3, None),
    ("iterator", f"{TOOL}loop: {{in: [1], iterator: [x]}}", 3, None),
    ("template", f"{STEP}tool: {{kind: noop, message: '{{{{ a'}}", 2, None),
    ("template", f"{STEP}set: {{ctx.a: '{{{{ a | gone }}}}'}}", 2, None),
    ("template", f"{STEP}next: {{arcs: [{{step: s, when: 'a =='}}]}}", 2, None),
    ("template", f"{TOOL}loop: {{in: '{{{{ }}}}'}}", 3, None),
]  # fmt: skip
IN_RULE = [
    ("rules", "{do: retry}", None),
    ("rule", "[retry]", None),
    ("rule", "[{do: retry}]", None),
    ("rule-then", "[{when: 'true'}]", None),
    ("rule-then", "[{when: 'true', then: retry}]", None),
    ("rule-then", "[{else: retry}]", None),
    ("rule-do", "[{when: 'true', then: {do: again}}]", "continue, retry, break, jump, fail"),
    ("backoff", "[{when: 'true', then: {do: retry, backoff: cubic}}]", "exponential"),
    ("number", "[{when: 'true', then: {do: retry, attempts: many}}]", None),
    ("retry-bound", "[{when: 'true', then: {do: retry, attempts: 0}}]", "attempts: 5"),
    ("retry-bound", "[{when: 'true', then: {do: retry, attempts: -1}}]", "attempts: 5"),
    ("retry-bound", "[{when: 'true', then: {do: retry, attempts: inf}}]", "attempts: 5"),
    ("retry-bound", "[{when: 'true', then: {do: retry, max_attempts: unlimited}}]", "attempts: 5"),
    ("number", "[{when: 'true', then: {do: retry, attempts: 2.5}}]", None),
    ("number", "[{when: 'true', then: {do: retry, attempts: '{{ n }}'}}]", None),
    ("number", "[{when: 'true', then: {do: retry, delay: -1}}]", None),
    ("flag", "[{when: 'true', then: {do: retry, jitter: maybe}}]", None),
    ("rule", "[{when: 'a', then: {when: 'b', do: fail}}]", "'and'"),
    ("condition", "[{when: [a], then: {do: fail}}]", "when:"),
    ("number", "[{when: 'true', then: {do: retry, delay: soon}}]", None),
    ("number", "[{when: 'true', then: {do: retry, max_delay: []}}]", None),
    ("template", "[{when: 'a ==', then: {do: fail}}]", None),
    ("template", "[{when: 'a', then: {set: {ctx.a: '{{ ('}}}]", None),
]


@pytest.mark.parametrize(
    ("code", "text", "line", "hint"),
    [
        *MISTAKES,
        *((code, f"{HEAD}workflow:\n{text}", 4 + line, hint) for code, text, line, hint in IN_STEP),
    ],
)
def test_a_mistake_has_its_code_its_place_and_a_hint(
    code: str, text: str, line: int, hint: str | None
) -> None:
    (found,) = findings(text)
    assert (found.code, found.line) == (code, line)
    assert found.column > 0
    assert (hint or "") in (found.suggestion or "")


@pytest.mark.parametrize(("code", "rules", "hint"), IN_RULE)
def test_a_mistake_in_a_policy_rule(code: str, rules: str, hint: str | None) -> None:
    text = f"{HEAD}workflow:\n{STEP}tool:\n    kind: noop\n    spec:\n      policy:\n        rules: {rules}"
    (found,) = findings(text)
    assert (found.code, found.line) == (code, 10)
    assert found.column >= 16
    assert (hint or "") in (found.suggestion or "")


def test_a_jump_to_nowhere_names_the_task_it_may_mean() -> None:
    rules = "{policy: {rules: [{when: 'a', then: {do: jump, to: fetsh}}]}}"
    tools = f"- {{name: fetch, kind: noop}}\n  - {{name: b, kind: noop, spec: {rules}}}"
    text = f"{HEAD}workflow:\n{STEP}tool:\n  {tools}"
    (found,) = findings(text)
    assert (found.code, found.line, found.suggestion) == ("jump", 8, "Did you mean 'fetch'?")


@pytest.mark.parametrize("text", ["just text", "- a\n- b", "3"])
def test_a_document_that_is_no_mapping_is_no_playbook(text: str) -> None:
    (found,) = findings(text)
    assert (found.code, found.line) == ("playbook-form", 1)


def test_all_mistakes_are_found_at_once_in_the_order_of_their_lines() -> None:
    found = findings(
        """kind: Playbook
metadata: {name: t}
workflow:
- step: a
  tool: {kind: pyton}
  next: {arcs: [{step: c}]}
- step: b
  timeout: soon
  tool:
    kind: noop
    message: "{{ x"
    spec: {policy: {rules: [{when: "y ==", then: {do: again}}]}}
"""
    )
    assert [(item.code, item.line) for item in found] == [
        ("api-version", 1),
        ("unknown-tool", 5),
        ("arc-to-nowhere", 6),
        ("timeout", 8),
        ("template", 11),
        ("template", 12),
        ("rule-do", 12),
    ]
    assert [item.key for item in found][1:4] == [
        "workflow.0.tool.kind",
        "workflow.0.next.arcs.0.step",
        "workflow.1.timeout",
    ]


def test_the_error_shows_place_message_and_hint_in_one_line_each() -> None:
    with pytest.raises(InvalidPlaybookError) as caught:
        parse(f"{HEAD}workflow:\n- step: s\n  tool: {{kind: pyton}}", KINDS, name="job.yaml")
    assert str(caught.value) == (
        "job.yaml is not valid:\n  line 6, column 16: there is no tool of the kind 'pyton'. "
        "Did you mean 'python'? [unknown-tool]"
    )


ODD: list[Any] = [None, True, 7, "", "x", "{{ x", [], [[]], {}, {"step": {}}, {"a": [1]}]
WHOLE = yaml.safe_load(
    """
    {apiVersion: noetl.io/v2, kind: Playbook, metadata: {name: t}, workload: {n: 1},
     executor: {profile: local, requires: {tools: [noop], features: [f]},
      spec: {entry_step: s, final_step: u, no_next_is_error: false, timeout: 3,
             policy: {limits: {max_visits: 3}}}},
     keychain: [{name: k, kind: secrets, map: {a: "{{ b }}"}}],
     workbook: [{name: w, tool: {kind: noop, input: {a: 1}}}, {name: o, type: noop, a: 1},
                {name: l, tool: [{kind: noop}, {kind: workbook, name: w}]}],
     workflow: [
      {step: c, tool: {kind: workbook, name: w, input: {b: 1}}, timeout_seconds: 1, when: z,
       loop: {cursor: {kind: postgres, claim: x, auth: a, options: {b: 1}}, iterator: i,
              spec: {mode: cursor, frame: {max_rows: 1, process: row, lease_seconds: 3}}},
       spec: {policy: {admit: {mode: exclusive, rules: [{when: x, then: {allow: true}},
                                                        {else: {then: {allow: false}}}]}}},
       output: {store: {kind: auto}, output_select: [a.b], select: [{path: a, as: c}]}},
      {step: d, tool: [{kind: workbook, task: o, name: q}, {kind: noop, args: {a: 1},
        retry: {max_attempts: 2, backoff_seconds: 1, retry_on_status: [500], retry_on: [timeout]},
        eval: [{expr: a, do: fail, set_ctx: {b: 1}}, {else: {do: retry}}]}], vars: {a: 1},
       args: {b: 1}, case: [{when: x, then: [{set: {a: 1}}, {next: [{step: s, args: {b: 2}}]}],
                             else: [{next: u}]}]},
      {step: e, tool: {kind: python, script: {uri: u, source: {type: file}}, libs: {a: b}},
       loop: {in: [1], mode: parallel, max_in_flight: 2}, next: u},
      {step: f, tool: {kind: workbook, name: l}},
      {step: s, timeout: 3, input: {a: 1}, set: {ctx.a: 1}, spec: {timeout: 2}, pool: p,
       loop: {in: [1], iterator: i, spec: {mode: parallel, max_in_flight: 2}},
       tool: [{name: a, kind: noop, set: {b: 1}, spec: {policy: {rules: [
        {when: x, then: {do: retry, attempts: 2, delay: 1, backoff: fixed, max_delay: 3, to: a,
                         set: {ctx.c: 1}}}, {else: {then: {do: fail}}}]}}}, {b: {kind: noop}}],
       next: {spec: {mode: inclusive}, arcs: [{step: t, when: y, set: {d: 1}}]}},
      {step: t, tool: {kind: python, code: x}, next: [{step: s, when: z}, u]}, {step: u}]}
    """
)


def _places(data: Any) -> list[tuple[Any, Any]]:
    """Every container in *data* with each of its keys."""
    pairs = list(data.items() if isinstance(data, dict) else enumerate(data))
    below = [item for _, item in pairs if isinstance(item, dict | list)]
    own = [(data, key) for key, _ in pairs]
    return own + [place for item in below for place in _places(item)]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_value_anywhere_is_a_finding_and_never_a_crash(odd: Any) -> None:
    data = copy.deepcopy(WHOLE)
    for container, key in _places(data):
        kept, container[key] = container[key], odd
        with contextlib.suppress(InvalidPlaybookError):
            assert parse_source(Source(data), KINDS).steps
        container[key] = kept
    assert data == WHOLE, "reading changes nothing"


def test_the_playbook_that_is_made_odd_is_right_as_it_is() -> None:
    assert len(parse_source(Source(WHOLE), KINDS).steps) == 7


# ---------------------------------------------------------------------- forms
@pytest.mark.parametrize(
    ("next_", "arcs", "inclusive"),
    [
        pytest.param("next: {arcs: [{step: t}, {step: u}]}", ["t", "u"], False, id="arcs"),
        pytest.param(
            "next: {spec: {mode: inclusive}, arcs: [{step: t}]}", ["t"], True, id="inclusive"
        ),
        pytest.param("next: {spec: {mode: exclusive}}", [], False, id="a spec alone"),
        pytest.param("next: {arcs: }", [], False, id="no arcs"),
        pytest.param("next: t", ["t"], False, id="a name"),
        pytest.param("next: {step: t}", ["t"], False, id="one arc"),
        pytest.param("next: [t, u]", ["t", "u"], True, id="a list of names runs in parallel"),
        pytest.param("next: [{step: t}, {step: u}]", ["t", "u"], True, id="so does one of arcs"),
        pytest.param(
            "next: [{step: t, when: a}, {step: u}]", ["t", "u"], False, id="conditions: the first"
        ),
        pytest.param("next: end", ["end"], False, id="end need not be a step"),
        pytest.param("next: ", [], False, id="nothing"),
        pytest.param("desc: d", [], False, id="no next at all"),
    ],
)
def test_forms_of_next(next_: str, arcs: list[str], inclusive: bool) -> None:
    read = step(next_)
    assert [arc.step for arc in read.arcs] == arcs
    assert read.inclusive is inclusive


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("event.name == 'call.error'", True),
        ("{{ output.status == 'error' }}", True),
        ("output.error.kind == 'auth'", True),
        ("s.error is defined", True),
        ("s.status == 'error'", True),
        ("t.error", False),
        ("output.rows", False),
        ("true", False),
    ],
)
def test_arcs_that_speak_of_failure(when: str, expected: bool) -> None:
    (arc,) = step(f'next: {{arcs: [{{step: t, when: "{when}"}}]}}').arcs
    assert arc.names_failure is expected


@pytest.mark.parametrize(
    ("tool", "names", "sequence"),
    [
        pytest.param("{kind: noop}", ["s"], False, id="a mapping is a single tool"),
        pytest.param("{kind: noop, name: a}", ["a"], False, id="with a name"),
        pytest.param("[{kind: noop}]", ["task_0"], True, id="a list of one is a sequence"),
        pytest.param(
            "[{name: a, kind: noop}, {kind: noop}]", ["a", "task_1"], True, id="names or numbers"
        ),
        pytest.param(
            "[{a: {kind: noop}}, {b: {kind: noop}}]", ["a", "b"], True, id="labels as keys"
        ),
    ],
)
def test_forms_of_tool(tool: str, names: list[str], sequence: bool) -> None:
    read = step(f"tool: {tool}")
    assert [task.name for task in read.tasks] == names
    assert read.sequence is sequence


def test_a_step_without_tool_does_nothing() -> None:
    read = step("desc: a router, set: {ctx.a: 1}")
    assert (read.kind, read.tasks[0].config, read.sequence) == ("noop", {}, False)


def test_keys_of_the_tool_may_stand_below_its_spec() -> None:
    read = step(
        "tool: {kind: http, url: own, spec: {url: below, method: GET, policy: {rules: []}}}"
    )
    assert read.tasks[0].config == {"url": "own", "method": "GET"}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param("{when: a, then: {do: fail}}", Rule("a", "fail"), id="when and then"),
        pytest.param("{when: true, then: {do: break}}", Rule(True, "break"), id="a boolean"),
        pytest.param("{else: {then: {do: continue}}}", Rule(None, "continue"), id="else"),
        pytest.param("{else: {do: continue}}", Rule(None, "continue"), id="else without then"),
        pytest.param(
            "{when: a, then: {set: {ctx.x: 1}}}", Rule("a", "", set={"ctx.x": 1}), id="only set"
        ),
        pytest.param(
            "{when: a, then: {do: retry, attempts: '4', delay: 500ms, backoff: linear, "
            "max_delay: 1m, jitter: true}}",
            Rule("a", "retry", 4, 0.5, "linear", 60.0, jitter=True),
            id="every part of a retry",
        ),
        pytest.param(
            "{when: a, then: {do: jump, to: previous}}", Rule("a", "jump", to="previous"), id="jump"
        ),
    ],
)
def test_forms_of_rules(rule: str, expected: Rule) -> None:
    read = step(f"tool: [{{kind: noop, spec: {{policy: {{rules: [{rule}]}}}}}}]")
    assert read.tasks[0].rules == (expected,)


@pytest.mark.parametrize(
    ("loop", "iterator", "parallel", "window"),
    [
        ("{in: [1]}", "item", False, None),
        ("{in: [1], iterator: x, spec: {mode: parallel, max_in_flight: 3}}", "x", True, 3),
        ("{in: [1], mode: async}", "item", True, None),
        ("{in: [1], spec: {mode: parallel, max_in_flight: '{{ n }}'}}", "item", True, "{{ n }}"),
    ],
)
def test_forms_of_loop(loop: str, iterator: str, parallel: bool, window: Any) -> None:
    read = step(f"tool: {{kind: noop}}, loop: {loop}").loop
    assert read is not None
    assert (read.iterator, read.parallel, read.max_in_flight) == (iterator, parallel, window)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (30, 30.0), (0.5, 0.5), ("30", 30.0), ("30s", 30.0), ("250ms", 0.25), ("5m", 300.0), ("2h", 7200.0),
        ("1d", 86400.0), (" 1.5 h ", 5400.0), ("", None), ("soon", None), ("5 years", None), ("-5s", None),
        (None, None), (True, None), ([], None), (float("nan"), None), (float("inf"), None),
    ],
)  # fmt: skip
def test_durations(written: Any, seconds: float | None) -> None:
    assert duration(written) == seconds


# ---------------------------------------------------------------------- which playbook, which entry
@pytest.mark.parametrize(
    ("head", "path"),
    [
        ("metadata: {name: n, path: p}", "p"),
        ("metadata: {name: n}\npath: p", "p"),
        ("metadata: {name: n}", "n"),
    ],
)
def test_the_path(head: str, path: str) -> None:
    book = playbook("- step: s", f"apiVersion: noetl.io/v10\nkind: Agent\n{head}\n")
    assert book.path == path
    assert book.kind == "Agent"


@pytest.mark.parametrize(
    ("steps", "entry"), [("- step: a\n- step: start", "start"), ("- step: a\n- step: b", "a")]
)
def test_the_entry(steps: str, entry: str) -> None:
    assert playbook(steps).entry == entry


# ---------------------------------------------------------------------- what a step needs
@pytest.mark.parametrize(
    ("keys", "needs"),
    [
        pytest.param("tool: {kind: noop}", Needs(), id="nothing"),
        pytest.param(
            "tool: {kind: http, url: '{{ a }}{{ workload.b }}'}, input: {x: '{{ ctx.c }}'}",
            Needs(frozenset("ac"), frozenset("b")),
            id="tool and input",
        ),
        pytest.param(
            "tool: {kind: noop, set: {x: '{{ a }}'}, spec: {policy: {rules: "
            "[{when: b, then: {set: {y: '{{ c }}'}}}]}}}",
            Needs(frozenset("abc")),
            id="its set and its rules",
        ),
        pytest.param(
            "tool: {kind: noop, message: {'{{ a }}': {'{{ b }}': 1}}}, input: {'{{ c }}': 2}",
            Needs(frozenset("abc")),
            id="keys are rendered too",
        ),
        pytest.param(
            """tool: {kind: python, code: 'f"{{ a }}" # {{ b }}'}""",
            Needs(),
            id="code is left alone",
        ),
        pytest.param(
            "tool: {kind: python, code: 'x = {{ a }}'}",
            Needs(frozenset("a")),
            id="but for what can only be a template",
        ),
        pytest.param(
            "tool: {kind: python, code: 'variables[0]'}",
            Needs(everything=True),
            id="code that reads variables needs everything",
        ),
        pytest.param(
            "tool: {kind: noop}, set: {ctx.a: '{{ b }}'}, next: {step: t, when: c}",
            Needs(),
            id="what the orchestrator evaluates is not the worker's",
        ),
    ],
)
def test_needs(keys: str, needs: Needs) -> None:
    assert step(keys).needs == needs


def test_a_worker_reads_the_same_step_from_its_raw_form() -> None:
    read = step("tool: [{kind: python, code: x}, {name: b, kind: noop}], timeout: 3, next: t")
    again = parse_step(read.raw, KINDS)
    assert (again.tasks, again.timeout, again.needs) == (read.tasks, read.timeout, read.needs)
    assert again.arcs == (), "arcs are not a worker's business"


def test_a_worker_is_told_what_is_wrong_with_a_raw_step() -> None:
    with pytest.raises(InvalidPlaybookError, match="step s"):
        parse_step({"step": "s", "tool": {"kind": "gone"}}, KINDS)
