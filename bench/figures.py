"""A figure that is no round of steps: samples, their goal, and what they are compared with."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.report import percentile


@dataclass(frozen=True, slots=True)
class Figure:
    """*samples* in *unit*. ``floor`` are those of ``beside``, taken in turns with them.

    ``goal`` is the most of the median, or with ``is_goal_a_ratio`` of its ratio to the floor's.
    """

    workload: str
    title: str
    unit: str
    samples: tuple[float, ...]
    goal: float | None = None
    is_goal_a_ratio: bool = False
    floor: tuple[float, ...] = ()
    beside: str = ""
    #: What makes it up, by process, in the same unit.
    parts: dict[str, float] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """As JSON data; ``floor`` and ``times_floor`` are None where there is nothing beside."""
        ours, floor = _summary(self.samples), _summary(self.floor) if self.floor else None
        return {
            "workload": self.workload,
            "title": self.title,
            "unit": self.unit,
            "goal": self.goal,
            "is_goal_a_ratio": self.is_goal_a_ratio,
            **ours,
            "floor": floor,
            "beside": self.beside,
            "times_floor": ours["p50"] / floor["p50"] if floor and floor["p50"] else None,
            "parts": self.parts,
        }


def _summary(samples: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(samples)
    return {
        "p50": statistics.median(ordered),
        "p99": percentile(ordered, 0.99),
        "values": [round(value, 3) for value in samples],
    }


def table(items: Iterable[dict[str, Any]]) -> str:
    """The figures as a Markdown table, and what makes them up below it."""
    items = list(items)
    lines = [
        "| | what | p50 | p99 | goal | beside | p50 | times |",
        "|---|---|---:|---:|---:|---|---:|---:|",
        *map(_row, items),
    ]
    parted = [item for item in items if item["parts"]]
    names = sorted({name for item in parted for name in item["parts"]})
    if names:
        lines += ["", f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
        for item in parted:
            cells = (
                f"{item['parts'][name]:.2f}" if name in item["parts"] else "" for name in names
            )
            lines.append(f"| {item['workload']} {item['title']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _row(item: dict[str, Any]) -> str:
    floor, times = item["floor"], item["times_floor"]
    cells = [
        item["workload"],
        item["title"],
        f"{item['p50']:.2f} {item['unit']}",
        f"{item['p99']:.2f}",
        _goal(item),
        item["beside"],
        f"{floor['p50']:.2f}" if floor else "",
        f"{times:.2f}" if times else "",
    ]
    return f"| {' | '.join(cells)} |"


def _goal(item: dict[str, Any]) -> str:
    if item["goal"] is None:
        return ""
    return f"≤ {item['goal']:g}{' times' if item['is_goal_a_ratio'] else ' ' + item['unit']}"
