"""Writing by what is assumed of the log: in one round trip, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.engine.ahead import Ahead, NotAsAssumedError, Standing
from app.engine.events import ExecutionCompleted, StepDone
from app.engine.ports import Draft, DuplicateEventError, EventLog, LogTransaction
from tests.contracts.test_store_append import CLAIMED, SCHEDULED, STARTED, append


def test_what_is_as_assumed_is_written_without_a_look(log: EventLog) -> None:
    new = Ahead(assumed={1: Standing(), 2: Standing()})
    with log.transaction([1, 2], ahead=new) as tx:
        assert (tx.last_seq(1), tx.ended([1, 2]), tx.paused([1, 2])) == (0, {}, frozenset())
        for execution_id in (1, 2):
            entries = tx.append(execution_id, [Draft(STARTED), Draft(SCHEDULED)])
            assert [entry.seq for entry in entries] == [1, 2]
    summary = log.summary(1)
    assert summary is not None
    assert summary.status == "RUNNING"
    after = Ahead(assumed={1: Standing(2, STARTED.catalog_id)})
    with log.transaction([1], durable=False, ahead=after) as tx:
        tx.append(1, [Draft(CLAIMED, "claim:w")])
    claimed = Ahead(assumed={1: Standing(3, STARTED.catalog_id, key="claim:w")})
    with log.transaction([1], ahead=claimed) as tx:
        tx.begin(9)
        tx.append(9, [Draft(STARTED)])
        tx.append(1, [Draft(StepDone("a", 1, -1, 1)), Draft(ExecutionCompleted("a"))])
        assert tx.ended([1]) == {1: "execution.completed"}
    assert [entry.event.type for entry in log.read(1)] == [
        "execution.started",
        "step.scheduled",
        "step.started",
        "step.done",
        "execution.completed",
    ]
    assert [row.status for i in (1, 2, 9) if (row := log.summary(i))] == [
        "COMPLETED",
        "RUNNING",
        "RUNNING",
    ]


OTHERWISE = pytest.mark.parametrize(
    "standing",
    [
        pytest.param(Standing(2, 7), id="it is longer"),
        pytest.param(Standing(4, 7), id="it is shorter"),
        pytest.param(Standing(), id="it has begun"),
        pytest.param(Standing(3, 7, key="claim:another"), id="its newest event is another"),
    ],
)


@OTHERWISE
def test_nothing_is_written_where_one_stands_otherwise(log: EventLog, standing: Standing) -> None:
    for execution_id in (1, 2):
        append(log, execution_id, STARTED, SCHEDULED)
        with log.transaction([execution_id]) as tx:
            tx.append(execution_id, [Draft(CLAIMED, "claim:w")])

    def write() -> None:
        with log.transaction([1, 2], ahead=Ahead(assumed={1: Standing(3, 7), 2: standing})) as tx:
            tx.append(1, [Draft(StepDone("a", 1, -1, 1)), Draft(ExecutionCompleted("a"))])

    with pytest.raises(NotAsAssumedError):
        write()
    assert [log.count(execution_id) for execution_id in (1, 2)] == [3, 3]
    assert [row.status for i in (1, 2) if (row := log.summary(i))] == ["RUNNING", "RUNNING"]
    append(log, 1, StepDone("a", 1, -1, 1))  # and whatever comes next finds nothing in its way


@OTHERWISE
def test_nothing_is_written_where_the_only_one_stands_otherwise(
    log: EventLog, standing: Standing
) -> None:
    append(log, 1, STARTED, SCHEDULED)
    with log.transaction([1]) as tx:
        tx.append(1, [Draft(CLAIMED, "claim:w")])
    _refused(log, 1, standing)
    assert log.count(1) == 3


@pytest.mark.parametrize("key", [None, "claim:w"])
def test_nothing_is_written_where_there_is_no_log(log: EventLog, key: str | None) -> None:
    _refused(log, 1, Standing(3, 7, key=key))
    assert log.count(1) == 0


def test_the_only_one_begins_as_assumed(log: EventLog) -> None:
    with log.transaction([1], ahead=Ahead(assumed={1: Standing()})) as tx:
        tx.append(1, [Draft(STARTED)])
    assert log.count(1) == 1


def _refused(log: EventLog, execution_id: int, standing: Standing) -> None:
    with (
        pytest.raises(NotAsAssumedError),
        log.transaction([execution_id], ahead=Ahead(assumed={execution_id: standing})) as tx,
    ):
        tx.append(execution_id, [Draft(StepDone("a", 1, -1, 1))])


def test_an_end_that_was_assumed_too_early_leaves_the_summary_alone(log: EventLog) -> None:
    append(log, 1, STARTED, SCHEDULED, CLAIMED, StepDone("a", 1, -1, 1))
    with (
        pytest.raises((NotAsAssumedError, DuplicateEventError)),
        log.transaction([1], ahead=Ahead(assumed={1: Standing(2, 7)})) as tx,
    ):
        tx.append(1, [Draft(ExecutionCompleted("a"))])
    summary = log.summary(1)
    assert summary is not None
    assert (summary.status, summary.ended_at) == ("RUNNING", None)


def test_who_goes_by_what_is_assumed_cannot_read(log: EventLog) -> None:
    append(log, 1, STARTED, SCHEDULED)
    reads: list[Callable[[LogTransaction], object]] = [
        lambda tx: tx.read(1, after=2),
        lambda tx: tx.attempts([(1, SCHEDULED.key)]),
        lambda tx: tx.under(1, "x"),
        lambda tx: tx.store_value(1, "x", 1, source_step="a"),
        lambda _: None,  # who writes nothing has compared nothing
    ]
    for read in reads:
        with (
            pytest.raises(NotAsAssumedError),
            log.transaction([1], ahead=Ahead(assumed={1: Standing(2, 7)})) as tx,
        ):
            read(tx)


@pytest.mark.parametrize("assumed", [{}, {1: Standing(2, 7)}], ids=["looked at", "assumed"])
def test_something_is_done_during_the_commit(log: EventLog, assumed: dict[int, Standing]) -> None:
    append(log, 1, STARTED, SCHEDULED)
    done: list[str] = []
    with log.transaction([1], ahead=Ahead(assumed=assumed)) as tx:
        tx.append(1, [Draft(CLAIMED)])
        tx.meanwhile(lambda: done.append("once"))
        assert done == []
    assert (done, log.count(1)) == (["once"], 3)


def test_nothing_is_done_during_a_commit_that_does_not_come(log: EventLog) -> None:
    append(log, 1, STARTED, SCHEDULED)
    done: list[str] = []

    def write() -> None:
        with log.transaction([1], ahead=Ahead(assumed={1: Standing(2, 7)})) as tx:
            tx.meanwhile(lambda: done.append("once"))
            tx.read(1)

    with pytest.raises(NotAsAssumedError):
        write()
    assert done == []


def test_a_key_refuses_what_is_as_assumed_too(log: EventLog) -> None:
    append(log, 1, STARTED, SCHEDULED)
    with (
        pytest.raises(DuplicateEventError) as caught,
        log.transaction([1], ahead=Ahead(assumed={1: Standing(2, 7)})) as tx,
    ):
        tx.append(1, [Draft(SCHEDULED)])
    assert caught.value.key == "U3"
    with log.transaction([1], ahead=Ahead(assumed={1: Standing(2, 7)})) as tx:
        tx.append(1, [Draft(CLAIMED)])
    assert log.count(1) == 3
