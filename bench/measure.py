"""Runs the plans: rounds of both sides in turn, so that a noisy minute hits both."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import psycopg

from bench.sides import Client, FailedRunError
from bench.stack import Side
from bench.usage import Usage, usage
from bench.workloads import Plan, Workload


class Contender(Protocol):
    """Whatever can be measured: the engine, the floor, a peer."""

    #: Whether its failure ends the benchmark; another's only costs it its place in the workload.
    required: ClassVar[bool]
    side: Side
    rows: psycopg.Connection

    def takes(self, workload: Workload) -> bool:
        """Whether it takes part in the workload."""

    def prepare(self, workload: Workload) -> None:
        """Make the workload known."""

    def run(self, workload: Workload) -> tuple[list[float], list[int]]:
        """One round: seconds until each execution (or, together, all of them) ended, and ids."""

    def events(self, executions: Sequence[int]) -> int:
        """How many rows were recorded for them."""

    def turn(self) -> contextlib.AbstractContextManager[None]:
        """Around each of its rounds."""


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
    """All rounds of a workload, on both sides, and those of the peers by their names."""

    plan: Plan
    engine: tuple[Round, ...]
    floor: tuple[Round, ...]
    peers: Mapping[str, tuple[Round, ...]] = field(default_factory=dict)


def measure(
    plans: Iterable[Plan],
    engine: Client,
    floor: Client,
    say: Callable[[str], None],
    peers: Mapping[str, Contender] | None = None,
) -> list[Measured]:
    """Measure each plan. Raises ``FailedRunError`` where an execution does not end well."""
    results = []
    for plan in plans:
        others = peers or {}
        rounds = alternate(plan, {"engine": engine, "floor": floor, **others}, say)
        by_peer = {name: rounds[name] for name in others if name in rounds}
        results.append(Measured(plan, rounds["engine"], rounds["floor"], by_peer))
    return results


def alternate(
    plan: Plan, contenders: Mapping[str, Contender], say: Callable[[str], None]
) -> dict[str, tuple[Round, ...]]:
    """The rounds of each that takes part, in turns; of one that failed there are none."""
    workload = plan.workload
    say(f"{workload.name}: {plan.rounds} rounds")
    taking = {name: one for name, one in contenders.items() if one.takes(workload)}
    rounds: dict[str, list[Round]] = {name: [] for name in taking}
    for one in taking.values():
        one.prepare(workload)
    for number in range(plan.warm_up + plan.rounds):
        for name in [*rounds]:
            try:
                measured = run_round(workload, taking[name])
            except FailedRunError as error:
                if taking[name].required:
                    raise
                say(f"{workload.name}: {name} is left out: {error}")
                del rounds[name]
                continue
            if number >= plan.warm_up:
                rounds[name].append(measured)
    return {name: tuple(done) for name, done in rounds.items()}


def run_round(workload: Workload, one: Contender) -> Round:
    """One round on one side."""
    with one.turn():
        before = usage(one.side.pids, one.rows)
        seconds, executions = one.run(workload)
        used = usage(one.side.pids, one.rows).since(before)
    return Round(tuple(seconds), tuple(executions), used, one.events(executions))
