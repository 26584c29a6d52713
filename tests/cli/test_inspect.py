"""``explain``, ``replay`` and ``verify`` on the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from app.api.app import create_app
from app.engine.events import CtxUpdated
from app.engine.ports import Draft
from app.local import follow, local_plane
from app.settings import Settings
from tests.api.plane import Probe, served
from tests.cli.fakes import Call
from tests.cli.test_run import GOOD, HEAD, INVALID


@pytest.fixture
def at_api(call: Call, api: str, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line, pointed at the API."""
    monkeypatch.setenv("NOETL_SERVER_URL", api)
    return call


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "good.yaml"
    path.write_text(GOOD.replace("test/t", "inspect/good"))
    return path


@pytest.fixture
def execution(at_api: Call, file: Path) -> str:
    """An execution of GOOD that has ended."""
    assert at_api("register", "-f", str(file)).exit_code == 0
    started = at_api("execute", "inspect/good", "--watch", "--json")
    assert started.exit_code == 0, started.output
    found: str = json.loads(started.stdout)["execution_id"]
    return found


# ---------------------------------------------------------------------- explain
def test_a_file_is_explained_without_a_server(call: Call, file: Path) -> None:
    text = call("explain", str(file))
    assert text.exit_code == 0, text.output
    assert text.stdout.startswith(
        "t (inspect/good)\n  begins at start · 3 steps · queue default.io\n"
    )
    assert (
        "\n 2  each · noop · default.io\n      for each n in 3 items, one at a time" in text.stdout
    )
    assert call("explain", "good").stdout == text.stdout

    plan = json.loads(call("explain", str(file), "--json").stdout)
    assert plan["levels"] == [["start"], ["each"], ["end"]]
    chart = call("explain", str(file), "--mermaid").stdout
    assert chart.startswith("flowchart TD\n")
    assert chart.endswith("s2\n")


def test_a_registered_playbook_is_explained_by_the_server(
    at_api: Call, file: Path, execution: str
) -> None:
    local = at_api("explain", str(file))
    assert at_api("explain", "catalog://inspect/good").stdout == local.stdout
    assert at_api("explain", "inspect/good@1").stdout == local.stdout
    missing = at_api("explain", "inspect/none")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "nothing is registered under path 'inspect/none'" in missing.stderr


def test_what_cannot_run_is_not_explained(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(INVALID)
    answer = call("explain", str(path))
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "line 7" in answer.stderr
    assert call("explain", str(tmp_path / "none.yaml")).exit_code == 1
    path.write_bytes(b"\xff\xfe")
    assert "cannot be read as text" in call("explain", str(path)).stderr


# ---------------------------------------------------------------------- replay
def test_replay_shows_events_changes_and_the_state(at_api: Call, execution: str) -> None:
    answer = at_api("replay", execution)
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("    1  ")
    assert lines[0].endswith("execution.started")
    assert lines[1].strip() == "execution inspect/good: new → running"
    assert any(
        line.strip() == "loop each: 2/3 ended, 3 begun → 3/3 ended, 3 begun" for line in lines
    )
    assert "completed" in next(line for line in lines if line.startswith("At event "))
    assert any(line.startswith("each   done") and "3/3" in line for line in lines)

    lines = at_api("replay", execution, "--json").stdout.splitlines()
    *turns, state = [json.loads(line) for line in lines]
    assert [turn["seq"] for turn in turns] == list(range(1, len(turns) + 1))
    assert (state["at_seq"], state["state"]["status"]) == (len(turns), "completed")


def test_replay_stops_where_it_is_told_and_follows_one_step(at_api: Call, execution: str) -> None:
    early = at_api("replay", execution, "--at", "2").stdout
    assert "\nAt event 2: running\nrunning:  start\n" in early
    assert "    3  " not in early
    nothing = at_api("replay", execution, "--at", "0").stdout
    assert nothing == "\nAt event 0: new\n"
    only = at_api("replay", execution, "--step", "end", "--json").stdout.splitlines()
    assert {json.loads(line)["step"] for line in only[:-1]} == {"end"}
    assert at_api("replay", "77").exit_code == 1


# ---------------------------------------------------------------------- verify
def test_verify_one_and_all(at_api: Call, execution: str) -> None:
    one = at_api("verify", execution)
    assert (one.exit_code, one.stderr) == (0, "")
    assert one.stdout.startswith(f"{execution}  inspect/good  COMPLETED  ")
    assert one.stdout.endswith(" events: as its log says\n")
    assert json.loads(at_api("verify", execution, "--json").stdout)["ok"] is True

    every = at_api("verify", "--all")
    assert every.exit_code == 0, every.output
    assert every.stdout.startswith("verified ")
    assert every.stdout.endswith(", 0 findings\n")
    rows = [json.loads(line) for line in at_api("verify", "--all", "--json").stdout.splitlines()]
    assert execution in {row["execution_id"] for row in rows}

    assert at_api("verify", "77").exit_code == 1
    for words in ((), (execution, "--all")):
        assert at_api("verify", *words).exit_code == 2


@contextmanager
def plane_with(count: int) -> Iterator[tuple[FastAPI, list[int], Any]]:
    """An API with *count* ended executions, their ids, and the log they are in."""
    settings = replace(Settings(), worker_threads=2)
    with local_plane(settings) as (plane, _, ports):
        plane.catalog.register(f"{HEAD}workflow: [{{step: start}}]\n")
        ids = [plane.executions.start("test/t").execution_id for _ in range(count)]
        for execution_id in ids:
            follow(ports, execution_id, lambda _: None)
        yield create_app(plane, settings, health=Probe()), ids, ports.events


def test_findings_are_listed_and_give_exit_code_1(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More executions than a page has, one of which goes on after its end."""
    monkeypatch.setattr("app.cli.inspect.PAGE", 2)
    with plane_with(5) as (app, ids, log), served(app) as url:
        monkeypatch.setenv("NOETL_SERVER_URL", url)
        assert call("verify", "--all").stdout == "verified 5 executions, 0 findings\n"
        with log.transaction([ids[1]]) as tx:
            tx.append(ids[1], [Draft(CtxUpdated("start", 1, {"x": 1}))])
        answer = call("verify", "--all")
        assert answer.exit_code == 1
        head, finding, summary = answer.stdout.splitlines()
        assert head.startswith(f"{ids[1]}  test/t  COMPLETED  ")
        assert finding.endswith("is no audit event [after-end]")
        assert summary == "verified 5 executions, 1 finding"
        assert answer.stderr == "error: 1 finding\n"
        rows = [json.loads(line) for line in call("verify", "--all", "--json").stdout.splitlines()]
        assert [row["execution_id"] for row in rows] == [str(i) for i in reversed(ids)]
        assert [row["ok"] for row in rows] == [True, True, True, False, True]
