"""From rounds to figures: JSON for machines, a table for people."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from bench.measure import Measured, Series
from bench.workloads import Workload

HEADER = (
    "| | workload | measured | rounds | floor | rounds | times floor | goal |"
    " CPU/step | events | commits | WAL/step | others |"
)
LINE = "|---|---|---:|---|---:|---|---:|---:|---:|---:|---:|---:|---:|"
MIB = 2**20
#: Where the JSON of each run is kept.
RESULTS = Path(__file__).parent / "results"


def report(results: Iterable[Measured] = ()) -> dict[str, Any]:
    """When, what and where, and the *results* of workloads, as JSON data."""
    return {**setting(), "workloads": [_workload(measured) for measured in results]}


def setting() -> dict[str, Any]:
    """When, what and where."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": version("callboard"),
        "machine": {
            "cpus": psutil.cpu_count(),
            "load": psutil.getloadavg()[0],
            "python": platform.python_version(),
            "system": platform.platform(),
        },
    }


def _workload(measured: Measured) -> dict[str, Any]:
    workload = measured.plan.workload
    engine, floor = side(workload, measured.engine), side(workload, measured.floor)
    ratio = engine["median"] / floor["median"]
    return {
        **about(workload),
        "goal": workload.goal,
        "is_goal_a_ratio": workload.is_goal_a_ratio,
        "engine": engine,
        "floor": floor,
        # How many times the floor's time we take, whatever the unit.
        "times_floor": 1 / ratio if workload.is_rate else ratio,
        "peers": {name: side(workload, series) for name, series in measured.peers.items()},
    }


def about(workload: Workload) -> dict[str, Any]:
    """What was measured."""
    return {
        "name": workload.name,
        "title": workload.heading,
        "unit": workload.unit,
        "steps": workload.steps,
        "executions": workload.executions,
    }


def side(workload: Workload, series: Series) -> dict[str, Any]:
    """The figures of one side's rounds of *workload*."""
    rounds = series.rounds
    values = [done.value(workload) for done in rounds]
    steps = workload.ran
    middle = sorted(rounds, key=lambda done: done.value(workload))[len(rounds) // 2]
    times = sorted(seconds * 1000 for done in rounds for seconds in done.seconds)
    return {
        "median": statistics.median(values),
        "values": values,
        "p50_ms": statistics.median(times),
        "p99_ms": percentile(times, 0.99),
        "samples": len(times),
        # The distribution, where there is one to speak of.
        "times_ms": [round(ms, 2) for ms in times] if workload.unit == "ms" else [],
        "cpu_ms_per_step": {
            name: 1000 * seconds / steps for name, seconds in sorted(middle.used.cpu.items())
        },
        "pss_mib_peak": {name: size / MIB for name, size in sorted(series.peak.items())},
        "pss_mib_end": {name: size / MIB for name, size in sorted(series.end.items())},
        "events_per_step": middle.events / steps,
        "commits_per_step": middle.used.commits / steps,
        "wal_bytes_per_step": middle.used.wal / steps,
        # The share of the machine that processes outside of this measurement used: the noise.
        "others": statistics.median(done.used.others for done in rounds),
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which *share* of the sorted *ordered* are; of few, the last."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(data: dict[str, Any]) -> str:
    """The figures as a Markdown table, and the CPU time by process below it."""
    rows = [_row(item) for item in data["workloads"]]
    lines = [HEADER, LINE, *rows]
    lines += ["", "CPU milliseconds per step, by process:", ""]
    lines += _by_process(data["workloads"], "cpu_ms_per_step", "{:.2f}")
    lines += ["", "Memory in MiB (PSS), the peak, by process:", ""]
    lines += _by_process(data["workloads"], "pss_mib_peak", "{:.0f}")
    return "\n".join(lines)


def _by_process(items: Sequence[dict[str, Any]], key: str, form: str) -> list[str]:
    names = sorted({name for item in items for name in item["engine"][key]})
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for item in items:
        for side, label in (("engine", item["name"]), ("floor", f"{item['name']} floor")):
            found = item[side][key]
            cells = (form.format(found[name]) if name in found else "" for name in names)
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def _row(item: dict[str, Any]) -> str:
    engine, floor, unit = item["engine"], item["floor"], item["unit"]
    sign = "≥" if unit.endswith("/s") else "≤"
    times = " times floor" if item["is_goal_a_ratio"] else ""
    cells = [
        item["name"],
        item["title"],
        f"{_figure(engine, unit)} {unit}",
        _spread(engine, unit),
        _figure(floor, unit),
        _spread(floor, unit),
        f"{item['times_floor']:.2f}",
        f"{sign} {item['goal']:g}{times}",
        f"{sum(engine['cpu_ms_per_step'].values()):.2f} ms",
        f"{engine['events_per_step']:.2f}",
        f"{engine['commits_per_step']:.2f}",
        f"{engine['wal_bytes_per_step']:.0f} B",
        f"{100 * max(engine['others'], floor['others']):.0f} %",
    ]
    return f"| {' | '.join(cells)} |"


def _figure(side: dict[str, Any], unit: str) -> str:
    if unit == "ms":
        return f"p50 {side['p50_ms']:.1f}, p99 {side['p99_ms']:.1f}"
    return _number(side["median"], unit)


def _spread(side: dict[str, Any], unit: str) -> str:
    """The slowest and the fastest round."""
    return f"{_number(min(side['values']), unit)} to {_number(max(side['values']), unit)}"


def _number(value: float, unit: str) -> str:
    return f"{value:.0f}" if unit.endswith("/s") else f"{value:.2f}"
