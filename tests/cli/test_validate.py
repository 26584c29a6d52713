"""``callboard validate`` and ``callboard schema``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from app.engine.language.source import read
from tests.cli.fakes import Call
from tests.cli.test_run import GOOD, HEAD, INVALID

SLIPS = f"""{HEAD}workflow:
  - step: start
    tool: {{kind: noop, mesage: hello}}
"""
OLDER = f"{HEAD}workflow: [{{step: start, next: end}}]\n"
RESOURCE = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with good, bad and foreign files in it and below it."""
    (tmp_path / "below").mkdir()
    for name, text in {
        "good.yaml": GOOD,
        "invalid.yml": INVALID,
        "below/slips.yaml": SLIPS,
        "below/resource.yaml": RESOURCE,
        "below/values.yaml": "a: 1\n",
        "below/readme.txt": "no YAML",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_finding_is_a_line_that_editors_understand_with_a_hint(
    call: Call, folder: Path
) -> None:
    result = call("validate", "invalid.yml")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "invalid.yml:7:26: error[arc-to-nowhere] step 'start' leads to 'nowhere', which is no step.",
        "    hint: Did you mean 'other'?",
        "invalid.yml:9:18: error[unknown-tool] there is no tool of the kind 'nope'.",
        "    hint: Did you mean 'noop'?",
        "1 file: 2 errors, 0 warnings",
    ]
    assert result.stderr == "error: 1 of 1 cannot run as written\n"


def test_a_good_file_is_exit_code_0(call: Call, folder: Path) -> None:
    result = call("validate", "good.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "1 file: 0 errors, 0 warnings\n"


def test_a_folder_is_searched_and_what_is_no_playbook_is_skipped(call: Call, folder: Path) -> None:
    result = call("validate", ".")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert "below/resource.yaml: skipped, it is of the kind ConfigMap" in lines
    assert "below/values.yaml: skipped, it is no playbook" in lines
    assert any(
        line.startswith("below/slips.yaml:6:24: warning[tool-key-unknown] ") for line in lines
    )
    assert lines[-1] == "3 files: 2 errors, 1 warning; 2 files skipped"
    assert result.stderr == "error: 1 of 3 cannot run as written\n"


def test_a_foreign_file_that_is_named_is_not_skipped(call: Call, folder: Path) -> None:
    result = call("validate", "below/resource.yaml")
    assert result.exit_code == 1
    assert "below/resource.yaml:2:7: error[kind] " in result.stdout


def test_strict_counts_warnings_as_errors_and_hints_as_neither(call: Call, folder: Path) -> None:
    assert call("validate", "below/slips.yaml").exit_code == 0
    strict = call("validate", "below/slips.yaml", "--strict")
    assert strict.exit_code == 1
    assert strict.stderr == "error: 1 of 1 is not as it should be\n"
    (folder / "older.yaml").write_text(OLDER)
    older = call("validate", "older.yaml", "--strict")
    assert older.exit_code == 0
    assert "older.yaml:4:26: info[deprecated] " in older.stdout
    assert older.stdout.endswith("1 file: 0 errors, 0 warnings, 1 hint\n")


def test_stdin_is_read_for_a_dash(call: Call) -> None:
    result = call("validate", "-", stdin=INVALID)
    assert result.exit_code == 1
    assert result.stdout.startswith("stdin:7:26: error[arc-to-nowhere] ")


def test_json_has_every_finding_in_full(call: Call, folder: Path) -> None:
    result = call("validate", ".", "--json")
    found = {row["file"]: row for row in json.loads(result.stdout)}
    assert {name: row["valid"] for name, row in found.items()} == {
        "below/resource.yaml": True,
        "below/slips.yaml": True,
        "below/values.yaml": True,
        "good.yaml": True,
        "invalid.yml": False,
    }
    assert found["below/values.yaml"]["skipped"] == "it is no playbook"
    assert found["invalid.yml"]["findings"][0] == {
        "code": "arc-to-nowhere",
        "severity": "error",
        "message": "step 'start' leads to 'nowhere', which is no step.",
        "line": 7,
        "column": 26,
        "path": "workflow.0.next.arcs.0.step",
        "suggestion": "Did you mean 'other'?",
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("missing.yaml",), "error: there is no file missing.yaml\n"),
        (("empty",), "error: there is no .yaml file in empty\n"),
    ],
)
def test_a_place_with_nothing_to_check(
    call: Call, folder: Path, words: tuple[str, ...], message: str
) -> None:
    (folder / "empty").mkdir()
    result = call("validate", *words)
    assert (result.exit_code, result.stderr) == (1, message)


def test_a_file_that_is_no_text_has_a_finding(call: Call, folder: Path) -> None:
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    result = call("validate", "binary.yaml")
    assert result.exit_code == 1
    assert "binary.yaml: error[yaml-encoding] " in result.stdout


def test_run_refuses_what_validate_does(call: Call, folder: Path) -> None:
    (folder / "keys.yaml").write_text(f"{HEAD}workflow: [{{step: start, tool: {{kind: http}}}}]\n")
    result = call("run", "keys.yaml")
    assert result.exit_code == 1
    assert "[tool-key-missing]" in result.stderr


def test_the_schema_checks_playbooks(call: Call) -> None:
    schema = json.loads(call("schema").stdout)
    assert not list(Draft202012Validator(schema).iter_errors(read(GOOD).data))
    assert list(Draft202012Validator(schema).iter_errors(read(SLIPS.replace("noop", "nope")).data))


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ("{step: a, tol: {kind: noop}}", "workflow.0"),
        ("{tool: {kind: noop}}", "workflow.0"),
        ("{step: a, tool: {kind: htpp, url: x}}", "workflow.0.tool"),
        ("{step: a, tool: {url: x}}", "workflow.0.tool"),
        ("{step: a, tool: {kind: http, urll: x}}", "workflow.0.tool"),
        ("{step: a, tool: {kind: http, url: x, timeout: soon}}", "workflow.0.tool"),
        ("{step: a, tool: {kind: duckdb, query: x, threads: many}}", "workflow.0.tool"),
        ("{step: a, tool: [{name: b, kind: shell}]}", "workflow.0.tool"),
        ("{step: a, timeout: 5 parsecs, tool: {kind: noop}}", "workflow.0.timeout"),
        ("{step: a, loop: {iterator: x}, tool: {kind: noop}}", "workflow.0.loop"),
        ("{step: a, loop: {in: [1], iteratr: x}, tool: {kind: noop}}", "workflow.0.loop"),
        (
            "{step: a, loop: {in: [1], iterator: x, spec: {mode: paralel}}, tool: {kind: noop}}",
            "workflow.0.loop.spec.mode",
        ),
        ("{step: a, next: {arc: [{step: b}]}}", "workflow.0.next"),
        ("{step: a, next: {arcs: [{step: b, wen: x}]}}", "workflow.0.next"),
        (
            "{step: a, tool: {kind: noop, spec: {policy: {rules: [{then: {do: rety}}]}}}}",
            "workflow.0.tool",
        ),
    ],
)
def test_the_schema_flags_a_slip_at_its_place(call: Call, step: str, place: str) -> None:
    """Editors show it there while it is being typed."""
    schema = json.loads(call("schema").stdout)
    Draft202012Validator.check_schema(schema)
    document = read(f"{HEAD}workflow: [{step}]\n").data
    found = Draft202012Validator(schema).iter_errors(document)
    assert {".".join(map(str, error.absolute_path)) for error in found} == {place}


def test_the_schema_of_one_tool(call: Call) -> None:
    schema = json.loads(call("schema", "--tool", "http").stdout)
    assert {"url", "endpoint", "method"} <= schema["properties"].keys()
    unknown = call("schema", "--tool", "htp")
    assert unknown.exit_code == 1
    assert unknown.stderr.startswith("error: there is no tool of the kind 'htp' (known kinds: ")


def test_the_server_can_be_asked_for_both(
    call: Call, folder: Path, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOETL_SERVER_URL", api)
    here, there = call("validate", "."), call("validate", ".", "--remote")
    assert (there.stdout, there.exit_code) == (here.stdout, here.exit_code)
    for words in (("schema",), ("schema", "--tool", "shell")):
        assert json.loads(call(*words, "--remote").stdout) == json.loads(call(*words).stdout)


def test_registering_tells_warnings_beside_the_answer(
    call: Call, folder: Path, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOETL_SERVER_URL", api)
    result = call("register", "-f", "below/slips.yaml")
    assert result.exit_code == 0
    assert result.stderr.startswith("below/slips.yaml:6:24: warning[tool-key-unknown] ")
    assert "registered test/t version " in result.stdout
