"""``callboard run``: playbooks in this process."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.fakes import Call
from tests.cli.house import clean_environment

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t, path: test/t}\n"
GOOD = f"""{HEAD}workload: {{city: Rome, days: 1}}
workflow:
  - step: start
    tool: {{kind: noop, result: {{city: "{{{{ workload.city }}}}", days: "{{{{ workload.days }}}}"}}}}
    next: {{arcs: [{{step: each}}]}}
  - step: each
    loop: {{in: [1, 2, 3], iterator: n}}
    tool: {{kind: noop, result: "{{{{ iter.n }}}}"}}
    next: {{arcs: [{{step: end}}]}}
  - step: end
    tool: {{kind: noop, result: "{{{{ start }}}}"}}
"""
FAILING = f"""{HEAD}workflow:
  - step: start
    tool: {{kind: python, code: "raise ValueError('no luck')"}}
"""
INVALID = f"""{HEAD}workflow:
  - step: start
    tool: {{kind: noop}}
    next: {{arcs: [{{step: nowhere}}]}}
  - step: other
    tool: {{kind: nope}}
"""
SLIPS = f"""{HEAD}workflow:
  - step: start
    tool: {{kind: noop, mesage: hello}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with playbooks in it."""
    for name, text in (("good", GOOD), ("failing", FAILING), ("invalid", INVALID)):
        (tmp_path / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_shows_steps_on_stderr_and_the_result_on_stdout(call: Call, folder: Path) -> None:
    result = call("run", "good.yaml", "--set", "city=Oslo", "--set", "days:=7")
    assert result.exit_code == 0, result.output
    assert result.stdout == "city  Oslo\ndays  7\n"
    lines = result.stderr.splitlines()
    assert lines[0] == "running   start"
    assert any(line.startswith("done      each  3/3") for line in lines)
    assert lines[-1].startswith("COMPLETED: 5 steps in ")


def test_json_is_all_there_is_on_stdout(call: Call, folder: Path) -> None:
    result = call("run", "good", "--json")
    data = json.loads(result.stdout)
    assert result.stderr == ""
    assert (data["status"], data["final_step"]) == ("COMPLETED", "end")
    assert data["result"] == {"city": "Rome", "days": 1}
    assert data["results"]["start"] == {"city": "Rome", "days": 1}


@pytest.mark.parametrize("words", [("each",), ("--target", "each"), ("-t", "each")])
def test_begins_with_the_target(call: Call, folder: Path, words: tuple[str, ...]) -> None:
    result = call("run", "good.yaml", *words)
    assert "start" not in result.stderr.split("done      each")[0]


def test_a_step_of_the_default_playbook_is_called_by_its_name(call: Call, folder: Path) -> None:
    (folder / "noetl.yaml").write_text(GOOD)
    assert "start" not in call("run", "each").stderr.split("done      each")[0]


def test_an_unknown_target_names_the_steps(call: Call, folder: Path) -> None:
    result = call("run", "good.yaml", "nope")
    assert result.exit_code == 1
    assert "has no step 'nope' (its steps are start, each, end)" in result.stderr


def test_a_failing_playbook_is_exit_code_1_with_the_error(call: Call, folder: Path) -> None:
    result = call("run", "failing.yaml")
    assert result.exit_code == 1
    assert "no luck" in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].startswith("error: ")
    # The step's own traceback is for its author; none of ours is.
    assert "app/" not in result.output
    assert json.loads(call("run", "failing.yaml", "--json").stdout)["status"] == "FAILED"


def test_an_invalid_playbook_shows_every_finding_with_its_line(call: Call, folder: Path) -> None:
    result = call("run", "invalid.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: invalid.yaml is not valid:\n  line ")
    assert "nowhere" in result.stderr
    assert "nope" in result.stderr


def test_dry_run_says_what_validate_says(call: Call, folder: Path) -> None:
    for name in ("invalid.yaml", "slips.yaml"):
        (folder / "slips.yaml").write_text(SLIPS)
        checked = call("validate", name)
        result = call("run", name, "--dry-run")
        assert result.exit_code == checked.exit_code
        *findings, _ = checked.stdout.splitlines()
        assert findings
        assert all(line in result.output.splitlines() for line in findings)
    assert call("run", "slips.yaml", "--dry-run").stdout.endswith("slips.yaml is valid\n")
    invalid = call("run", "invalid.yaml", "--dry-run")
    assert invalid.stderr.endswith("error: invalid.yaml cannot run as written\n")
    assert invalid.stdout == ""


def test_dry_run_as_json(call: Call, folder: Path) -> None:
    good, bad = (call("run", name, "--dry-run", "--json") for name in ("good", "invalid"))
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert json.loads(good.stdout) == {"file": "good.yaml", "valid": True, "findings": []}
    found = json.loads(bad.stdout)
    assert (found["valid"], len(found["findings"])) == (False, 2)


def test_dry_run_looks_for_the_target(call: Call, folder: Path) -> None:
    assert call("run", "good.yaml", "each", "--dry-run").exit_code == 0
    result = call("run", "good.yaml", "nope", "--dry-run")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "has no step 'nope' (its steps are start, each, end)" in result.stderr


def test_a_sub_playbook_shows_with_the_id_of_its_execution(call: Call, folder: Path) -> None:
    (folder / "child.yaml").write_text(GOOD.replace("test/t", "test/child"))
    (folder / "parent.yaml").write_text(
        f"{HEAD}workflow: [{{step: start, "
        "tool: {kind: playbook, path: test/child, return_step: end}}]\n"
    )
    result = call("run", "parent.yaml")
    assert result.exit_code == 0, result.output
    first, last, _ = result.stderr.splitlines()
    assert re.fullmatch(r"running   start  waits for execution \d+ \(test/child\)", first)
    assert last.startswith("done      start  ")


def test_ctrl_c_says_that_it_was_interrupted(home: Path, folder: Path) -> None:
    (folder / "sleepy.yaml").write_text(
        f"{HEAD}workflow: [{{step: start, tool: {{kind: shell, cmd: sleep 600}}}}]\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "run", "sleepy.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(home),
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "running   start\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, stdout) == (130, "")
    assert stderr == "interrupted: the playbook did not run to its end\n"


def test_dry_run_runs_nothing(call: Call, folder: Path) -> None:
    result = call("run", "failing.yaml", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "failing.yaml is valid\n")


def test_a_missing_file(call: Call, folder: Path) -> None:
    result = call("run", "missing.yaml")
    assert (result.exit_code, result.stderr) == (1, "error: there is no file missing.yaml\n")


def test_a_file_that_is_no_text(call: Call, folder: Path) -> None:
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    result = call("run", "binary.yaml")
    assert (result.exit_code, result.stderr) == (1, "error: binary.yaml is not UTF-8 text\n")


def test_exec_is_run(call: Call, folder: Path) -> None:
    assert call("exec", "good.yaml").stdout == "city  Rome\ndays  1\n"


def test_validate_a_folder(call: Call, folder: Path) -> None:
    result = call("validate", ".", "--json")
    assert result.exit_code == 1
    found = {row["file"]: row for row in json.loads(result.stdout)}
    assert {name: row["valid"] for name, row in found.items()} == {
        "failing.yaml": True,
        "good.yaml": True,
        "invalid.yaml": False,
    }
    assert found["invalid.yaml"]["findings"][0]["line"] > 0
    assert result.stderr == "error: 1 of 3 cannot run as written\n"
