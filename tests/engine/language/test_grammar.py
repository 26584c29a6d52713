"""The forms of a playbook: unknown keys, older spellings, and the JSON Schema made from them."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from app.engine.language.examine import examine
from app.engine.language.grammar.forms import FORMS
from app.engine.language.grammar.shapes import Either, ListOf, MapOf, Of, Older, Shape
from app.engine.language.grammar.walk import unusual_keys
from app.engine.language.source import read
from app.services.schema import schema_of
from app.wiring import ToolKinds

ROOT = Path(__file__).parents[3]
KINDS = ToolKinds()
SCHEMA = schema_of(KINDS)
VALIDATOR = Draft202012Validator(SCHEMA)
BLOCKS = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
EXAMPLES = sorted((ROOT / "playbooks").glob("*.yaml"))
HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t}\n"
RULE = "workflow: [{step: a, tool: [{kind: noop, spec: {policy: {rules: [{then: {%s}}]}}}]}]"


def documents() -> list[Any]:
    """Every playbook that ships, and every whole one on a page."""
    found = [pytest.param(path.read_text(), id=path.stem) for path in EXAMPLES]
    for page in (*ROOT.glob("docs/**/*.md"), ROOT / "README.md"):
        for number, block in enumerate(BLOCKS.findall(page.read_text())):
            # A page may show mistakes on purpose.
            whole = block.lstrip().startswith("apiVersion: noetl.io/v2")
            if whole and not examine(block, KINDS).errors:
                found.append(pytest.param(block, id=f"{page.stem} {number}"))
    return found


def codes(text: str) -> list[tuple[str, str, int, str]]:
    return [
        (each.code, each.severity, each.line, each.suggestion or "")
        for each in unusual_keys(read(HEAD + text))
    ]


@pytest.mark.parametrize(
    ("text", "code", "severity", "suggestion"),
    [
        ("workflow: [{step: a, tol: {kind: noop}}]", "unknown-key", "error", "'tool'"),
        ("workflow: [{step: a, next: {arcs: [{step: b, whn: x}]}}]", "unknown-key", "error", "'when'"),
        ("workflow: [{step: a, next: {arc: [{step: b}]}}]", "unknown-key", "error", "'arcs'"),
        ("workflow: [{step: a, next: {spec: {mod: inclusive}}}]", "unknown-key", "error", "'mode'"),
        ("workflow: [{step: a, loop: {in: [1], iteratr: n}}]", "unknown-key", "error", "'iterator'"),
        ("workflow: [{step: a, loop: {in: [1], spec: {max_in_fligt: 2}}}]", "unknown-key", "error",
         "'max_in_flight'"),
        ("workflow: [{step: a, spec: {timeot: 3}}]", "unknown-key", "warning", "'timeout'"),
        ("workflow: [{step: a, spec: {rules: []}}]", "unknown-key", "warning", "schema"),
        ("workflow: [{step: a, spec: {admit: {}}}]", "unknown-key", "warning", "below 'policy'"),
        (RULE % "attemps: 2", "unknown-key", "warning", "'attempts'"),
        (RULE % "dealy: 2", "unknown-key", "warning", "'delay'"),
        ("workflow: [{step: a, tool: [{t: {kind: noop, spec: {policy: {rulez: []}}}}]}]",
         "unknown-key", "warning", "'rules'"),
        ("executor: {spec: {entry_stp: a}}\nworkflow: [{step: a}]", "unknown-key", "warning",
         "'entry_step'"),
        ("workflow: [{step: a, set_ctx: {x: 1}}]", "refused-key", "error", "'set'"),
        ("vars: {x: 1}\nworkflow: [{step: a}]", "refused-key", "error", "'workload'"),
        ("workflow: [{step: a, next: b}]", "deprecated", "info", "arcs"),
        ("workflow: [{step: a, next: [b, c]}]", "deprecated", "info", "arcs"),
        ("workflow: [{step: a, when: x}]", "deprecated", "info", "arc"),
        ("workflow: [{step: a, loop: {in: [1], mode: parallel}}]", "deprecated", "info", "'spec'"),
        ("workflow: [{step: a, tool: {kind: noop, args: {}}}]", "deprecated", "info", "'input'"),
        ("workflow: [{step: a, tool: [{t: {kind: noop}}]}]", "deprecated", "info", "'name'"),
    ],
)  # fmt: skip
def test_a_key_that_is_not_quite_right(
    text: str, code: str, severity: str, suggestion: str
) -> None:
    found = codes(text)
    assert any(
        each[:2] == (code, severity) and each[2] >= 4 and suggestion in each[3] for each in found
    ), found


@pytest.mark.parametrize(
    "text",
    [
        "tracing: {on: true}\nspec: 1\nworkflow: [{step: a}]",
        "workflow: [{step: a, tool: {kind: http, url: x, anything: 1}}]",
        "workflow: [{step: a, tool: {kind: playbook, path: x, spec: {polcy: 1}}}]",
        "workflow: [{step: a, tool: [{name: x, kind: noop}, {kind: noop}]}]",
        "workflow: [{step: a, tool: {kind: python, code: x, input: {whn: 1, tol: 2}}}]",
        "workload: {tol: 1}\nworkflow: [{step: a, set: {ctx.whn: 1}}]",
        "keychain: [{name: k, kind: oauth2, endpoint: x, whatever: 1}]\nworkflow: [{step: a}]",
        "workflow: not a list",
        "workflow: [not a step, {step: a, tool: not a tool, loop: 7}]",
    ],
)
def test_what_is_free_or_not_for_this_check_is_left_alone(text: str) -> None:
    assert codes(text) == []


def test_a_slip_that_stands_beside_the_right_key_is_only_a_warning() -> None:
    ((code, severity, _, _),) = codes("workflow: [{step: a, next: {arcs: []}, nxt: {}}]")
    assert (code, severity) == ("unknown-key", "warning")


def test_a_key_is_reported_where_it_stands() -> None:
    (found,) = unusual_keys(read(HEAD + "workflow:\n  - step: a\n    pol: x\n"))
    assert (found.line, found.column, found.key) == (6, 5, "workflow.0.pol")


def test_every_key_says_what_it_is_for_in_one_sentence() -> None:
    for form in FORMS.values():
        for key in form.keys:
            assert re.fullmatch(r"[A-Z].*[^.]\.", key.about), f"{form.name}.{key.name}"
        names = [name for key in form.keys for name in key.names]
        assert len(names) == len(set(names)), form.name


def test_every_form_that_a_key_names_exists() -> None:
    def forms(shape: Shape) -> set[str]:
        match shape:
            case Of(form):
                return {form}
            case ListOf(item) | MapOf(item):
                return forms(item)
            case Either(options):
                return set().union(*map(forms, options))
            case Older(inner):
                return forms(inner)
            case _:
                return set()

    used = {name for form in FORMS.values() for key in form.keys for name in forms(key.shape)}
    assert used | {"playbook"} == set(FORMS)


# ---------------------------------------------------------------------- the schema
def test_the_schema_is_a_valid_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for kind in KINDS:
        Draft202012Validator.check_schema(schema_of(KINDS, kind))


@pytest.mark.parametrize("text", documents())
def test_every_playbook_we_show_fits_the_schema(text: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read(text).data)] == []


GOOD = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: t, path: a/b, tags: [x], anything: 1}
workload: {city: Oslo}
executor: {profile: local, requires: {tools: [http]}, spec: {entry_step: a, timeout: 5m}}
keychain: [{name: k, kind: secrets, map: {a: b}}]
workbook: [{name: w, tool: {kind: python, code: x}}]
unknown: {x: 1}
workflow:
  - step: a
    desc: text
    loop: {in: "{{ x }}", iterator: n, spec: {mode: parallel, max_in_flight: "{{ m }}"}}
    tool: {kind: http, endpoint: "{{ x }}", timeout: "{{ t }}", headers: "{{ h }}", extra: 1}
    set: {ctx.x: "{{ output }}"}
    timeout: 30s
    next: {spec: {mode: exclusive}, arcs: [{step: b, when: "{{ x }}", set: {ctx.y: 1}}]}
  - step: b
    tool:
      - {name: q, kind: postgres, auth: w, command: [a, b], params: [1]}
      - w: {kind: workbook, name: w}
      - {kind: shell, cmd: ls, env: {A: 1}, spec: {policy: {rules: [{when: x, then: {do: retry}}]}}}
    next: [c, {step: c, when: x}]
  - {step: c, tool: {kind: duckdb, spec: {query: x}}, next: d}
  - {step: d, tool: {kind: python, code: x, args: {a: 1}}}
"""


def test_the_forms_of_the_language_fit_the_schema() -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read(GOOD).data)] == []


def _put(value: Any, *path: str | int) -> Any:
    """A change of ``GOOD``: *value* at *path*; None removes what is there."""

    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        if value is None:
            del data[path[-1]]
        else:
            data[path[-1]] = value

    return change


STEP = ("workflow", 0)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_put("noetl.io/v3", "apiVersion"), id="version"),
        pytest.param(_put(None, "apiVersion"), id="no version"),
        pytest.param(_put("Book", "kind"), id="kind"),
        pytest.param(_put({"description": "x"}, "metadata"), id="no name"),
        pytest.param(_put([], "workflow"), id="no steps"),
        pytest.param(_put({"x": 1}, "vars"), id="vars"),
        pytest.param(_put("some", "executor", "profile"), id="profile"),
        pytest.param(_put(["htp"], "executor", "requires", "tools"), id="required tool"),
        pytest.param(_put(None, "keychain", 0, "name"), id="keychain without name"),
        pytest.param(_put(None, *STEP, "step"), id="step without name"),
        pytest.param(_put("x", *STEP, "stepp"), id="unknown key of a step"),
        pytest.param(_put({"x": 1}, *STEP, "set_ctx"), id="refused key"),
        pytest.param(_put("x", *STEP, "set"), id="set is text"),
        pytest.param(_put("soon", *STEP, "timeout"), id="timeout"),
        pytest.param(_put("htp", *STEP, "tool", "kind"), id="unknown tool"),
        pytest.param(_put(None, *STEP, "tool", "kind"), id="tool without kind"),
        pytest.param(_put(None, *STEP, "tool", "endpoint"), id="http without url"),
        pytest.param(_put("soon", *STEP, "tool", "timeout"), id="type of a tool's key"),
        pytest.param(_put(0, *STEP, "tool", "timeout"), id="bound of a tool's key"),
        pytest.param(_put("xml", *STEP, "tool", "response_type"), id="choice of a tool's key"),
        pytest.param(_put(None, "workflow", 3, "tool", "code"), id="python without code"),
        pytest.param(_put(None, "workflow", 1, "tool", 0, "command"), id="postgres without SQL"),
        pytest.param(_put(None, "workflow", 1, "tool", 0, "auth"), id="postgres without auth"),
        pytest.param(_put(None, "workflow", 1, "tool", 2, "cmd"), id="shell without program"),
        pytest.param(_put(None, "workflow", 2, "tool", "spec", "query"), id="duckdb without SQL"),
        pytest.param(_put([], "workflow", 3, "tool"), id="no tool in the list"),
        pytest.param(_put(None, *STEP, "loop", "in"), id="loop without collection"),
        pytest.param(_put({"kind": "postgres"}, *STEP, "loop", "cursor"), id="loop with both"),
        pytest.param(_put("many", *STEP, "loop", "spec", "mode"), id="loop mode"),
        pytest.param(_put(0, *STEP, "loop", "spec", "max_in_flight"), id="window"),
        pytest.param(_put("some", *STEP, "next", "spec", "mode"), id="next mode"),
        pytest.param(_put({"a": 1}, *STEP, "next", "arcs"), id="arcs are no list"),
        pytest.param(_put(None, *STEP, "next", "arcs", 0, "step"), id="arc without target"),
        pytest.param(_put("x", *STEP, "next", "arcs", 0, "whn"), id="unknown key of an arc"),
        pytest.param(
            _put("again", "workflow", 1, "tool", 2, "spec", "policy", "rules", 0, "then", "do"),
            id="action",
        ),
        pytest.param(
            _put(-1, "workflow", 1, "tool", 2, "spec", "policy", "rules", 0, "then", "attempts"),
            id="retry without bound",
        ),
        pytest.param(
            _put("odd", "workflow", 1, "tool", 2, "spec", "policy", "rules", 0, "then", "backoff"),
            id="backoff",
        ),
    ],
)  # fmt: skip
def test_each_mistake_that_a_schema_can_see_is_refused(change: Any) -> None:
    data = copy.deepcopy(read(GOOD).data)
    change(data)
    assert list(VALIDATOR.iter_errors(data))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_name_of_every_key_of_a_tool_is_in_the_schema(kind: str) -> None:
    known = set(SCHEMA["$defs"][f"tool-{kind}"]["properties"])
    for name, field in KINDS[kind].input.model_fields.items():
        alias = field.validation_alias
        assert set(getattr(alias, "choices", [alias or name])) <= known
        assert field.description, f"{kind}.{name} is not described"


def test_the_schema_of_one_tool_stands_alone() -> None:
    validator = Draft202012Validator(schema_of(KINDS, "http"))
    policy = {"policy": {"rules": [{"when": "x", "then": {"do": "fail"}}]}}
    assert not list(validator.iter_errors({"kind": "http", "url": "x", "spec": policy}))
    assert list(validator.iter_errors({"kind": "http"}))
    assert list(validator.iter_errors({"kind": "shell", "url": "x"}))


def test_the_schema_is_plain_json() -> None:
    assert yaml.safe_load(yaml.safe_dump(SCHEMA)) == SCHEMA
