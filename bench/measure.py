"""Runs the plans: rounds of both sides in turn, so that a noisy minute hits both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.sides import Client
from bench.usage import Usage, usage
from bench.workloads import Plan, Workload

#: Threads that submit where executions run together.
SUBMITTERS = 8


@dataclass(frozen=True, slots=True)
class Round:
    """One round: seconds until each execution (or, together, all of them) ended, and what it used."""

    seconds: tuple[float, ...]
    executions: tuple[int, ...]
    used: Usage
    events: int

    def value(self, workload: Workload) -> float:
        """The figure of the round, in the workload's unit."""
        if workload.unit == "ms":
            return statistics.median(self.seconds) * 1000
        total = sum(self.seconds)
        if workload.unit == "steps/s":
            return workload.size / total
        return total * 1000 / workload.size


@dataclass(frozen=True, slots=True)
class Measured:
    """All rounds of a workload, on both sides."""

    plan: Plan
    engine: tuple[Round, ...]
    floor: tuple[Round, ...]


def measure(
    plans: Iterable[Plan], engine: Client, floor: Client, say: Callable[[str], None]
) -> list[Measured]:
    """Measure each plan. Raises ``FailedRunError`` where an execution does not end well."""
    results = []
    for plan in plans:
        workload = plan.workload
        say(f"{workload.name}: {plan.rounds} rounds")
        rounds: dict[Client, list[Round]] = {engine: [], floor: []}
        for client in rounds:
            client.prepare(workload)
        for number in range(plan.warm_up + plan.rounds):
            for client, done in rounds.items():
                measured = run_round(workload, client)
                if number >= plan.warm_up:
                    done.append(measured)
        results.append(Measured(plan, tuple(rounds[engine]), tuple(rounds[floor])))
    return results


def run_round(workload: Workload, client: Client) -> Round:
    """One round on one side."""
    before = usage(client.side.pids, client.rows)
    run = _together if workload.together else _one_by_one
    seconds, executions = run(workload, client)
    used = usage(client.side.pids, client.rows).since(before)
    return Round(tuple(seconds), tuple(executions), used, client.events(executions))


def _one_by_one(workload: Workload, client: Client) -> tuple[list[float], list[int]]:
    seconds, executions = [], []
    for _ in range(workload.executions):
        began = time.perf_counter()
        execution = client.start(workload)
        if workload.asks_over_http:
            client.wait(execution)
        else:
            client.wait_all([execution])
        seconds.append(time.perf_counter() - began)
        executions.append(execution)
    return seconds, executions


def _together(workload: Workload, client: Client) -> tuple[list[float], Sequence[int]]:
    began = time.perf_counter()
    if workload.executions == 1:
        executions = [client.start(workload)]
    else:
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            executions = list(pool.map(client.start, [workload] * workload.executions))
    client.wait_all(executions)
    return [time.perf_counter() - began], executions
