"""What every event log says of executions that are paused, and of work that was done."""

from __future__ import annotations

from app.engine.events import (
    Event,
    ExecutionCompleted,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    StepDone,
    StepFailed,
    StepKey,
    StepScheduled,
)
from app.engine.ports import Draft, EventLog, Pointer

STARTED = ExecutionStarted(7, "p", 1, {})
SCHEDULED = StepScheduled("a", 1, -1, 1, "noop", "default.cpu", {})


def append(log: EventLog, execution_id: int, *events: Event) -> None:
    with log.transaction([execution_id]) as tx:
        tx.append(execution_id, [Draft(event) for event in events])


def test_an_execution_is_paused_until_it_is_resumed(log: EventLog) -> None:
    append(log, 1, STARTED)
    append(log, 2, STARTED)
    with log.transaction([1, 2]) as tx:
        assert tx.paused([1, 2]) == frozenset()
        tx.append(1, [Draft(ExecutionPaused("look"))])
        assert tx.paused([1, 2]) == {1}
    with log.transaction([1, 2]) as tx:
        assert tx.paused([1, 2]) == {1}
        tx.append(1, [Draft(ExecutionResumed())])
        assert tx.paused([1, 2]) == frozenset()
    with log.transaction([1, 2]) as tx:
        assert tx.paused([1, 2]) == frozenset()


def test_the_list_tells_since_when(log: EventLog) -> None:
    append(log, 1, STARTED)
    append(log, 1, ExecutionPaused())
    summary = log.summary(1)
    assert summary is not None
    assert (summary.status, summary.paused_at) == ("RUNNING", log.read(1)[1].at)
    append(log, 1, ExecutionResumed())
    summary = log.summary(1)
    assert summary is not None
    assert summary.paused_at is None


def test_a_pause_of_an_execution_that_nobody_knows_is_none(log: EventLog) -> None:
    with log.transaction([1]) as tx:
        assert tx.paused([1]) == frozenset()


def test_attempts_of_a_paused_execution_wait_for_nobody(log: EventLog) -> None:
    append(log, 1, STARTED, SCHEDULED)
    append(log, 2, STARTED, SCHEDULED, ExecutionPaused())
    assert [row[0] for row in log.unclaimed(older_than=0)] == [Pointer(1, "a", 1, -1, 1)]
    append(log, 2, ExecutionResumed())
    assert {row[0].execution_id for row in log.unclaimed(older_than=0)} == {1, 2}


def test_attempts_that_are_not_due_yet_are_found_by_looking_ahead(log: EventLog) -> None:
    later = StepScheduled("a", 1, -1, 1, "noop", "default.cpu", {}, not_before=4e9)
    append(log, 1, STARTED, later)
    assert log.unclaimed(older_than=0) == []
    assert [row[0] for row in log.unclaimed(older_than=-4e9)] == [Pointer(1, "a", 1, -1, 1)]


def test_done_finds_the_outcome_of_each_key_that_was_done(log: EventLog) -> None:
    done = [StepDone("a", 1, -1, 1, {"n": 1}), StepDone("l", 2, 7, 1, [1])]
    append(log, 1, STARTED, *done, StepFailed("b", 1, -1, 1, {"message": "no"}))
    append(log, 2, STARTED, StepDone("c", 1, -1, 1))
    keys = [StepKey("a"), StepKey("l", 2, 7), StepKey("b"), StepKey("c"), StepKey("a", 2)]
    found = log.done(1, keys)
    assert {key: entry.event for key, entry in found.items()} == {
        StepKey("a"): done[0],
        StepKey("l", 2, 7): done[1],
    }
    assert found[StepKey("a")].seq == 2
    assert log.done(1, []) == {}


def test_an_end_is_no_pause(log: EventLog) -> None:
    append(log, 1, STARTED, ExecutionPaused(), ExecutionCompleted())
    assert log.unclaimed(older_than=0) == []
    with log.transaction([1]) as tx:
        assert tx.ended([1]) == {1: "execution.completed"}
