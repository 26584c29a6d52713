"""What every event log says of executions that belong together."""

from __future__ import annotations

import pytest

from app.engine.children import Caller
from app.engine.events import (
    ChildEnded,
    ChildStarted,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    StepCancelled,
    StepDone,
    StepScheduled,
)
from app.engine.ports import Draft, DuplicateEventError, EventLog

PARENT, CHILD = 100, 101
CALLER = Caller("a", 1, -1, 1).to_dict()


def append(log: EventLog, execution_id: int, *events: Event) -> None:
    with log.transaction([execution_id]) as tx:
        tx.append(execution_id, [Draft(event) for event in events])


def child_started(*, waits: bool = True) -> ChildStarted:
    return ChildStarted("a", 1, -1, 1, CHILD, 7, "child", 1, waits)


def begin(log: EventLog, *, waits: bool = True) -> None:
    """A parent and its child, begun in one transaction."""
    caller = CALLER if waits else None
    with log.transaction([PARENT]) as tx:
        tx.begin(CHILD)
        tx.append(
            CHILD,
            [Draft(ExecutionStarted(7, "child", 1, {}, parent_execution_id=PARENT, caller=caller))],
        )
        started = ExecutionStarted(7, "parent", 1, {})
        tx.append(PARENT, [Draft(started), Draft(child_started(waits=waits))])


def test_a_child_begins_with_its_parents_transaction(log: EventLog) -> None:
    begin(log)
    assert log.read(CHILD)[0].seq == 1
    summary = log.summary(CHILD)
    assert summary is not None
    assert summary.parent_execution_id == PARENT


def test_a_child_is_gone_with_its_parents_transaction(log: EventLog) -> None:
    append(log, PARENT, ExecutionStarted(7, "parent", 1, {}))
    with pytest.raises(DuplicateEventError), log.transaction([PARENT]) as tx:  # noqa: PT012 (the last line raises)
        tx.begin(CHILD)
        tx.append(CHILD, [Draft(ExecutionStarted(7, "child", 1, {}))])
        tx.append(PARENT, [Draft(ExecutionStarted(7, "parent", 1, {}))])
    assert log.read(CHILD) == []
    assert log.summary(CHILD) is None


def test_only_what_was_locked_or_begun_can_be_appended_to(log: EventLog) -> None:
    with log.transaction([PARENT]) as tx, pytest.raises(ValueError, match="not locked"):
        tx.append(CHILD, [Draft(ExecutionStarted(7, "child", 1, {}))])


def test_an_attempt_starts_one_child_and_is_told_once(log: EventLog) -> None:
    begin(log)
    with pytest.raises(DuplicateEventError, match="U8"):
        append(log, PARENT, child_started())
    append(log, PARENT, ChildEnded("a", 1, -1, 1, CHILD))
    with pytest.raises(DuplicateEventError, match="U8"):
        append(log, PARENT, ChildEnded("a", 1, -1, 1, CHILD))


ENDED = StepDone("a", 1, -1, 1)


@pytest.mark.parametrize(
    ("waits", "child", "parent", "untold"),
    [
        pytest.param(True, [ExecutionCompleted()], [], [CHILD], id="ended"),
        pytest.param(True, [], [], [], id="still running"),
        pytest.param(True, [ExecutionCompleted()], [ENDED], [], id="told"),
        pytest.param(
            True, [ExecutionFailed({})], [ChildEnded("a", 1, -1, 1, CHILD)], [], id="heard"
        ),
        pytest.param(True, [ExecutionCompleted()], [ExecutionFailed({})], [], id="parent ended"),
        pytest.param(False, [ExecutionCompleted()], [], [], id="nobody waits"),
    ],
)
def test_ends_that_nobody_told(
    log: EventLog, waits: bool, child: list[Event], parent: list[Event], untold: list[int]
) -> None:
    begin(log, waits=waits)
    append(log, CHILD, *child)
    append(log, PARENT, *parent)
    assert log.untold() == untold
    assert log.untold(limit=0) == []


@pytest.mark.parametrize(
    ("waits", "parent", "orphans"),
    [
        pytest.param(True, [ExecutionCancelled()], [CHILD], id="cancelled"),
        pytest.param(
            True, [StepCancelled("a", 1), ExecutionFailed({})], [CHILD], id="step cancelled, too"
        ),
        pytest.param(True, [ExecutionCancelled(cascade=False)], [], id="without cascade"),
        pytest.param(True, [ENDED, ExecutionFailed({})], [], id="the step let it go"),
        pytest.param(True, [ENDED, ExecutionCompleted()], [], id="parent completed"),
        pytest.param(True, [], [], id="parent still running"),
        pytest.param(False, [ExecutionCancelled()], [], id="nobody waits"),
    ],
)
def test_children_left_behind(
    log: EventLog, waits: bool, parent: list[Event], orphans: list[int]
) -> None:
    begin(log, waits=waits)
    append(log, PARENT, *parent)
    assert log.orphans() == orphans
    append(log, CHILD, ExecutionCompleted())
    assert log.orphans() == []


def test_a_parked_attempt_is_fenced(log: EventLog) -> None:
    from app.engine.events import StepKey, StepParked

    begin(log)
    key = StepKey("b", 1, -1)
    append(
        log,
        PARENT,
        StepScheduled("b", 1, -1, 1, "noop", "p.io", {}),
        StepParked("b", 1, -1, 1, {}, None, 5.0),
    )
    with log.transaction([PARENT]) as tx:
        assert tx.attempts([(PARENT, key)])[PARENT, key].fenced
