"""The benchmarks run: the smallest of each, on the whole stack and its floor, and what they write."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.engine.language.parse import parse
from app.wiring import ToolKinds
from bench.__main__ import main
from bench.history import history
from bench.history import main as history_main
from bench.history import table as history_table
from bench.measure import Measured, Round, Series
from bench.plots import PLOTS, draw
from bench.profile import main as profile_main
from bench.report import report, table
from bench.sampling import parse as parse_samples
from bench.sampling import table as samples_table
from bench.sizes import SIZES
from bench.usage import Usage
from bench.workloads import FULL, QUICK, TINY, Chain, Grown, Loop, Parent, Plan, Single, Wide

SIDE = {
    "median",
    "values",
    "p50_ms",
    "p99_ms",
    "samples",
    "times_ms",
    "cpu_ms_per_step",
    "pss_mib_peak",
    "pss_mib_end",
    "events_per_step",
    "commits_per_step",
    "wal_bytes_per_step",
    "others",
}
NO_NUMBERS = {"values", "times_ms", "cpu_ms_per_step", "pss_mib_peak", "pss_mib_end"}
PROCESSES = {"web", "worker", "orchestrator", "postgres", "nats"}
NAMES = ["W1", "W2", "W3", "W4", "W5", "W6", "W7", "W7b"]


def _run(arguments: list[str], out: Path) -> dict[str, Any]:
    """The JSON that a tiny run writes."""
    assert main(["--tiny", "--out", str(out), *arguments]) == 0
    (path,) = out.glob("*.json")
    data: dict[str, Any] = json.loads(path.read_text())
    return data


@pytest.mark.slow
@pytest.mark.timeout(300)  # whole stacks come and go
def test_all_workloads_run_and_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    only = [word for name in (*NAMES, "CHAINS", "TOOLS") for word in ("--only", name)]
    data = _run([*only, "--profile", "--long"], tmp_path)
    printed = capsys.readouterr().out
    assert [item["name"] for item in data["workloads"]] == NAMES
    for item in data["workloads"]:
        assert f"| {item['name']} |" in printed
        for name in ("engine", "floor"):
            _check_side(item[name])
        for key in ("cpu_ms_per_step", "pss_mib_peak", "pss_mib_end"):
            assert set(item["engine"][key]) >= PROCESSES
    assert [row["chains"] for row in data["concurrency"]] == [1, 2]
    assert [row["kind"] for row in data["tools"]] == ["python", "http", "postgres"]
    for row in data["tools"]:
        assert f"| {row['kind']} |" in printed
        assert row["p50_ms"] > row["bare_p50_ms"] > 0
    # A loop of sub-playbooks has no step that a worker is done with.
    assert printed.count("in all") == len(NAMES) - 1, "the hops of every other workload are known"
    # What was measured can be told against what was measured before, and drawn.
    assert history_main([str(tmp_path)]) == 0
    assert "| W6 loop of 8 in parallel | iterations/s |" in capsys.readouterr().out
    _check_growth(data["growth"])
    drawn = draw([data], tmp_path)
    assert [path.stem for path in drawn] == list(PLOTS)
    for path in drawn:
        text = path.read_text()
        assert text.startswith("<svg")
        assert "<script" not in text, "nothing is fetched by who looks at it"


def _check_growth(grown: dict[str, Any]) -> None:
    assert {row["kind"] for row in grown["in_execution"]} == {"loop", "cycle"}
    assert all(row["ms"] > 0 for row in grown["in_execution"])
    assert [row["events"] for row in grown["in_log"]] == list(SIZES["tiny"].events)
    assert all(row["engine"] > 0 < row["floor"] for row in grown["in_log"])


def _check_side(side: dict[str, Any]) -> None:
    assert set(side) == SIDE
    numbers = [side[name] for name in SIDE - NO_NUMBERS]
    assert all(math.isfinite(number) for number in [*numbers, *side["values"]])
    assert side["median"] > 0
    assert side["samples"] >= 1
    # started, scheduled, claimed and done are the least that one step writes, without loops.
    assert side["events_per_step"] >= 3
    assert side["commits_per_step"] > 0
    assert side["wal_bytes_per_step"] > 0
    assert all(size > 0 for size in side["pss_mib_end"].values())


@pytest.mark.slow
def test_a_full_log_is_measured_beside_an_empty_one(tmp_path: Path) -> None:
    figures = _run(["--only", "W8"], tmp_path)["figures"]
    assert {row["title"].split(",")[0] for row in figures} == {"W1", "listing", "opening"}
    assert all(row["workload"] == "W8" and row["p50"] > 0 < row["floor"]["p50"] for row in figures)


@pytest.mark.slow
@pytest.mark.timeout(300)  # whole stacks come and go
def test_start_and_rest_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = _run(["--only", "W9", "--only", "W10"], tmp_path)["figures"]
    starts = [row for row in figures if row["workload"] == "W9"]
    assert len(starts) == 5
    assert all(min(row["p50"], row["floor"]["p50"]) > 0 for row in starts)
    assert all(row["parts"]["seconds of CPU"] > 0 for row in starts)
    cpu, memory = (row for row in figures if row["workload"] == "W10")
    for row in (cpu, memory):
        assert set(row["parts"]) == PROCESSES | {"scheduler", "supervisor", "guards"}
        assert row["p50"] == pytest.approx(sum(row["parts"].values()))
    assert min(memory["p50"], memory["floor"]["p50"]) > 0
    assert "| W10 memory |" in capsys.readouterr().out


@pytest.mark.slow
def test_a_profile_tells_hops_and_functions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert profile_main(["--tiny", "--only", "W3", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in ("web", "orchestrator", "worker", "scheduler", "zygote"):
        assert f"### {name}: " in printed
    assert "hops of 6 steps" in printed
    assert (tmp_path / "w3" / "web.txt").read_text()


def test_samples_are_counted_by_function() -> None:
    samples = parse_samples(
        "main (a.py:1);work (b.py:7) 3\nmain (a.py:2);work (b.py:9) 1\nmain (a.py:3) 2"
    )
    assert samples.total == 6
    assert samples.own() == {"work (b.py)": 4, "main (a.py)": 2}
    assert samples.within() == {"main (a.py)": 6, "work (b.py)": 4}
    assert "| 66.7 % | 66.7 % | `work (b.py)` |" in samples_table(samples, 1)


def test_history_tells_the_latest_against_the_one_before() -> None:
    def result(at: str, rate: float, ms: float) -> dict[str, Any]:
        row = {"workload": "W8", "title": "listing", "unit": "ms", "p50": ms, "times_floor": None}
        side = {"median": rate}
        item = {"name": "W6", "title": "loop", "unit": "iterations/s", "engine": side}
        return {"at": at, "workloads": [{**item, "times_floor": 1.5}], "figures": [row]}

    found = history([result("1", 100, 10), result("2", 150, 5), result("3", 120, 6)])
    assert history_table(found, 2).splitlines()[2:] == [
        "| W6 loop | iterations/s | 150 → 120 | -20 %, worse | 1.50 | 1.50 |",
        "| W8 listing | ms | 5 → 6 | +20 %, worse |  |  |",
    ]


def test_history_and_plots_take_results_of_peers_alone() -> None:
    item = {"name": "W1", "title": "one step", "unit": "ms"}
    alone = {"at": "1", "workloads": [{**item, "peers": {"celery": {"median": 5.0}}}]}
    assert history_table(history([alone]), 2).splitlines()[2:] == [
        "| W1 one step, celery | ms | 5 |  |  |  |"
    ]
    assert all(plot(alone) is None for plot in PLOTS.values())


def test_drawing_leaves_the_imports_of_others_alone(tmp_path: Path) -> None:
    row = {"chains": 1, "engine": 2.0, "floor": 1.0}
    assert draw([{"concurrency": [row]}], tmp_path) == [tmp_path / "w4-concurrency.svg"]
    # Would warn, and so fail, where a finder of an older kind is left.
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("no_such_module_anywhere")


@pytest.mark.parametrize("plans", [FULL, QUICK, TINY], ids=["full", "quick", "tiny"])
def test_every_playbook_is_valid_and_has_as_many_steps_as_it_says(plans: tuple[Plan, ...]) -> None:
    for plan in plans:
        workload = plan.workload
        text = workload.playbook()
        book = parse(text, ToolKinds())
        assert book.path == workload.path
        if isinstance(workload, Parent | Loop):
            assert list(book.steps) == ["each"]
        elif isinstance(workload, Grown):
            assert len(book.steps) == 2 * workload.steps
        elif isinstance(workload, Wide):
            assert list(book.steps) == ["each", "join"]
            assert yaml.safe_load(text)["workflow"][0]["loop"]["in"] == (
                f"{{{{ range({workload.steps - 1}) }}}}"
            )
        else:
            assert len(book.steps) == workload.steps


def test_an_unknown_workload_is_refused_before_anything_starts() -> None:
    with pytest.raises(SystemExit, match=r"no workload W0; there are .*W1, W10, W2, W3"):
        main(["--only", "w0"])


# ---------------------------------------------------------------------- the arithmetic
def _round(seconds: float, *, executions: int = 1, cpu: float = 1.0) -> Round:
    used = Usage({"web": cpu}, commits=40, wal=1000, own=0.0, busy=cpu + 2.0, capacity=10.0)
    return Round((seconds,) * executions, tuple(range(executions)), used, events=80)


def _series(rounds: tuple[Round, ...]) -> Series:
    return Series(rounds, {"web": 3 * 2**20}, {"web": 2**20})


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
        (item,) = report([Measured(Plan(workload, 3), _series(engine), _series(floor))])[
            "workloads"
        ]
        assert item["times_floor"] == pytest.approx(times)
        assert item["engine"]["cpu_ms_per_step"] == {"web": 50.0}
        assert item["engine"]["commits_per_step"] == 2
        assert item["engine"]["events_per_step"] == 4
        assert item["engine"]["wal_bytes_per_step"] == 50
        assert item["engine"]["pss_mib_peak"] == {"web": 3}
        assert item["engine"]["others"] == pytest.approx(0.2)


def test_the_table_shows_slowest_and_fastest_round() -> None:
    rounds = (_round(0.1), _round(0.4), _round(0.2))
    text = table(report([Measured(Plan(Wide(steps=20), 3), _series(rounds), _series(rounds))]))
    assert "| 100 steps/s | 50 to 200 | 100 | 50 to 200 | 1.00 |" in text
