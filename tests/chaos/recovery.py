"""How long it took to go on after a fault, read from the log."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.engine.entry import Entry
from app.engine.events import STEP_ENDS, OfStep, StepKey, StepScheduled, StepStarted
from tests.chaos.checker import Log, moment
from tests.chaos.faults import Incident

#: Types after which an attempt is not at work any more.
_OVER = {*STEP_ENDS, "attempt.failed", "attempt.expired", "attempt.interrupted", "step.parked"}


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds, as many as ``count``."""

    count: int = 0
    p50: float = 0.0
    p95: float = 0.0
    most: float = 0.0

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        ordered = sorted(seconds)
        if not ordered:
            return cls()
        return cls(len(ordered), _quantile(ordered, 0.5), _quantile(ordered, 0.95), ordered[-1])


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@dataclass(frozen=True, slots=True)
class _Work:
    """An attempt at work on its worker; times in unix seconds. *over* is None while it goes on."""

    worker: str
    begun: float
    over: float | None
    #: When it was taken from its worker.
    fenced: float | None
    #: When the next attempt was claimed.
    taken: float | None


def takeovers(log: Log, incidents: Sequence[Incident]) -> list[float]:
    """Seconds from the kill of a worker until what it worked on ran elsewhere, for each such step."""
    return [work.taken - at for work, at in _broken_off(log, incidents) if work.taken is not None]


def fencings(log: Log, incidents: Sequence[Incident]) -> list[float]:
    """Seconds from the kill of a worker until what it worked on was given up, for each such step."""
    return [work.fenced - at for work, at in _broken_off(log, incidents) if work.fenced is not None]


def _broken_off(log: Log, incidents: Sequence[Incident]) -> Iterator[tuple[_Work, float]]:
    """The attempts at work on workers that were killed, each with the time of that."""
    kills = [i for i in incidents if i.fault.kind == "kill-worker" and not i.skipped]
    by_pid = {str(incident.pid): incident.at for incident in kills}
    for work in _works(log):
        at = next((by_pid[part] for part in work.worker.split("-") if part in by_pid), None)
        if at is not None and work.begun < at and (work.over is None or work.over > at):
            yield work, at


def _works(log: Log) -> Iterator[_Work]:
    for entries in log.values():
        by_key: dict[StepKey, list[Entry]] = defaultdict(list)
        for entry in entries:
            if isinstance(entry.event, OfStep) and hasattr(entry.event, "attempt"):
                by_key[entry.event.key].append(entry)
        for history in by_key.values():
            yield from _works_of(history)


def _works_of(history: Sequence[Entry]) -> Iterator[_Work]:
    for number, entry in enumerate(history):
        event = entry.event
        if not isinstance(event, StepStarted):
            continue
        later = history[number + 1 :]
        over = (e for e in later if e.event.type in _OVER and _attempt(e) == event.attempt)
        fenced = (e for e in later if e.event.type == "attempt.expired")
        taken = (e for e in later if isinstance(e.event, StepStarted))
        yield _Work(event.worker, moment(entry), _first(over), _first(fenced), _first(taken))


def waits(log: Log) -> list[float]:
    """Seconds from when an attempt was due until it was claimed, for each that was."""
    found = []
    for entries in log.values():
        due: dict[tuple[StepKey, int], float] = {}
        for entry in entries:
            event = entry.event
            if isinstance(event, StepScheduled):
                due[event.key, event.attempt] = max(moment(entry), event.not_before or 0.0)
            elif isinstance(event, StepStarted) and (event.key, event.attempt) in due:
                found.append(moment(entry) - due[event.key, event.attempt])
    return found


def resumptions(log: Log, incidents: Sequence[Incident], *kinds: str) -> list[float]:
    """Seconds from the end of an outage of one of *kinds* until the next step was claimed."""
    claims = sorted(
        moment(entry) for es in log.values() for entry in es if isinstance(entry.event, StepStarted)
    )
    found = []
    for incident in incidents:
        if incident.fault.kind in kinds and not incident.skipped:
            place = bisect_right(claims, incident.until)
            if place < len(claims):
                found.append(claims[place] - incident.until)
    return found


def ends(log: Mapping[int, Sequence[Entry]]) -> list[float]:
    """When each execution that has ended did so."""
    return [
        moment(entry)
        for entries in log.values()
        for entry in entries
        if entry.event.type.startswith("execution.") and entry.event.type != "execution.started"
    ]


def _attempt(entry: Entry) -> int:
    return int(getattr(entry.event, "attempt", 0))


def _first(entries: Iterator[Entry]) -> float | None:
    found = next(entries, None)
    return None if found is None else moment(found)
