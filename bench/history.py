"""How each workload changed over the results that are kept, the latest against the one before.

    python -m bench.history [FOLDER] [--last 8]

Reads the JSON files of ``bench/results``. Where the machine was busy with other work then and not
now, *times floor* tells more than the figure.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.report import RESULTS


@dataclass(frozen=True, slots=True)
class Point:
    """A figure of one result: when, its value, and how many times its floor it took."""

    at: str
    value: float
    times_floor: float | None


def history(results: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[Point]]:
    """The points of each figure by its name and unit, in the order of *results*.

    Different sizes of a workload are different figures.
    """
    found: dict[tuple[str, str], list[Point]] = {}
    for result in results:
        for name, unit, value, times in _figures(result):
            found.setdefault((name, unit), []).append(Point(result["at"], value, times))
    return found


def _figures(result: dict[str, Any]) -> Iterator[tuple[str, str, float, float | None]]:
    for item in result.get("workloads", ()):
        name, unit = f"{item['name']} {item['title']}", item["unit"]
        # Peers that were measured alone have no engine beside them.
        if "engine" in item:
            yield name, unit, item["engine"]["median"], item["times_floor"]
        for peer, side in item.get("peers", {}).items():
            yield f"{name}, {peer}", unit, side["median"], None
    for item in result.get("figures", ()):
        name = f"{item['workload']} {item['title']}"
        yield name, item["unit"], item["p50"], item["times_floor"]
    for item in result.get("concurrency", ()):
        name = f"W4 with {item['chains']} chains at once"
        yield name, "steps/s", item["engine"], item["floor"] / item["engine"]
    for item in result.get("tools", ()):
        yield f"tool {item['kind']}, over the bare call", "ms", item["over_ms"], None


def table(found: dict[tuple[str, str], list[Point]], last: int) -> str:
    """A Markdown table of the *last* values of each figure, and the change of the latest."""
    lines = [
        "| | unit | values, the latest last | change | times floor | before |",
        "|---|---|---|---:|---:|---:|",
    ]
    for (name, unit), points in found.items():
        shown = points[-last:]
        latest, former = shown[-1], shown[-2] if len(shown) > 1 else None
        cells = [
            name,
            unit,
            " → ".join(f"{point.value:.4g}" for point in shown),
            _change(latest, former, more_is_better=unit.endswith("/s")),
            _times(latest),
            _times(former),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _change(latest: Point, former: Point | None, *, more_is_better: bool) -> str:
    if former is None or not former.value:
        return ""
    share = 100 * (latest.value / former.value - 1)
    better = (share > 0) == more_is_better
    return f"{share:+.0f} %, {'better' if better else 'worse'}" if round(share) else "0 %"


def _times(point: Point | None) -> str:
    return f"{point.times_floor:.2f}" if point and point.times_floor else ""


def load_results(folder: Path) -> list[dict[str, Any]]:
    """All results in *folder*, the oldest first."""
    return sorted(
        (json.loads(path.read_text()) for path in folder.glob("*.json")),
        key=lambda result: str(result["at"]),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.history",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS)
    parser.add_argument("--last", type=int, default=8, help="values of each figure")
    given = parser.parse_args(arguments)
    results = load_results(given.folder)
    if not results:
        raise SystemExit(f"no results in {given.folder}")
    print(f"{len(results)} results, {results[0]['at']} to {results[-1]['at']}\n")
    print(table(history(results), given.last))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
