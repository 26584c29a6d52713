"""What was seen while a scenario ran, and what it amounts to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.engine.entry import Entry
from app.engine.events import EXECUTION_ENDS, Event, ExecutionStarted, StepKey, StepScheduled
from tests.chaos import checker, recovery
from tests.chaos.checker import Log, Violation
from tests.chaos.faults import Incident
from tests.chaos.recovery import Spread
from tests.chaos.report import Report
from tests.chaos.tail import Seen
from tests.chaos.witness import Place

#: The line of the table that says how soon work of killed workers went on.
TAKEOVER = "killed worker: its steps ran elsewhere"


@dataclass(slots=True)
class Findings:
    """What was seen while it ran, for the checker."""

    accepted: Mapping[str, int] = field(default_factory=dict)
    answers: Counter[int] = field(default_factory=Counter)
    incidents: Sequence[Incident] = ()
    seen: Sequence[Seen] = ()
    runs: Mapping[Place, Sequence[float]] = field(default_factory=dict)
    peace: Log = field(default_factory=dict)
    log: Log = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)
    exits: Mapping[str, int] = field(default_factory=dict)
    #: When all had ended, or should have (unix seconds).
    over: float = 0.0
    #: Seconds that the scenario measured itself, by name.
    recovered: Mapping[str, list[float]] = field(default_factory=dict)

    @property
    def events(self) -> Iterator[Event]:
        """Every event of every execution."""
        return (entry.event for entries in self.log.values() for entry in entries)

    @property
    def during(self) -> Log:
        """The executions that were not over before anything was broken."""
        return {i: entries for i, entries in self.log.items() if i not in self.peace}

    @property
    def settled(self) -> float:
        """Seconds from the end of the last fault until all had ended."""
        newest = max((at for at in recovery.ends(self.log) if at <= self.over), default=0.0)
        last = max((incident.until for incident in self.incidents), default=newest)
        return max(0.0, newest - last)


def violations(found: Findings) -> Iterator[Violation]:
    """Every invariant that does not hold."""
    killed = [i.at for i in found.incidents if i.fault.kind == "kill-postgres"]
    yield from checker.lost(found.log, found.accepted)
    yield from checker.audited(found.log)
    yield from checker.newest(found.log)
    yield from checker.ran(found.log, found.runs, killed)
    yield from checker.tailed(found.log, found.seen)
    yield from checker.differing(found.log, checker.references(found.peace))


def slow(found: Findings, *, settle: float, takeover: float) -> Iterator[Violation]:
    """What took longer than it may, in seconds; *takeover* is for 95 % of the steps."""
    if found.settled > settle:
        yield Violation("late", 0, f"the last one ended {found.settled:.0f} s after the last fault")
    took = Spread.of(recovery.takeovers(found.during, found.incidents))
    if took.p95 > takeover:
        message = f"of killed workers' steps 95 % ran elsewhere after {took.p95:.0f} s"
        yield Violation("slow-takeover", 0, message)


def report(found: Findings, *, seed: int, executions: int, settle: float, took: float) -> Report:
    """The figures of a run."""
    done = [incident for incident in found.incidents if not incident.skipped]
    started = [event for event in found.events if isinstance(event, ExecutionStarted)]
    return Report(
        seed=seed,
        executions=executions,
        accepted=len(found.accepted),
        children=sum(event.parent_execution_id is not None for event in started),
        steps=sum(len(_keys(entries)) for entries in found.log.values()),
        events=sum(map(len, found.log.values())),
        faults=dict(Counter(incident.fault.kind for incident in done).most_common()),
        skipped={i.fault.kind: i.skipped for i in found.incidents if i.skipped},
        answers={str(status or "none"): count for status, count in found.answers.items()},
        exits=found.exits,
        settled=found.settled,
        settle=settle,
        took=took,
        recovery=_recovery(found),
        counts=_counts(found),
        violations=found.violations,
    )


def _keys(entries: Sequence[Entry]) -> set[StepKey]:
    """The units of work that were scheduled."""
    return {e.event.key for e in entries if isinstance(e.event, StepScheduled)}


def _counts(found: Findings) -> dict[str, int]:
    types = Counter(event.type for event in found.events)
    return {
        "attempts": types["step.scheduled"],
        "attempts given to another worker": types["attempt.expired"],
        "reports that came too late": types["attempt.late"],
        "runs seen by the witness": sum(map(len, found.runs.values())),
        "executions that completed": types["execution.completed"],
        "executions that ended otherwise": sum(
            types[name] for name in EXECUTION_ENDS if name != "execution.completed"
        ),
    }


def _recovery(found: Findings) -> dict[str, Spread]:
    """How long it took to go on, by what was broken."""
    during, incidents = found.during, found.incidents
    seconds = {
        "killed worker: its steps given up": recovery.fencings(during, incidents),
        TAKEOVER: recovery.takeovers(during, incidents),
        "Postgres back: next step": recovery.resumptions(during, incidents, "kill-postgres"),
        "NATS back: next step": recovery.resumptions(during, incidents, "kill-nats"),
        "NATS back, empty: next step": recovery.resumptions(during, incidents, "lose-nats"),
        "due until claimed": recovery.waits(during),
        **found.recovered,
    }
    return {name: Spread.of(values) for name, values in seconds.items()}
