"""The checker finds nothing in a good log, and in a bad one what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.engine.entry import Entry
from app.engine.events import (
    AttemptExpired,
    AttemptLate,
    Event,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    StepDone,
    StepScheduled,
    StepStarted,
)
from tests.chaos import checker, recovery
from tests.chaos.checker import Violation
from tests.chaos.faults import Incident
from tests.chaos.plan import Fault
from tests.chaos.tail import Seen
from tests.chaos.witness import Place

A1 = StepScheduled("a", 1, -1, 1, "python", "default.cpu", {})
#: One execution, whose first step was lost once with its worker.
GOOD: Sequence[Event] = (
    ExecutionStarted(7, "chaos/chain", 1, {"n": 3}),
    A1,
    StepStarted("a", 1, -1, 1, "worker-host-100-ab"),
    AttemptExpired("a", 1, -1, 1, "worker-host-100-ab"),
    replace(A1, attempt=2),
    StepStarted("a", 1, -1, 2, "worker-host-200-cd"),
    AttemptLate("a", 1, -1, 1, "worker-host-100-ab", "done"),
    StepDone("a", 1, -1, 2, {"n": 4, "execution_id": "12"}),
    StepScheduled("b", 1, -1, 1, "python", "default.cpu", {"a": 8}, "a", 1),
    StepStarted("b", 1, -1, 1, "worker-host-200-cd"),
    StepDone("b", 1, -1, 1, 5),
    ExecutionCompleted("b"),
)
RUNS = {Place(1, "a", 1, -1): [4.0, 7.0], Place(1, "b", 1, -1): [11.0]}


def logged(*events: Event) -> list[Entry]:
    return [
        Entry(1, seq, event, seq, datetime.fromtimestamp(seq, UTC))
        for seq, event in enumerate(events, 1)
    ]


def came(entries: Sequence[Entry]) -> list[Seen]:
    return [Seen(1, entry.seq, entry.event_id, entry.event.type) for entry in entries]


def renamed(seen: list[Seen], index: int) -> list[Seen]:
    return [*seen[:index], seen[index]._replace(type="other"), *seen[index + 1 :]]


def codes(violations: Sequence[Violation]) -> set[str]:
    return {violation.code for violation in violations}


def all_of(
    entries: Sequence[Entry],
    runs: dict[Place, list[float]] = RUNS,
    seen: Sequence[Seen] | None = None,
    accepted: dict[str, int] | None = None,
) -> set[str]:
    log = {1: entries}
    tail = came(entries) if seen is None else seen
    reference = checker.references({1: logged(*GOOD)})
    return codes(
        [
            *checker.lost(log, accepted or {"key": 1}),
            *checker.audited(log),
            *checker.newest(log),
            *checker.ran(log, runs),
            *checker.tailed(log, tail),
            *checker.differing(log, reference),
        ]
    )


def test_a_good_log_is_good() -> None:
    assert all_of(logged(*GOOD)) == set()


def without(seq: int) -> list[Entry]:
    return [entry for entry in logged(*GOOD) if entry.seq != seq]


def swapped(seq: int, event: Event) -> list[Entry]:
    events = list(GOOD)
    events[seq - 1] = event
    return logged(*events)


BROKEN: dict[str, Callable[[], tuple[set[str], str]]] = {
    "an accepted execution is gone": lambda: (all_of(logged(*GOOD), accepted={"k": 2}), "lost"),
    "it never ends": lambda: (all_of(logged(*GOOD[:-1])), "not-ended"),
    "it ends twice": lambda: (all_of(logged(*GOOD, ExecutionFailed({}))), "second-end"),
    "a step ends twice": lambda: (all_of(logged(*GOOD[:8], *GOOD[7:])), "step-ended-twice"),
    "work begins after the end": lambda: (
        all_of(logged(*GOOD, replace(A1, step="c"))),
        "after-end",
    ),
    "an event is missing": lambda: (all_of(without(7)), "seq-gap"),
    "a step is led to by one that runs": lambda: (
        all_of(swapped(9, replace(A1, step="b", source="z", source_visit=1))),
        "source",
    ),
    "an attempt is scheduled twice": lambda: (all_of(swapped(5, A1)), "scheduled-twice"),
    "an attempt is claimed twice": lambda: (all_of(logged(*GOOD[:3], *GOOD[2:])), "claimed-twice"),
    "an old attempt ends the step": lambda: (
        all_of(swapped(8, StepDone("a", 1, -1, 1, {"n": 4}))),
        "old-attempt",
    ),
    "what is done was never done": lambda: (all_of(logged(*GOOD), runs={}), "never-ran"),
    "one attempt ran twice": lambda: (
        all_of(logged(*GOOD), runs={**RUNS, Place(1, "b", 1, -1): [11.0, 12.0]}),
        "ran-again",
    ),
    "two attempts ran three times": lambda: (
        all_of(logged(*GOOD), runs={**RUNS, Place(1, "a", 1, -1): [4.0, 7.0, 8.0]}),
        "ran-unasked",
    ),
    "something ran that is in no log": lambda: (
        all_of(logged(*GOOD), runs={**RUNS, Place(1, "z", 1, -1): [1.0]}),
        "ran-unknown",
    ),
    "the tail missed an event": lambda: (
        all_of(logged(*GOOD), seen=came(logged(*GOOD))[:-1]),
        "tail-missed",
    ),
    "the tail saw an event twice": lambda: (
        all_of(logged(*GOOD), seen=[*came(logged(*GOOD)), came(logged(*GOOD))[4]]),
        "tail-twice",
    ),
    "the tail saw another event in its place": lambda: (
        all_of(logged(*GOOD), seen=renamed(came(logged(*GOOD)), 4)),
        "tail-missed",
    ),
    "the tail saw what is not there": lambda: (
        all_of(logged(*GOOD), seen=came(logged(*GOOD, ExecutionCompleted("b")))),
        "tail-unknown",
    ),
    "a result is another": lambda: (all_of(swapped(11, StepDone("b", 1, -1, 1, 6))), "outcome"),
    "it ends otherwise": lambda: (all_of(swapped(12, ExecutionFailed({}))), "outcome"),
    "it never ran in peace": lambda: (
        all_of(swapped(1, ExecutionStarted(7, "chaos/chain", 1, {"n": 9}))),
        "no-reference",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_it_complains_when(what: str) -> None:
    found, expected = BROKEN[what]()
    assert expected in found


def test_a_claim_that_postgres_may_have_forgotten_may_run_again() -> None:
    log, runs = {1: logged(*GOOD)}, {**RUNS, Place(1, "b", 1, -1): [9.2, 11.0]}
    assert codes(list(checker.ran(log, runs))) == {"ran-again"}
    assert codes(list(checker.ran(log, runs, killed=[9.5]))) == set()
    assert codes(list(checker.ran(log, runs, killed=[8.5, 10.5]))) == {"ran-again"}


def test_outcomes_leave_out_what_differs_by_nature() -> None:
    other = swapped(8, StepDone("a", 1, -1, 2, {"n": 4, "execution_id": "99"}))
    assert checker.outcome(other) == checker.outcome(logged(*GOOD))
    undisturbed = logged(*GOOD[:2], StepStarted("a", 1, -1, 1, "w"),
                         StepDone("a", 1, -1, 1, {"n": 4}), *GOOD[8:])  # fmt: skip
    assert checker.outcome(undisturbed) == checker.outcome(logged(*GOOD)), "attempts do not count"


def test_a_takeover_lasts_from_the_kill_until_another_worker_has_the_step() -> None:
    kill = Incident(Fault(0.0, "kill-worker", "worker-1", 1.0), at=3.5, until=4.5, pid=100)
    assert recovery.takeovers({1: logged(*GOOD)}, [kill]) == [2.5]
    idle = Incident(Fault(0.0, "kill-worker", "worker-2", 1.0), at=3.5, until=4.5, pid=200)
    assert recovery.takeovers({1: logged(*GOOD)}, [idle]) == [], "it worked on nothing just then"


def test_after_an_outage_the_next_claim_counts() -> None:
    outage = Incident(Fault(0.0, "kill-nats", "nats", 1.0), at=6.5, until=7.5)
    assert recovery.resumptions({1: logged(*GOOD)}, [outage], "kill-nats") == [2.5]
    assert recovery.resumptions({1: logged(*GOOD)}, [outage], "kill-postgres") == []
