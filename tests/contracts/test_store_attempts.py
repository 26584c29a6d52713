"""What every event log says of attempts: the fence for claims and reports, and the sweeper's lists."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.engine.entry import payload_of
from app.engine.events import (
    AttemptExpired,
    AttemptFailed,
    AttemptInterrupted,
    AttemptLate,
    Event,
    ExecutionCompleted,
    ExecutionStarted,
    LoopDone,
    LoopStarted,
    StepCancelled,
    StepDone,
    StepFailed,
    StepKey,
    StepScheduled,
    StepSkipped,
    StepStarted,
)
from app.engine.ports import (
    AttemptState,
    Draft,
    EventLog,
    Pointer,
    RuntimeEntry,
    RuntimeRegistry,
)

STARTED = ExecutionStarted(7, "examples/demo", 3, {})
KEY = StepKey("a", 1, -1)
ERROR = {"message": "no"}


def scheduled(attempt: int = 1, *, step: str = "a", iteration: int = -1) -> StepScheduled:
    return StepScheduled(step, 1, iteration, attempt, "noop", f"pool.{attempt}", {})


def claimed(attempt: int = 1, *, worker: str = "w", iteration: int = -1) -> StepStarted:
    return StepStarted("a", 1, iteration, attempt, worker)


def append(log: EventLog, execution_id: int, *events: Event | tuple[Event, str]) -> None:
    pairs = [event if isinstance(event, tuple) else (event, None) for event in events]
    with log.transaction([execution_id]) as tx:
        tx.append(execution_id, [Draft(event, key) for event, key in pairs])


def state(log: EventLog, key: StepKey = KEY) -> AttemptState:
    with log.transaction([1]) as tx:
        return tx.attempts([(1, key)])[1, key]


ONCE = AttemptState(attempt=1, queue="pool.1", scheduled_seq=2)
HELD = replace(ONCE, started_by="w", started_key="claim-1")
AGAIN = AttemptState(attempt=2, queue="pool.2", scheduled_seq=5)
CLAIM = (claimed(), "claim-1")
FAILED = AttemptFailed("a", 1, -1, 1, ERROR, 9.0)


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param([], AttemptState(), id="never scheduled"),
        pytest.param([scheduled()], ONCE, id="scheduled"),
        pytest.param([scheduled(), CLAIM], HELD, id="claimed"),
        pytest.param([scheduled(), CLAIM, FAILED], replace(HELD, fenced=True), id="failed"),
        pytest.param(
            [scheduled(), CLAIM, AttemptExpired("a", 1, -1, 1)],
            replace(HELD, fenced=True),
            id="expired",
        ),
        pytest.param(
            [scheduled(), AttemptInterrupted("a", 1, -1, 1)],
            replace(ONCE, fenced=True),
            id="interrupted before it was claimed",
        ),
        pytest.param(
            [scheduled(), CLAIM, AttemptLate("a", 1, -1, 1)], HELD, id="late reports do not fence"
        ),
        pytest.param([scheduled(), CLAIM, FAILED, scheduled(2)], AGAIN, id="scheduled again"),
        pytest.param(
            [scheduled(), CLAIM, FAILED, scheduled(2), claimed(2, worker="v")],
            replace(AGAIN, started_by="v"),
            id="claimed again",
        ),
        pytest.param(
            [scheduled(), CLAIM, FAILED, scheduled(2), AttemptExpired("a", 1, -1, 2)],
            replace(AGAIN, fenced=True),
            id="the second attempt expired",
        ),
        pytest.param(
            [scheduled(), CLAIM, (StepDone("a", 1, -1, 1), "report-1")],
            replace(HELD, ended="step.done", ended_key="report-1"),
            id="done",
        ),
        pytest.param(
            [scheduled(), CLAIM, StepFailed("a", 1, -1, 1, ERROR)],
            replace(HELD, ended="step.failed"),
            id="failed for good",
        ),
        pytest.param([StepSkipped("a", 1)], AttemptState(ended="step.skipped"), id="skipped"),
        pytest.param(
            [scheduled(), StepCancelled("a", 1)], replace(ONCE, ended="step.cancelled"), id="cancel"
        ),
        pytest.param(
            [LoopStarted("a", 1, [], 0, 1), LoopDone("a", 1, 0, 0, 0)],
            AttemptState(ended="loop.done"),
            id="loop",
        ),
    ],
)
def test_attempts(
    log: EventLog, history: list[Event | tuple[Event, str]], expected: AttemptState
) -> None:
    append(log, 1, STARTED, *history)
    assert state(log) == expected


@pytest.mark.parametrize(
    "other", [StepKey("a", 2), StepKey("a", 1, 0), StepKey("b"), StepKey("A"), StepKey("", 0, -2)]
)
def test_attempts_of_other_keys_are_not_mixed_in(log: EventLog, other: StepKey) -> None:
    append(log, 1, STARTED, scheduled(), claimed(), StepDone("a", 1, -1, 1))
    append(log, 2, STARTED)
    assert state(log, other) == AttemptState()
    with log.transaction([2]) as tx:
        assert tx.attempts([(2, KEY)]) == {(2, KEY): AttemptState()}


def test_an_attempt_comes_with_what_it_was_scheduled_as(log: EventLog) -> None:
    again = replace(scheduled(2), reads={"b": 1}, not_before=7.5)
    append(log, 1, STARTED, scheduled(), CLAIM, FAILED, again)
    (entry,) = log.entries([(1, 5)]).values()
    assert entry.event == again
    found = state(log)
    assert found.scheduled == payload_of(entry.event)
    assert not state(log, StepKey("other")).scheduled


def test_attempts_of_many_keys_and_executions_in_one_call(log: EventLog) -> None:
    keys = [(i, StepKey("a", 1, index)) for index in range(100) for i in (1, 2)]
    for i in (1, 2):
        events = [scheduled(iteration=index) for index in range(0, 100, i)]
        append(log, i, STARTED, *events)
    with log.transaction([1, 2]) as tx:
        found = tx.attempts(keys)
    assert list(found) == keys
    assert {key for key, s in found.items() if s.attempt == 0} == {
        (2, StepKey("a", 1, index)) for index in range(1, 100, 2)
    }


def test_attempts_count_what_the_same_transaction_wrote(log: EventLog) -> None:
    append(log, 1, STARTED)
    with log.transaction([1]) as tx:
        tx.append(1, [Draft(scheduled()), Draft(claimed(), "claim-1")])
        assert tx.attempts([(1, KEY)])[1, KEY] == HELD


def test_unclaimed(log: EventLog, age: Callable[[float], None]) -> None:
    delayed = replace(scheduled(step="delayed"), not_before=time.time() + 3600)
    past = replace(scheduled(step="past"), not_before=time.time() - 3600)
    append(log, 1, STARTED, scheduled(), scheduled(step="b"), delayed, past, claimed())
    append(log, 2, STARTED, scheduled(), ExecutionCompleted())
    append(log, 3, STARTED, scheduled(), FAILED)
    append(log, 4, STARTED, scheduled(), FAILED, scheduled(2))
    append(log, 5, STARTED, scheduled(), StepCancelled("a", 1))
    due = {
        (Pointer(1, "b", 1, -1, 1), "noop", "pool.1"),
        (Pointer(1, "past", 1, -1, 1), "noop", "pool.1"),
        (Pointer(4, "a", 1, -1, 2), "noop", "pool.2"),
    }
    assert set(log.unclaimed(older_than=0)) == due
    assert log.unclaimed(older_than=30) == []
    age(60)
    assert set(log.unclaimed(older_than=30)) == due
    assert len(log.unclaimed(older_than=30, limit=2)) == 2
    assert log.unclaimed(older_than=90) == []


def test_overdue_counts_by_queue(log: EventLog, age: Callable[[float], None]) -> None:
    delayed = replace(scheduled(step="delayed"), not_before=time.time() + 3600)
    append(log, 1, STARTED, scheduled(), scheduled(step="b"), delayed, claimed())
    append(log, 2, STARTED, scheduled(), FAILED, scheduled(2))
    age(60)
    append(log, 3, STARTED, scheduled())
    first, second = log.overdue(older_than=0)
    assert (first.queue, first.count) == ("pool.1", 2)
    assert (second.queue, second.count) == ("pool.2", 1)
    assert all(60 <= found.seconds < 90 for found in (first, second))
    late = log.overdue(older_than=30)
    assert [(found.queue, found.count) for found in late] == [("pool.1", 1), ("pool.2", 1)]
    assert log.overdue(older_than=90) == []
    (only,) = log.overdue(older_than=30, limit=1)
    assert (only.queue, only.count) == ("pool.1", 1)


def test_abandoned(log: EventLog, runtime: RuntimeRegistry, age: Callable[[float], None]) -> None:
    runtime.beat(RuntimeEntry("alive", "worker_pool"))
    runtime.beat(RuntimeEntry("silent", "worker_pool"))
    runtime.beat(RuntimeEntry("server", "server_api"))
    for i, worker in enumerate(("alive", "silent", "unknown", "server"), 1):
        append(log, i, STARTED, scheduled(), claimed(worker=worker))
    append(log, 5, STARTED, scheduled(), claimed(), StepDone("a", 1, -1, 1))
    append(log, 6, STARTED, scheduled(), claimed(), FAILED)
    append(log, 7, STARTED, scheduled(), claimed(), FAILED, scheduled(2))
    append(log, 8, STARTED, scheduled(), claimed(), ExecutionCompleted())
    assert log.abandoned(lease=30) == []
    age(60)
    runtime.beat(RuntimeEntry("alive", "worker_pool"))
    append(log, 9, STARTED, scheduled(), claimed(worker="silent"))
    found = {
        (Pointer(2, "a", 1, -1, 1), "silent"),
        (Pointer(3, "a", 1, -1, 1), "unknown"),
        (Pointer(4, "a", 1, -1, 1), "server"),
    }
    assert set(log.abandoned(lease=30)) == found
    assert len(log.abandoned(lease=30, limit=1)) == 1
    assert log.abandoned(lease=90) == []
    runtime.beat(RuntimeEntry("silent", "worker_pool"))
    assert {worker for _, worker in log.abandoned(lease=30)} == {"unknown", "server"}


def test_abandoned_claim_by_the_worker_that_lost_the_first_attempt(
    log: EventLog, age: Callable[[float], None]
) -> None:
    append(log, 1, STARTED, scheduled(), claimed(), FAILED)
    age(60)
    append(log, 1, scheduled(2), claimed(2))
    assert log.abandoned(lease=30) == []
    age(60)
    assert log.abandoned(lease=30) == [(Pointer(1, "a", 1, -1, 2), "w")]


def test_iterations_are_the_ends_of_a_loop_in_order_of_the_index(log: EventLog) -> None:
    done = StepDone("a", 1, 2, 1, "two")
    failed = StepFailed("a", 1, 0, 1, ERROR)
    others: list[Event] = [
        StepCancelled("a", 1, 1),
        StepDone("a", 2, 3, 1),
        StepDone("b", 1, 4, 1),
        StepDone("a", 1, -1, 1),
    ]
    append(log, 1, STARTED, scheduled(iteration=2), done, *others, failed)
    assert [entry.event for entry in log.iterations(1, "a", 1)] == [failed, done]
    assert log.iterations(1, "a", 9) == []
    assert log.iterations(9, "a", 1) == []
