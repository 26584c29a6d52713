"""The figures of the peers as data, and as a table beside ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.measure import Series
from bench.peers.catalogue import Spec
from bench.report import about, side
from bench.workloads import Workload


def measured(workload: Workload, found: Mapping[str, Series]) -> dict[str, Any]:
    """The rounds of a workload where peers alone were measured, as ``bench.report`` has them."""
    return {
        **about(workload),
        "peers": {name: side(workload, series) for name, series in found.items()},
    }


def table(data: dict[str, Any], specs: Sequence[Spec]) -> str:
    """A row for each side, a column for each workload; then what a step cost, and what is missing.

    Workloads that no peer takes part in have no column.

    A figure is the median of the rounds, with the slowest and the fastest. After it, where we were
    measured in the same run: how many times as fast as the peer we were.
    """
    taken = {name for spec in specs for name in spec.workloads}
    items = [item for item in data["workloads"] if item["name"] in taken]
    data = {**data, "workloads": items}
    heads = [f"{item['name']}, {item['unit']}" for item in items]
    lines = _lines(data, specs, heads, _cell)
    lines += ["", "CPU milliseconds per step, and the share of the machine that others took:", ""]
    lines += _lines(data, specs, [item["name"] for item in items], _cost)
    lines += ["", *_reasons(data, specs)]
    return "\n".join(lines).rstrip()


def _lines(
    data: dict[str, Any],
    specs: Sequence[Spec],
    heads: Sequence[str],
    cell: Callable[[dict[str, Any], dict[str, Any] | None], str],
) -> list[str]:
    items = data["workloads"]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * len(items)}"]
    if any("engine" in item for item in items):
        lines.append(_row("Callboard", [cell(item, item["engine"]) for item in items]))
        lines.append(_row("the floor", [cell(item, item["floor"]) for item in items]))
    for spec in specs:
        if spec.name not in data["absent"]:
            cells = [cell(item, item["peers"].get(spec.name)) for item in items]
            lines.append(_row(spec.title, cells))
    return lines


def _row(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | {' | '.join(cells)} |"


def _cost(item: dict[str, Any], figures: dict[str, Any] | None) -> str:  # noqa: ARG001 (as _cell)
    if figures is None:
        return "-"
    cpu = sum(figures["cpu_ms_per_step"].values())
    return f"{cpu:.2f}, {100 * figures['others']:.0f} %"


def _cell(item: dict[str, Any], figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    unit, values = item["unit"], figures["values"]
    # Slowest first, whatever the unit.
    ends = sorted(values, reverse=unit != "steps/s")
    text = f"{_number(figures['median'], unit)} ({_number(ends[0], unit)} to {_number(ends[-1], unit)})"
    if "engine" in item and any(figures is one for one in item["peers"].values()):
        text += f" · {times_as_fast(item, figures):.2f}"
    return text


def times_as_fast(item: dict[str, Any], figures: dict[str, Any]) -> float:
    """How many times as fast as the peer with *figures* we were."""
    ours, theirs = float(item["engine"]["median"]), float(figures["median"])
    return ours / theirs if item["unit"] == "steps/s" else theirs / ours


def _reasons(data: dict[str, Any], specs: Sequence[Spec]) -> list[str]:
    titles = {spec.name: spec.title for spec in specs}
    lines = [f"- {titles[name]} was left out: {why}" for name, why in data["absent"].items()]
    for name, failed in data["failed"].items():
        lines += [f"- {titles[name]} has no {workload}: {why}" for workload, why in failed.items()]
    return lines


def _number(value: float, unit: str) -> str:
    return f"{value:.0f}" if unit == "steps/s" else f"{value:.2f}"
