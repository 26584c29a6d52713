"""What must be true of a log, whatever happened while it was written. Reads data only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.engine.entry import Entry
from app.engine.events import (
    EXECUTION_ENDS,
    STEP_ENDS,
    ExecutionStarted,
    StepDone,
    StepFailed,
    StepKey,
    StepScheduled,
    StepStarted,
)
from app.engine.references import is_reference
from app.services.audit import Audit
from tests.chaos.tail import Seen
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
    log: Log, runs: Mapping[Place, Sequence[float]], killed: Sequence[float] = ()
) -> Iterator[Violation]:
    """What was done ran, what had one attempt ran once, and nothing ran that was not scheduled.

    *killed* is when Postgres was (unix seconds). Claims do not wait for the disk, so it may have
    forgotten one: an attempt that was due before and is claimed after that may have run before, too.
    """
    known: set[Place] = set()
    for execution_id, entries in log.items():
        for key, work in _signed(entries).items():
            place = Place(execution_id, *key)
            known.add(place)
            times = runs.get(place, ())
            if work.done and not times:
                yield Violation("never-ran", execution_id, f"{key} is done and nobody did it")
            if len(times) > work.attempts and not work.spans(killed):
                code = "ran-again" if work.attempts == 1 else "ran-unasked"
                message = f"{key}, {work.attempts} attempts, ran at {times}"
                yield Violation(code, execution_id, message)
    for place in runs.keys() - known:
        yield Violation("ran-unknown", place.execution_id, f"{place} ran and is not in the log")


@dataclass(slots=True)
class _Work:
    """What the log says of a unit of work: how often it was scheduled, and if it was done."""

    attempts: int = 0
    done: bool = False
    #: From when it was scheduled until it was claimed, for each attempt, in unix seconds.
    waits: list[tuple[float, float]] = field(default_factory=list)

    def spans(self, moments: Sequence[float]) -> bool:
        """Whether an attempt was scheduled before one of *moments* and claimed after it."""
        return any(begin < at < end for begin, end in self.waits for at in moments)


def _signed(entries: Sequence[Entry]) -> Mapping[StepKey, _Work]:
    """The units of work whose programs sign."""
    works: dict[StepKey, _Work] = {}
    scheduled: dict[StepKey, float] = {}
    for entry in entries:
        event = entry.event
        if isinstance(event, StepScheduled) and event.tool in SIGNING:
            works.setdefault(event.key, _Work()).attempts += 1
            scheduled[event.key] = moment(entry)
        elif isinstance(event, StepStarted) and event.key in works:
            works[event.key].waits.append((scheduled[event.key], moment(entry)))
        elif isinstance(event, StepDone) and event.key in works:
            works[event.key].done = True
    return works


def moment(entry: Entry) -> float:
    """When the event was written, in unix seconds."""
    assert entry.at is not None
    return entry.at.timestamp()


def tailed(log: Log, seen: Sequence[Seen]) -> Iterator[Violation]:
    """Who followed all executions saw every event, and each of them once."""
    there = [
        Seen(execution_id, entry.seq, entry.event_id, entry.event.type)
        for execution_id, entries in log.items()
        for entry in entries
    ]
    counted = Counter(seen)
    for each in there:
        if each not in counted:
            message = f"event {each.seq}, {each.type}, never came"
            yield Violation("tail-missed", each.execution_id, message)
    for each in sorted(counted - Counter(there)):
        what = "came and is not there" if counted[each] == 1 else f"came {counted[each]} times"
        message = f"event {each.seq}, {each.type}, {what}"
        code = "tail-twice" if each in there else "tail-unknown"
        yield Violation(code, each.execution_id, message)


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
