"""Whether a step costs more the longer its execution is, and the more the log holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bench import flatness
from bench.filler import fill
from bench.measure import Round, run_round
from bench.sides import Client
from bench.workloads import Chain

#: Places at which the cost of a completion is told, from the first to the last.
PLACES = 12
#: Completions on each side of a place of which the median is taken.
AROUND = 50
ROUNDS = 5
#: Events of each execution that fills the log, and the days over which those of one size lie.
EVENTS, DAYS = 12, 100
#: What is run on a log of each size.
CHAIN = Chain(steps=20, executions=2)


def in_execution(iterations: int, turns: int) -> list[dict[str, Any]]:
    """``{kind, event, ms, rows}``: CPU of deciding after a completion, at that event of its log."""
    found = []
    for kind, (costs, events) in flatness.costs(iterations, turns).items():
        each = events / len(costs)
        for place in places(len(costs)):
            near = costs[max(0, place - AROUND) : place + AROUND]
            rows = [cost.rows for cost in near if cost.rows >= 0]
            found.append(
                {
                    "kind": kind,
                    "event": round(place * each),
                    "ms": statistics.median(cost.seconds for cost in near) * 1000,
                    "rows": statistics.median(rows) if rows else None,
                }
            )
    return found


def places(count: int) -> list[int]:
    """Up to ``PLACES`` of *count* completions, each as many times the one before.

    Neither the very first, which warm up, nor the very last, which schedule nothing any more.
    """
    first, last = min(2 * AROUND, count // 2), max(1, count - 2 * AROUND)
    ratio = max(1.0, last / first) ** (1 / (PLACES - 1))
    return sorted({round(first * ratio**number) for number in range(PLACES)})


def in_log(
    sizes: Sequence[int], engine: Client, floor: Client, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """``{events, engine, floor, cpu_ms}``: ms a step of a chain when the log holds that many events.

    *sizes* ascend, and count what is filled in: what *engine* ran before is there as well.
    ``cpu_ms`` is the CPU of all processes a step.
    """
    for client in (engine, floor):
        client.prepare(CHAIN)
        run_round(CHAIN, client)
    found, made = [], 0
    for number, size in enumerate(sizes):
        say(f"a log of {size} events")
        if size > made:
            # Each time behind the times before, so that no two executions have one id.
            until = datetime.now(UTC) - timedelta(days=1 + DAYS * number)
            few = (size - made) // EVENTS
            url = engine.side.database_url
            made += fill(url, events=EVENTS * few, executions=few, days=DAYS, until=until).events
        rounds = [(run_round(CHAIN, engine), run_round(CHAIN, floor)) for _ in range(ROUNDS)]
        ours, theirs = zip(*rounds, strict=True)
        found.append(
            {
                "events": size,
                "engine": statistics.median(done.value(CHAIN) for done in ours),
                "floor": statistics.median(done.value(CHAIN) for done in theirs),
                "cpu_ms": statistics.median(map(_cpu, ours)),
            }
        )
    return found


def _cpu(done: Round) -> float:
    return 1000 * sum(done.used.cpu.values()) / CHAIN.ran


def table(data: dict[str, Any]) -> str:
    """Both as Markdown tables."""
    lines = ["| | at event | CPU | rows read |", "|---|---:|---:|---:|"]
    lines += [
        f"| {row['kind']} | {row['event']} | {row['ms']:.2f} ms | {row['rows']} |"
        for row in data["in_execution"]
    ]
    lines += ["", "| events in the log | ms/step | floor | CPU/step |", "|---:|---:|---:|---:|"]
    lines += [
        f"| {row['events']} | {row['engine']:.2f} | {row['floor']:.2f} | {row['cpu_ms']:.2f} ms |"
        for row in data["in_log"]
    ]
    return "\n".join(lines)
