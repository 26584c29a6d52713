"""Runs the plans: rounds of both sides in turn, so that a noisy minute hits both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.memory import Watch, memory
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
        if workload.is_rate:
            return workload.size / total
        return total * 1000 / workload.size


@dataclass(frozen=True, slots=True)
class Series:
    """All rounds of one side. ``peak`` and ``end`` are memory by process, in bytes (PSS).

    ``peak`` is the most that was seen in the rounds before, which are not timed, ``end`` what is
    held after the last round.
    """

    rounds: tuple[Round, ...]
    peak: Mapping[str, int]
    end: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Measured:
    """A workload on both sides. ``floor`` is the bare hops, or the engine with the baseline."""

    plan: Plan
    engine: Series
    floor: Series


def measure(
    plans: Iterable[Plan], engine: Client, floor: Client, say: Callable[[str], None]
) -> list[Measured]:
    """Measure each plan. Raises ``FailedRunError`` where an execution does not end well."""
    return [_measured(plan, engine, floor, say) for plan in plans]


def _measured(plan: Plan, engine: Client, floor: Client, say: Callable[[str], None]) -> Measured:
    workload, baseline = plan.workload, plan.workload.baseline()
    say(f"{workload.name} {workload.heading}: {plan.rounds} rounds")
    below = (baseline or workload, engine if baseline else floor)
    sides = ((workload, engine), below)
    peaks = []
    for ran, client in sides:
        client.prepare(ran)
        with Watch(client.side.pids) as watch:
            for _ in range(plan.warm_up):
                run_round(ran, client)
        peaks.append(watch.peak)
    rounds: tuple[list[Round], list[Round]] = ([], [])
    for _ in range(plan.rounds):
        for (ran, client), done in zip(sides, rounds, strict=True):
            done.append(run_round(ran, client))
    ours, theirs = (
        Series(tuple(done), peak, memory(client.side.pids))
        for (_, client), done, peak in zip(sides, rounds, peaks, strict=True)
    )
    return Measured(plan, ours, theirs)


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
            client.wait_all([execution], workload.patience)
        took = time.perf_counter() - began
        if workload.timed_from is not None:
            took = client.seconds_since(workload.timed_from, execution)
        seconds.append(took)
        executions.append(execution)
    return seconds, executions


def _together(workload: Workload, client: Client) -> tuple[list[float], Sequence[int]]:
    began = time.perf_counter()
    if workload.executions == 1:
        executions = [client.start(workload)]
    else:
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            executions = list(pool.map(client.start, [workload] * workload.executions))
    client.wait_all(executions, workload.patience)
    return [time.perf_counter() - began], executions
