"""What every event log shows: events by range, executions by filter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.engine.events import (
    CtxUpdated,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    StepSkipped,
)
from app.engine.ports import Draft, EventLog, ExecutionFilter, ExecutionSummary
from app.store.ids import first_id_at

STARTED = ExecutionStarted(7, "examples/demo", 3, {})
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ENDS: list[Event] = [
    ExecutionCompleted(),
    ExecutionFailed({"message": "it broke", "steps": ["a"]}),
    ExecutionCancelled("enough"),
]


def append(log: EventLog, execution_id: int, *events: Event) -> None:
    with log.transaction([execution_id]) as tx:
        tx.append(execution_id, [Draft(event) for event in events])


def started(path: str, parent: int | None = None) -> ExecutionStarted:
    return ExecutionStarted(7, path, 1, {}, parent)


@pytest.fixture
def listed(log: EventLog) -> EventLog:
    """Eight executions, an hour apart: odd ones of path a, and one of each end in turn."""
    for number in range(8):
        i = first_id_at(NOON + timedelta(hours=number)) + 5
        append(log, i, started("a" if number % 2 else "b", 99 if number > 5 else None))
        if number % 4:
            append(log, i, ENDS[number % 4 - 1])
    return log


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        pytest.param(ExecutionFilter(), [7, 6, 5, 4, 3, 2, 1, 0], id="all, newest first"),
        pytest.param(ExecutionFilter(limit=3), [7, 6, 5], id="a page"),
        pytest.param(ExecutionFilter(limit=3, offset=6), [1, 0], id="the last page"),
        pytest.param(ExecutionFilter(status="RUNNING"), [4, 0], id="status"),
        pytest.param(ExecutionFilter(status="CANCELLED"), [7, 3], id="another status"),
        pytest.param(ExecutionFilter(status="NONE"), [], id="unknown status"),
        pytest.param(ExecutionFilter(path="a"), [7, 5, 3, 1], id="path"),
        pytest.param(ExecutionFilter(path="a", status="COMPLETED"), [5, 1], id="path and status"),
        pytest.param(ExecutionFilter(parent_execution_id=99), [7, 6], id="parent"),
        pytest.param(
            ExecutionFilter(started_after=NOON + timedelta(hours=6)), [7, 6], id="after, included"
        ),
        pytest.param(
            ExecutionFilter(started_before=NOON + timedelta(hours=1)), [0], id="before, excluded"
        ),
        pytest.param(
            ExecutionFilter(
                path="a",
                started_after=NOON + timedelta(hours=1),
                started_before=NOON + timedelta(hours=5),
            ),
            [3, 1],
            id="path and time",
        ),
        pytest.param(
            ExecutionFilter(before=first_id_at(NOON + timedelta(hours=3)) + 5, limit=2),
            [2, 1],
            id="after the cursor",
        ),
    ],
)
def test_executions(listed: EventLog, query: ExecutionFilter, numbers: list[int]) -> None:
    found = [row.execution_id for row in listed.executions(query)]
    assert found == [first_id_at(NOON + timedelta(hours=number)) + 5 for number in numbers]


def test_cursors_walk_through_everything_once(listed: EventLog) -> None:
    seen: list[int] = []
    while page := listed.executions(ExecutionFilter(limit=3, before=seen[-1] if seen else None)):
        seen += [row.execution_id for row in page]
    assert len(seen) == 8
    assert seen == sorted(set(seen), reverse=True)


def test_a_time_without_zone_is_utc(listed: EventLog) -> None:
    naive = (NOON + timedelta(hours=6)).replace(tzinfo=None)
    assert len(listed.executions(ExecutionFilter(started_after=naive))) == 2


def test_count_by_status_and_open_executions(listed: EventLog) -> None:
    assert listed.count_by_status() == dict.fromkeys(
        ("RUNNING", "COMPLETED", "FAILED", "CANCELLED"), 2
    )
    running = listed.open_executions()
    assert running == sorted(
        row.execution_id for row in listed.executions(ExecutionFilter(status="RUNNING"))
    )
    assert listed.open_executions(limit=1) == running[:1]
    assert listed.open_executions(after=running[0]) == running[1:]


def test_an_empty_log(log: EventLog) -> None:
    assert log.executions(ExecutionFilter()) == []
    assert log.count_by_status() == {}
    assert log.open_executions() == []
    assert log.summary(1) is None


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [
        (ENDS[0], "COMPLETED", None),
        (ENDS[1], "FAILED", "it broke"),
        (ENDS[2], "CANCELLED", None),
    ],
)
def test_summary(log: EventLog, end: Event, status: str, error: str | None) -> None:
    append(log, 1, ExecutionStarted(7, "examples/demo", 3, {}, 42))
    summary = log.summary(1)
    assert summary is not None
    at = log.read(1)[0].at
    assert at is not None
    assert summary == ExecutionSummary(
        1, 7, "examples/demo", 3, "RUNNING", at, parent_execution_id=42
    )
    append(log, 1, end)
    ended = log.summary(1)
    assert ended == summary._replace(status=status, ended_at=log.read(1)[1].at, error=error)
    assert log.executions(ExecutionFilter()) == [ended]


def test_an_execution_may_start_and_end_in_one_call(log: EventLog) -> None:
    append(log, 1, STARTED, CtxUpdated("a", 1, {}), ExecutionCompleted())
    assert log.count_by_status() == {"COMPLETED": 1}


def test_ended(log: EventLog) -> None:
    for i, end in enumerate(ENDS, 1):
        append(log, i, STARTED, end)
    append(log, 4, STARTED)
    with log.transaction([1, 2, 3, 4, 5]) as tx:
        ends = {i: end.type for i, end in enumerate(ENDS, 1)}
        assert tx.ended([1, 2, 3, 4, 5]) == ends
        tx.append(4, [Draft(ExecutionCompleted())])
        assert tx.ended([4]) == {4: "execution.completed"}


STEPS: list[Event] = [StepSkipped(f"s{number}", 1) for number in range(9)]


@pytest.mark.parametrize(
    ("arguments", "seqs"),
    [
        ({}, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ({"after": 8}, [9, 10]),
        ({"after": 10}, []),
        ({"after": 2, "limit": 3}, [3, 4, 5]),
        ({"limit": 0}, []),
        ({"types": ["execution.started"]}, [1]),
        ({"types": ["step.skipped"], "after": 3, "limit": 2}, [4, 5]),
        ({"types": []}, []),
        ({"newest_first": True, "limit": 2}, [10, 9]),
        ({"newest_first": True, "after": 3}, [2, 1]),
        ({"newest_first": True, "after": 1}, []),
    ],
)
def test_read(log: EventLog, arguments: dict[str, object], seqs: list[int]) -> None:
    append(log, 1, STARTED, *STEPS)
    append(log, 2, STARTED)
    assert [entry.seq for entry in log.read(1, **arguments)] == seqs  # type: ignore[arg-type]  # a table of keyword arguments


def test_entries_by_seq_across_executions(log: EventLog) -> None:
    append(log, 1, STARTED, *STEPS)
    append(log, 2, STARTED)
    found = log.entries([(1, 3), (2, 1), (1, 99), (3, 1), (1, 0), (1, 3)])
    assert {key: entry.event for key, entry in found.items()} == {(1, 3): STEPS[1], (2, 1): STARTED}
    assert log.entries([]) == {}
