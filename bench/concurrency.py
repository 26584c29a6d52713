"""Throughput against concurrency: W4 with more and more chains at once, beside its floor."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from bench.measure import run_round
from bench.sides import Client
from bench.workloads import Crowd

STEPS = 5
#: Chains of all rounds of one size together, so that few at once are asked for more often.
CHAINS = 96


def concurrency(
    sizes: Sequence[int], engine: Client, floor: Client, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """For each size ``{chains, rounds, engine, floor}``, the medians in steps a second."""
    found = []
    for chains in sizes:
        workload = Crowd(steps=STEPS, executions=chains)
        rounds = max(3, min(12, CHAINS // chains))
        say(f"W4 with {chains} chains at once: {rounds} rounds")
        values: dict[Client, list[float]] = {engine: [], floor: []}
        for client in values:
            client.prepare(workload)
            run_round(workload, client)
        for _ in range(rounds):
            for client, rates in values.items():
                rates.append(run_round(workload, client).value(workload))
        found.append(
            {
                "chains": chains,
                "rounds": rounds,
                "engine": statistics.median(values[engine]),
                "floor": statistics.median(values[floor]),
            }
        )
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As a Markdown table."""
    lines = ["| chains at once | steps/s | floor | times floor |", "|---:|---:|---:|---:|"]
    lines += [
        f"| {row['chains']} | {row['engine']:.0f} | {row['floor']:.0f} |"
        f" {row['floor'] / row['engine']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)
