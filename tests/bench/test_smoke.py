"""The benchmarks run: the smallest of each, on the whole stack and its floor, and what they write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.engine.language.parse import parse
from app.wiring import ToolKinds
from bench.__main__ import main
from bench.measure import Measured, Round
from bench.report import report, table
from bench.usage import Usage
from bench.workloads import FULL, QUICK, TINY, Chain, Plan, Single, Wide

SIDE = {
    "median",
    "values",
    "p50_ms",
    "p99_ms",
    "samples",
    "cpu_ms_per_step",
    "events_per_step",
    "commits_per_step",
    "wal_bytes_per_step",
    "others",
}


@pytest.mark.slow
def test_all_workloads_run_and_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--tiny", "--profile", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    (path,) = tmp_path.glob("*.json")
    data = json.loads(path.read_text())
    assert [item["name"] for item in data["workloads"]] == ["W1", "W2", "W3", "W4"]
    for item in data["workloads"]:
        assert f"| {item['name']} |" in printed
        for name in ("engine", "floor"):
            _check_side(item[name])
        assert {"web", "worker", "orchestrator", "postgres", "nats"} <= set(
            item["engine"]["cpu_ms_per_step"]
        )
    assert [row["kind"] for row in data["tools"]] == ["python", "http", "postgres"]
    for row in data["tools"]:
        assert f"| {row['kind']} |" in printed
        assert row["p50_ms"] > row["bare_p50_ms"] > 0
    assert printed.count("in all") == 4, "every workload's hops are known"


def _check_side(side: dict[str, Any]) -> None:
    assert set(side) == SIDE
    numbers = [side[name] for name in SIDE - {"values", "cpu_ms_per_step"}]
    assert all(math.isfinite(number) for number in [*numbers, *side["values"]])
    assert side["median"] > 0
    assert side["samples"] >= 1
    # started, scheduled, claimed and done are the least that one step writes, without loops.
    assert side["events_per_step"] >= 3
    assert side["commits_per_step"] > 0
    assert side["wal_bytes_per_step"] > 0


@pytest.mark.parametrize("plans", [FULL, QUICK, TINY], ids=["full", "quick", "tiny"])
def test_every_playbook_is_valid_and_has_as_many_steps_as_it_says(plans: tuple[Plan, ...]) -> None:
    for plan in plans:
        workload = plan.workload
        text = workload.playbook()
        book = parse(text, ToolKinds())
        assert book.path == f"bench/{workload.name.lower()}"
        if isinstance(workload, Wide):
            assert list(book.steps) == ["each", "join"]
            assert yaml.safe_load(text)["workflow"][0]["loop"]["in"] == (
                f"{{{{ range({workload.steps - 1}) }}}}"
            )
        else:
            assert len(book.steps) == workload.steps


def test_an_unknown_workload_is_refused_before_anything_starts() -> None:
    with pytest.raises(SystemExit, match="no workload W0; there are W1, W2, W3, W4"):
        main(["--only", "w0"])


# ---------------------------------------------------------------------- the arithmetic
def _round(seconds: float, *, executions: int = 1, cpu: float = 1.0) -> Round:
    used = Usage({"web": cpu}, commits=40, wal=1000, own=0.0, busy=cpu + 2.0, capacity=10.0)
    return Round((seconds,) * executions, tuple(range(executions)), used, events=80)


@pytest.mark.parametrize(
    ("workload", "done", "value"),
    [
        pytest.param(Single(executions=4), _round(0.01, executions=4), 10.0, id="ms each"),
        pytest.param(Chain(steps=20, executions=2), _round(0.1, executions=2), 5.0, id="ms/step"),
        pytest.param(Wide(steps=100), _round(0.5), 200.0, id="steps/s"),
    ],
)
def test_the_figure_of_a_round(workload: Single | Chain | Wide, done: Round, value: float) -> None:
    assert done.value(workload) == pytest.approx(value)


def test_figures_are_medians_of_rounds_and_costs_those_of_the_median_round() -> None:
    engine = (_round(0.1, cpu=9.0), _round(0.4, cpu=2.0), _round(0.2, cpu=1.0))
    floor = (_round(0.1), _round(0.1), _round(0.1))
    for workload, times in ((Chain(steps=20), 2.0), (Wide(steps=20), 2.0)):
        (item,) = report([Measured(Plan(workload, 3), engine, floor)])["workloads"]
        assert item["times_floor"] == pytest.approx(times)
        assert item["engine"]["cpu_ms_per_step"] == {"web": 50.0}
        assert item["engine"]["commits_per_step"] == 2
        assert item["engine"]["events_per_step"] == 4
        assert item["engine"]["wal_bytes_per_step"] == 50
        assert item["engine"]["others"] == pytest.approx(0.2)


def test_the_table_shows_slowest_and_fastest_round() -> None:
    rounds = (_round(0.1), _round(0.4), _round(0.2))
    text = table(report([Measured(Plan(Wide(steps=20), 3), rounds, rounds)]))
    assert "| 100 steps/s | 50 to 200 | 100 | 50 to 200 | 1.00 |" in text
