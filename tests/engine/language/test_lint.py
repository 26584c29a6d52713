"""What is said of playbooks before they run: warnings, tool keys, and all mistakes at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.engine.language.codes import CODES
from app.engine.language.examine import Examined, examine
from app.engine.language.grammar.likeness import Likeness
from app.engine.language.lint.codes import LINT_CODES
from app.wiring import ToolKinds
from tests.conformance.case import all_cases

ROOT = Path(__file__).parents[3]
KINDS = ToolKinds()
MISTAKES = Path(__file__).parent / "mistakes.yaml"
HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t}\n"


def looked_at(text: str) -> Examined:
    return examine(HEAD + text, KINDS)


def told(text: str) -> list[tuple[str, int]]:
    """Code and line of everything but hints, counted from the line after the head."""
    return [
        (finding.code, finding.line - 3)
        for finding in looked_at(text).findings
        if finding.severity != "info"
    ]


def tool(text: str) -> str:
    return f"workflow:\n  - step: start\n    tool:\n      {text}\n"


# ---------------------------------------------------------------------- everything at once
def test_ten_different_mistakes_are_all_shown_with_their_lines() -> None:
    text = MISTAKES.read_text()
    found = examine(text, KINDS, name=MISTAKES.name).findings
    marked = {
        (number, code)
        for number, line in enumerate(text.splitlines(), 1)
        if "#:" in line
        for code in line.partition("#:")[2].split()
    }
    assert {(finding.line, finding.code) for finding in found} == marked
    assert len({code for _, code in marked}) >= 10
    assert [finding.line for finding in found] == sorted(finding.line for finding in found)
    assert all(finding.column for finding in found)


def test_text_that_is_no_playbook_gives_findings_and_no_exception() -> None:
    for text, code in [("a: [", "yaml-syntax"), ("", "yaml-empty"), ("[1]", "playbook-form")]:
        examined = examine(text, KINDS)
        assert [finding.code for finding in examined.errors] == [code]
        assert examined.playbook is None


def test_every_example_is_without_any_warning() -> None:
    for path in sorted((ROOT / "playbooks").glob("*.yaml")):
        assert examine(path.read_bytes(), KINDS, name=path.name).findings == (), path.name


def test_what_the_language_allows_is_no_error() -> None:
    for case in all_cases():
        if not case.refused:
            for text in (case.playbook, *case.children):
                assert examine(text, KINDS, name=case.name).errors == (), case.name


def test_every_code_of_a_warning_is_explained_once() -> None:
    assert not set(LINT_CODES) & set(CODES)
    for case in all_cases():
        for finding in examine(case.playbook, KINDS).findings:
            assert finding.code in {**LINT_CODES, **CODES}, finding


def test_near_words_are_looked_for_within_a_budget() -> None:
    likeness = Likeness(budget=5)
    assert likeness.near("citty", ["city", "country"], 0.8) == "city"
    assert likeness.near("citty", ["city", "country", "x"], 0.8) == "city"
    assert likeness.near("citty", ["city"], 0.8) is None


# ---------------------------------------------------------------------- the keys of tools
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{kind: python}", [("tool-key-missing", 3)]),
        ("{kind: python, code: ''}", [("tool-key-missing", 3)]),
        ("{kind: python, cod: x}", [("tool-key-missing", 3), ("tool-key-unknown", 4)]),
        ("{kind: http, method: GET}", [("tool-key-missing", 3)]),
        ("{kind: postgres, auth: w}", [("tool-key-missing", 3)]),
        ("{kind: postgres, sql: select}", [("tool-key-missing", 3)]),
        ("{kind: shell, env: {A: 1}}", [("tool-key-missing", 3)]),
        ("{kind: duckdb}", [("tool-key-missing", 3)]),
        ("{kind: playbook}", [("tool-key-missing", 3)]),
        ("{kind: http, url: x, timeout: soon}", [("tool-key-type", 4)]),
        ("{kind: http, url: x, timeout: -1}", [("tool-key-type", 4)]),
        ("{kind: http, url: ''}", [("tool-key-missing", 3)]),
        ("{kind: http, url: [x]}", [("tool-key-type", 4)]),
        ("{kind: http, url: x, response_type: xml}", [("tool-key-type", 4)]),
        ("{kind: http, spec: {url: x, timeout: soon}}", [("tool-key-type", 4)]),
        ("{kind: postgres, auth: w, script: {source: {type: ftp}}}", [("tool-key-type", 4)]),
        ("- {name: a, kind: noop}\n      - {name: b, kind: http}", [("tool-key-missing", 5)]),
        ("{kind: python, code: x, libs: [[math]]}", [("tool-key-type", 4), ("libs-form", 4)]),
        ("- {a: {kind: noop, mesage: x}}", [("tool-key-unknown", 4)]),
    ],
)  # fmt: skip
def test_a_tool_says_what_is_wrong_with_its_keys(
    text: str, expected: list[tuple[str, int]]
) -> None:
    assert told(tool(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{kind: http, url: '{{ u }}', timeout: '{{ t }}', headers: '{{ h }}', verify: '{{ v }}'}",
        "{kind: http, endpoint: x, timeout_seconds: 3, auth: {type: bearer, token: '{{ t }}'}}",
        "{kind: http, spec: {url: x}}",
        "{kind: http, url: x, '{{ key }}': 1}",
        "{kind: python, code_base64: x, libs: [json], env: {A: 1, B: true}, input: null}",
        "{kind: python, code: 'f\"{{x}}\"', args: {a: 1}}",
        "{kind: postgres, credential: w, commands: [a, '{{ b }}'], params: '{{ p }}'}",
        "{kind: shell, cmd: ls, shell: true}",
        "{kind: noop, name: x, desc: y, set: {ctx.a: 1}, spec: {policy: {rules: []}}}",
    ],
)
def test_templates_and_every_other_name_of_a_key_are_fine(text: str) -> None:
    assert told(tool(text)) == []


def test_an_unknown_key_is_no_error_because_it_always_was_ignored() -> None:
    examined = looked_at(tool("{kind: http, url: x, headrs: {}}"))
    assert examined.errors == ()
    (warning,) = examined.warnings
    assert warning.suggestion == "Did you mean 'headers'?"
    assert examined.accepted("t").steps.keys() == {"start"}


def test_a_wrong_value_is_not_repeated() -> None:
    (finding,) = looked_at(tool("{kind: http, url: x, timeout: hunter2}")).findings
    assert "hunter2" not in str(finding)
    assert finding.key == "workflow.0.tool.timeout"


def test_a_key_below_spec_is_reported_where_it_stands() -> None:
    text = "{kind: http, spec: {url: x, timeout: soon}}"
    (finding,) = looked_at(tool(text)).findings
    assert finding.key == "workflow.0.tool.spec.timeout"
    assert finding.column == 7 + text.index("timeout")


def test_words_that_yaml_takes_for_true_or_false_are_told() -> None:
    assert told("workload: {country: no}\nworkflow: [{step: a}]\n") == [("yaml-word", 1)]


def test_a_tool_of_the_workbook_is_checked_where_it_stands() -> None:
    text = "workbook:\n  - {name: w, tool: {kind: http, timeout: soon}}\nworkflow: [{step: a}]\n"
    assert told(text) == [("tool-key-type", 2)]


# ---------------------------------------------------------------------- routes
ARCS = "workflow:\n  - step: start\n    next: {next}\n  - step: a\n  - step: b\n"


@pytest.mark.parametrize(
    ("arcs", "expected"),
    [
        ("{arcs: [{step: a}]}", [("unreachable-step", 5)]),
        ("{arcs: [{step: a, when: x}, {step: b}]}", []),
        ("{spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}", []),
        ("[a, b]", []),
        ("{arcs: [{step: a}, {step: b, when: x}]}", [("arc-never", 3), ("unreachable-step", 5)]),
        ("{arcs: [{step: a, when: true}, {step: b}]}", [("arc-never", 3), ("unreachable-step", 5)]),
        ("{arcs: [{step: a}, {step: b, when: \"{{ event.name == 'call.error' }}\"}]}", []),
        ("{arcs: [{step: b, when: false}, {step: a}]}", [("arc-never", 3), ("unreachable-step", 5)]),
    ],
)  # fmt: skip
def test_steps_and_arcs_that_come_to_nothing(arcs: str, expected: list[tuple[str, int]]) -> None:
    assert told(ARCS.replace("{next}", arcs)) == expected


def test_a_join_that_can_never_fire() -> None:
    text = """workflow:
  - step: start
    next: {spec: {mode: inclusive}, arcs: [{step: a}, {step: b}]}
  - step: a
    next: {arcs: [{step: end}, {step: join}]}
  - step: b
    next: {arcs: [{step: join, when: false}]}
  - step: join
"""
    assert told(text) == [("arc-never", 5), ("arc-never", 7), ("join-never", 8)]


def test_the_final_step_and_the_entry_need_no_arc() -> None:
    text = "executor: {spec: {entry_step: b, final_step: a}}\nworkflow: [{step: a}, {step: b}]\n"
    assert told(text) == []


# ---------------------------------------------------------------------- names
NAMES = """workload: {{city: Oslo, country: Norway}}
keychain: [{{name: weather, kind: secrets}}]
workflow:
  - step: fetch
    input: {{given: 1}}
    tool:
      - {{name: first_task, kind: noop, set: {{iter.page: 1}}}}
      - {{kind: http, url: "{text}"}}
    set: {{ctx.total: 1}}
    next: {{arcs: [{{step: show, set: {{ctx.mark: 1}}}}]}}
  - step: show
    loop: {{in: [1], iterator: row}}
    tool: {{kind: python, code: "print(citty, f'{{{{citty}}}}')"}}
"""


@pytest.mark.parametrize(
    ("text", "code", "suggestion"),
    [
        ("{{ citty }}", "unknown-name", "'city'"),
        ("{{ workload.contry }}", "unknown-name", "'country'"),
        ("{{ ctx.totl }}", "unknown-name", "'total'"),
        ("{{ ctx['marks'] }}", "unknown-name", "'mark'"),
        ("{{ iter.pagee }}", "unknown-name", "'page'"),
        ("{{ shows.x }}", "unknown-name", "'show'"),
        ("{{ fist_task.x }}", "unknown-name", "'first_task'"),
        ("{{ execution_ids }}", "unknown-name", "'execution_id'"),
        ("{% if true %}{{ citty }}{% endif %}", "unknown-name", "'city'"),
        ("{{ steps.fetsh.x }}", "unknown-step", "'fetch'"),
        ("{{ steps.nothing_like_it }}", "unknown-step", ""),
        ("{{ keychain.wether.token }}", "keychain-undeclared", "'weather'"),
        ("{{ keychain.mail.token }}", "keychain-undeclared", "keychain"),
    ],
)
def test_a_name_that_nothing_gives(text: str, code: str, suggestion: str) -> None:
    (finding,) = looked_at(NAMES.format(text=text)).findings
    assert (finding.code, finding.severity, finding.line - 3) == (code, "warning", 8)
    assert suggestion in (finding.suggestion or "")


@pytest.mark.parametrize(
    "text",
    [
        "{{ city }}{{ workload.city }}{{ ctx.city }}{{ ctx.fetch.x }}{{ show }}{{ total }}",
        "{{ from_the_payload }}{{ workload.from_the_payload }}{{ ctx.anything }}",
        "{{ citty | default('x') }}",
        "{{ citty if citty is defined else 1 }}",
        "{% if citty %}{{ citty }}{% endif %}",
        "{{ citty or 'x' }}",
        "{% for citty in [1] %}{{ citty }}{% endfor %}",
        "{% set citty = 1 %}{{ citty }}",
        "{{ first_task.x }}{{ results.first_task }}{{ _prev }}{{ given }}{{ iter.page }}",
        "{{ keychain.weather.token }}{{ job.uuid }}{{ execution_id }}{{ range(3) }}",
        "{{ row }}{{ iter.row }}{{ iter._index }}{{ mark }}",
    ],
)
def test_a_name_that_something_may_give(text: str) -> None:
    assert told(NAMES.format(text=text)) == []


def test_a_condition_without_braces_is_read_as_well() -> None:
    text = "workload: {ready: true}\nworkflow:\n  - step: a\n    next:\n      arcs:\n"
    assert told(f"{text}        - {{step: end, when: redy == 1}}\n") == [("unknown-name", 6)]


def test_iter_in_a_step_without_loop() -> None:
    text = tool("{kind: noop, result: '{{ iter.row }}'}")
    assert told(text) == [("unknown-name", 4)]


# ---------------------------------------------------------------------- values
LOOP = "workload: {{row: 1}}\nworkflow:\n  - step: a\n    loop: {loop}\n    tool: {{kind: noop}}\n"


@pytest.mark.parametrize(
    ("loop", "expected"),
    [
        ("{in: [1], iterator: row}", ["iterator-hides"]),
        ("{in: [1], iterator: a}", ["iterator-hides"]),
        ("{in: [1], iterator: n, spec: {max_in_flight: 4}}", ["window-unused"]),
        ("{in: [1], iterator: n, spec: {max_in_flight: 1}}", []),
        ("{in: [1], iterator: n, spec: {mode: parallel, max_in_flight: 4}}", []),
    ],
)
def test_a_loop_that_contradicts_itself(loop: str, expected: list[str]) -> None:
    assert told(LOOP.format(loop=loop)) == [(code, 4) for code in expected]


@pytest.mark.parametrize(
    ("timeout", "delay", "expected"),
    [("2s", "3", True), ("5m", "3", False), ("10s", "20", False)],
)
def test_a_retry_that_never_comes(timeout: str, delay: str, expected: bool) -> None:
    rule = f"{{when: x, then: {{do: retry, delay: {delay}}}}}"
    text = f"workflow:\n  - step: a\n    timeout: {timeout}\n    tool:\n      kind: noop\n"
    text += f"      spec: {{policy: {{rules: [{rule}]}}}}\n"
    # A wait of more than five seconds is written into the log, and the timeout begins anew.
    assert told(text) == ([("retry-too-late", 6)] if expected else [])


# ---------------------------------------------------------------------- secrets
SECRETS = [
    "{kind: http, url: x, headers: {Authorization: 'Bearer abc123def456ghi789'}}",
    "{kind: http, url: 'https://me:hunter22@example.org/x'}",
    "{kind: postgres, auth: {host: h, password: hunter22}, sql: x}",
    "{kind: http, url: x, auth: {type: api_key, api_key: q8Zk2Lm9Xw4Rt7Pb}}",
    "{kind: shell, cmd: 'aws --key AKIAIOSFODNN7EXAMPLE'}",
    "{kind: python, code: 'key = \"-----BEGIN RSA PRIVATE KEY-----\"'}",
    "{kind: python, code: 'connect(\"host=h password=hunter22\")'}",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_in_the_text_is_seen_and_not_repeated(text: str) -> None:
    (finding,) = looked_at(tool(text)).findings
    assert (finding.code, finding.severity, finding.line) == ("secret-literal", "warning", 7)
    for value in ("hunter22", "abc123", "q8Zk2", "AKIAIO"):
        assert value not in str(finding.to_dict())


@pytest.mark.parametrize(
    "text",
    [
        "{kind: http, url: x, headers: {Authorization: 'Bearer {{ keychain.k.token }}'}}",
        "{kind: http, url: 'https://{{ user }}:{{ password }}@example.org/x'}",
        "{kind: postgres, auth: {password: '{{ keychain.k.password }}'}, sql: x}",
        "{kind: postgres, auth: {source: secret, name: warehouse_password}, sql: x}",
        "{kind: http, url: x, auth: {token: my_service_token}}",
        "{kind: http, url: x, auth: {password: <password>}}",
        "{kind: python, code: 'password = input[\"password\"]'}",
        "{kind: noop, result: 'the bearer of this letter may pass the gate freely'}",
    ],
)
def test_what_only_speaks_of_secrets_is_none(text: str) -> None:
    keychain = "keychain: [{name: k, kind: secrets}]\n"
    assert [code for code, _ in told(keychain + tool(text))] == []
