"""The figures of the peers as data, and as a table beside ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.measure import Round
from bench.peers.catalogue import Spec
from bench.report import about, side
from bench.workloads import Workload


def measured(workload: Workload, rounds: Mapping[str, Sequence[Round]]) -> dict[str, Any]:
    """The rounds of a workload where peers alone were measured, as ``bench.report`` has them."""
    return {
        **about(workload),
        "peers": {name: side(workload, done) for name, done in rounds.items()},
    }


def table(data: dict[str, Any], specs: Sequence[Spec]) -> str:
    """A row for each side, a column for each workload, and below why figures are missing.

    A figure is the median of the rounds, with the slowest and the fastest. After it, where we were
    measured in the same run: how many times as fast as the peer we were.
    """
    items = data["workloads"]
    heads = " | ".join(f"{item['name']}, {item['unit']}" for item in items)
    lines = [f"| | {heads} |", f"|---|{'---:|' * len(items)}"]
    if any("engine" in item for item in items):
        lines.append(_row("Callboard", [_cell(item, item.get("engine")) for item in items]))
        lines.append(_row("the floor", [_cell(item, item.get("floor")) for item in items]))
    for spec in specs:
        if spec.name not in data["absent"]:
            cells = [_cell(item, item["peers"].get(spec.name), ratio=True) for item in items]
            lines.append(_row(spec.title, cells))
    lines += ["", *_reasons(data, specs)]
    return "\n".join(lines).rstrip()


def _row(title: str, cells: Sequence[str]) -> str:
    return f"| {title} | {' | '.join(cells)} |"


def _cell(item: dict[str, Any], figures: dict[str, Any] | None, *, ratio: bool = False) -> str:
    if figures is None:
        return "-"
    unit, values = item["unit"], figures["values"]
    # Slowest first, whatever the unit.
    ends = sorted(values, reverse=unit != "steps/s")
    text = f"{_number(figures['median'], unit)} ({_number(ends[0], unit)} to {_number(ends[-1], unit)})"
    if ratio and "engine" in item:
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
