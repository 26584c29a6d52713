"""Runs the plans: rounds of all sides in turn, so that a noisy minute hits all."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import psycopg

from bench.memory import Watch, memory
from bench.rest import until_idle
from bench.sides import FailedRunError
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
    """A workload on all sides, on the peers by their names.

    ``floor`` is the bare hops, or the engine with the baseline.
    """

    plan: Plan
    engine: Series
    floor: Series
    peers: Mapping[str, Series] = field(default_factory=dict)


@dataclass(slots=True)
class Entry:
    """Who takes part in a plan, what it runs for it, and what came of that."""

    one: Contender
    workload: Workload
    rounds: list[Round] = field(default_factory=list)
    peak: Mapping[str, int] = field(default_factory=dict)

    def warm_up(self, rounds: int) -> None:
        """Run *rounds* that are not timed, with its memory watched."""
        self.one.prepare(self.workload)
        with Watch(self.one.side.pids) as watch:
            for _ in range(rounds):
                run_round(self.workload, self.one)
        self.peak = watch.peak

    def series(self) -> Series:
        """What was measured, and the memory that is held now."""
        return Series(tuple(self.rounds), self.peak, memory(self.one.side.pids))


def measure(
    plans: Iterable[Plan],
    engine: Contender,
    floor: Contender,
    say: Callable[[str], None],
    peers: Mapping[str, Contender] | None = None,
) -> list[Measured]:
    """Measure each plan. Raises ``FailedRunError`` where an execution does not end well."""
    others = peers or {}
    results = []
    for plan in plans:
        baseline = plan.workload.baseline()
        found = _in_turns(
            plan,
            {
                "engine": Entry(engine, plan.workload),
                "floor": Entry(engine, baseline) if baseline else Entry(floor, plan.workload),
                **_entries(plan.workload, others),
            },
            say,
        )
        by_peer = {name: found[name] for name in others if name in found}
        results.append(Measured(plan, found["engine"], found["floor"], by_peer))
    return results


def alternate(
    plan: Plan, contenders: Mapping[str, Contender], say: Callable[[str], None]
) -> dict[str, Series]:
    """The rounds of each that takes part, in turns; of one that failed there are none."""
    return _in_turns(plan, _entries(plan.workload, contenders), say)


def _entries(workload: Workload, contenders: Mapping[str, Contender]) -> dict[str, Entry]:
    return {name: Entry(one, workload) for name, one in contenders.items() if one.takes(workload)}


def _in_turns(
    plan: Plan, entries: dict[str, Entry], say: Callable[[str], None]
) -> dict[str, Series]:
    say(f"{plan.workload.name} {plan.workload.heading}: {plan.rounds} rounds")
    for number in range(1 + plan.rounds):
        for name, entry in [*entries.items()]:
            try:
                if number == 0:
                    entry.warm_up(plan.warm_up)
                else:
                    entry.rounds.append(run_round(entry.workload, entry.one))
            except FailedRunError as error:
                if entry.one.required:
                    raise
                say(f"{plan.workload.name}: {name} is left out: {error}")
                del entries[name]
    return {name: entry.series() for name, entry in entries.items()}


def run_round(workload: Workload, one: Contender) -> Round:
    """One round on one side, begun when what the round before left to do is done."""
    with one.turn():
        until_idle(one.rows)
        before = usage(one.side.pids, one.rows)
        seconds, executions = one.run(workload)
        used = usage(one.side.pids, one.rows).since(before)
    return Round(tuple(seconds), tuple(executions), used, one.events(executions))
