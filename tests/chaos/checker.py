"""What must be true of a log, whatever happened while it was written. Reads data only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.engine.events import (
    EXECUTION_ENDS,
    STEP_ENDS,
    Entry,
    ExecutionStarted,
    StepDone,
    StepFailed,
    StepKey,
    StepScheduled,
)
from app.engine.references import is_reference
from app.services.audit import Audit
from tests.chaos.witness import Place

#: Tools whose programs sign at the witness.
SIGNING = frozenset({"python", "shell"})
#: Parts of results that differ from run to run by their nature.
VARYING = frozenset({"execution_id", "duration_ms"})

Log = Mapping[int, Sequence[Entry]]


@dataclass(frozen=True, slots=True)
class Violation:
    """One invariant that does not hold, with what to look at."""

    code: str
    execution_id: int
    message: str


def lost(log: Log, accepted: Mapping[str, int]) -> Iterator[Violation]:
    """Every accepted execution exists, and every execution has ended."""
    for key, execution_id in accepted.items():
        if not log.get(execution_id):
            yield Violation("lost", execution_id, f"was accepted under {key} and is not in the log")
    for execution_id, entries in log.items():
        if not any(entry.event.type in EXECUTION_ENDS for entry in entries):
            open_steps = ", ".join(map(str, _open_steps(entries))) or "nothing"
            message = f"has not ended; open: {open_steps}; last: {entries[-1].event.type}"
            yield Violation("not-ended", execution_id, message)


def _open_steps(entries: Sequence[Entry]) -> list[StepKey]:
    ended = {e.event.key for e in entries if e.event.type in STEP_ENDS}  # type: ignore[union-attr]  # ends have keys
    begun = {e.event.key: None for e in entries if isinstance(e.event, StepScheduled)}
    return [key for key in begun if key not in ended]


def audited(log: Log) -> Iterator[Violation]:
    """One end per step and execution, none but audit after it, sources before what they lead to,
    seq without a gap, every attempt scheduled and claimed once."""
    for execution_id, entries in log.items():
        audit = Audit()
        for entry in entries:
            audit.see(entry)
        for found in audit.found:
            yield Violation(found.code, execution_id, f"event {found.seq}: {found.message}")


def newest(log: Log) -> Iterator[Violation]:
    """The attempt that ended a step is the newest that was scheduled of it."""
    for execution_id, entries in log.items():
        scheduled: dict[StepKey, int] = {}
        for entry in entries:
            event = entry.event
            if isinstance(event, StepScheduled):
                scheduled[event.key] = max(event.attempt, scheduled.get(event.key, 0))
            elif isinstance(event, StepDone | StepFailed):
                expected = scheduled.get(event.key, event.attempt)
                if event.attempt != expected:
                    message = f"{event.key} was ended by attempt {event.attempt} of {expected}"
                    yield Violation("old-attempt", execution_id, message)


def ran(
    log: Log, runs: Mapping[Place, Sequence[float]], lenient: Sequence[tuple[float, float]] = ()
) -> Iterator[Violation]:
    """What was done ran, what had one attempt ran once, and nothing ran that was not scheduled.

    *lenient* are times in which a claim may have been lost (unix seconds, from, to): claims do not
    wait for the disk, so a Postgres that is killed may forget one, and the attempt is claimed again.
    """
    known: set[Place] = set()
    for execution_id, entries in log.items():
        for key, attempts, done in _signed(entries):
            place = Place(execution_id, *key)
            known.add(place)
            times = runs.get(place, ())
            if done and not times:
                yield Violation("never-ran", execution_id, f"{key} is done and nobody did it")
            spared = any(begin <= at <= end for at in times for begin, end in lenient)
            if attempts == 1 and len(times) > 1 and not spared:
                yield Violation("ran-again", execution_id, f"{key}, one attempt, ran at {times}")
            if len(times) > attempts and not spared:
                message = f"{key} ran {len(times)} times in {attempts} attempts"
                yield Violation("ran-unasked", execution_id, message)
    for place in runs.keys() - known:
        yield Violation("ran-unknown", place.execution_id, f"{place} ran and is not in the log")


def _signed(entries: Sequence[Entry]) -> Iterator[tuple[StepKey, int, bool]]:
    """(key, attempts, done) of each unit of work whose program signs."""
    attempts: Counter[StepKey] = Counter()
    done: set[StepKey] = set()
    for entry in entries:
        event = entry.event
        if isinstance(event, StepScheduled) and event.tool in SIGNING:
            attempts[event.key] += 1
        elif isinstance(event, StepDone):
            done.add(event.key)
    for key, count in attempts.items():
        yield key, count, key in done


def tailed(log: Log, seen: Sequence[tuple[int, int]]) -> Iterator[Violation]:
    """Who followed all executions saw every event, and each of them once."""
    there = {(i, entry.seq) for i, entries in log.items() for entry in entries}
    counted = Counter(seen)
    for execution_id, seq in sorted(there - counted.keys()):
        yield Violation("tail-missed", execution_id, f"event {seq} never came")
    for (execution_id, seq), times in counted.items():
        if times > 1:
            yield Violation("tail-twice", execution_id, f"event {seq} came {times} times")
        if (execution_id, seq) not in there:
            yield Violation("tail-unknown", execution_id, f"event {seq} came and is not there")


# ---------------------------------------------------------------------- outcomes
Outcome = tuple[Any, ...]


def outcome(entries: Sequence[Entry]) -> Outcome:
    """How the execution and each of its steps ended, with what result; without order and attempts."""
    ends = []
    status = "RUNNING"
    for entry in entries:
        event = entry.event
        if event.type in EXECUTION_ENDS:
            status = event.type
        elif event.type in STEP_ENDS:
            ends.append((event.key, event.type, _what(event)))  # type: ignore[union-attr]  # ends have keys
    return (status, tuple(sorted(ends, key=repr)))


def _what(event: Any) -> str:
    if isinstance(event, StepFailed):
        return f"{event.error.get('kind')}: {event.error.get('message')}"
    return repr(steady(getattr(event, "result", None)))


def steady(value: Any) -> Any:
    """*value* without what differs from run to run."""
    if isinstance(value, Mapping):
        return {k: steady(v) for k, v in sorted(value.items()) if k not in VARYING}
    if isinstance(value, list):
        return [steady(item) for item in value]
    assert not is_reference(value), "results here are small"
    return value


def identity(entries: Sequence[Entry]) -> tuple[str, Any]:
    """What decides the outcome: the playbook, and the number it was given."""
    event = entries[0].event
    assert isinstance(event, ExecutionStarted)
    return event.path, event.workload.get("n")


def differing(log: Log, reference: Mapping[tuple[str, Any], Outcome]) -> Iterator[Violation]:
    """Every execution came out as the same one did when nothing was broken."""
    for execution_id, entries in log.items():
        expected = reference.get(identity(entries))
        found = outcome(entries)
        if expected is None:
            yield Violation("no-reference", execution_id, f"{identity(entries)} never ran in peace")
        elif found != expected:
            yield Violation("outcome", execution_id, _difference(expected, found))


def _difference(expected: Outcome, found: Outcome) -> str:
    if expected[0] != found[0]:
        return f"ended with {found[0]}, not {expected[0]}: {_only(found[1], expected[1])}"
    return f"{_only(found[1], expected[1])} instead of {_only(expected[1], found[1])}"


def _only(these: Iterable[Any], those: Iterable[Any]) -> str:
    others = set(those)
    return "; ".join(str(item) for item in these if item not in others) or "nothing"


def references(log: Log) -> dict[tuple[str, Any], Outcome]:
    """The outcomes of executions that ran in peace, by what decides them."""
    return {identity(entries): outcome(entries) for entries in log.values()}
