"""Draws what was measured, as SVG.

    python -m bench.plots [--results FOLDER] [--out FOLDER]

Each plot is drawn from the newest result that has its figures. Needs the extra ``bench`` (pygal).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.history import load_results
from bench.report import RESULTS

OUT = Path(__file__).parents[1] / "docs" / "plots"
#: Points of a distribution.
POINTS = 100


def latency(data: dict[str, Any]) -> Any:
    """W1: which share of the executions had ended after so many milliseconds."""
    single = next((item for item in data.get("workloads", ()) if item["name"] == "W1"), None)
    if single is None or not single.get("engine", {}).get("times_ms"):
        return None
    chart = _chart("XY", "W1: executions that have ended", "ms since submission", "% of them")
    for side, title in (("engine", "Callboard"), ("floor", "floor")):
        chart.add(title, _distribution(single[side]["times_ms"]))
    for peer, figures in single.get("peers", {}).items():
        chart.add(peer, _distribution(figures["times_ms"]))
    return chart


def _distribution(times: Sequence[float]) -> list[tuple[float, float]]:
    """Of the sorted *times*: a time, and the percentage that is not above it."""
    last = len(times) - 1
    places = sorted({round(number * last / POINTS) for number in range(POINTS + 1)})
    return [(times[place], 100 * (place + 1) / len(times)) for place in places]


def throughput(data: dict[str, Any]) -> Any:
    """W4 against the number of chains at once."""
    rows = data.get("concurrency")
    if not rows:
        return None
    chart = _chart("Line", "W4: throughput against concurrency", "chains at once", "steps/s")
    chart.x_labels = [str(row["chains"]) for row in rows]
    chart.add("Callboard", [row["engine"] for row in rows])
    chart.add("floor", [row["floor"] for row in rows])
    return chart


def execution(data: dict[str, Any]) -> Any:
    """The cost of a completion against the number of events before it."""
    rows = data.get("growth", {}).get("in_execution")
    if not rows:
        return None
    title = "Deciding after a completion, in a longer and longer execution"
    chart = _chart("XY", title, "events before it (powers of ten)", "ms of CPU")
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        chart.add(kind, [(_magnitude(row["event"]), row["ms"]) for row in of_kind])
    return chart


def log(data: dict[str, Any]) -> Any:
    """The cost of a step against the size of the log."""
    rows = data.get("growth", {}).get("in_log")
    if not rows:
        return None
    chart = _chart("Line", "W2 with more and more in the log", "events in the log", "ms a step")
    chart.x_labels = [f"{row['events']:,}" for row in rows]
    chart.add("Callboard", [row["engine"] for row in rows])
    chart.add("Callboard, CPU", [row["cpu_ms"] for row in rows])
    chart.add("floor", [row["floor"] for row in rows])
    return chart


def _magnitude(count: float) -> float:
    from math import log10

    return log10(max(count, 1))


#: File names and what draws them.
PLOTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "w1-latency": latency,
    "w4-concurrency": throughput,
    "cost-in-execution": execution,
    "cost-in-log": log,
}


def _chart(kind: str, title: str, x_title: str, y_title: str) -> Any:
    import pygal
    from pygal.style import CleanStyle

    # pygal leaves a finder for its maps that Python warns of at the next module that is missing.
    sys.meta_path[:] = [one for one in sys.meta_path if hasattr(one, "find_spec")]
    chart = getattr(pygal, kind)(
        title=title,
        x_title=x_title,
        y_title=y_title,
        style=CleanStyle,
        js=(),
        width=800,
        height=450,
        dots_size=2,
        range_min=0,
        include_x_axis=False,
        legend_at_bottom=True,
        value_formatter=lambda value: f"{value:.4g}",
        x_value_formatter=lambda value: f"{value:.4g}",
        disable_xml_declaration=True,
    )
    chart.add_xml_filter(_without_scripts)
    return chart


def _without_scripts(root: Any) -> Any:
    """The file stands alone: a picture that runs nothing."""
    for parent in root.iter():
        for script in [child for child in parent if str(child.tag).endswith("script")]:
            parent.remove(script)
    return root


def draw(results: Sequence[dict[str, Any]], out: Path) -> list[Path]:
    """Write the plots of *results*, the newest of which is the last; the files."""
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in PLOTS.items():
        charts = (plot(result) for result in reversed(results))
        chart = next((found for found in charts if found is not None), None)
        if chart is not None:
            path = out / f"{name}.svg"
            path.write_text(chart.render(is_unicode=True) + "\n")
            written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, and print the files."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.plots",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON results")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the plots")
    given = parser.parse_args(arguments)
    for path in draw(load_results(given.results), given.out):
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
