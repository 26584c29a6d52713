"""What every store promises of removing old executions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from app.engine.events import Event, ExecutionCompleted, ExecutionStarted, StepScheduled
from app.engine.ports import Draft, EventLog, ExecutionFilter
from app.engine.retention import RetentionStore
from app.store.ids import Snowflake
from tests.contracts.conftest import Store

SOON = datetime.now(UTC) + timedelta(hours=1)
NEW_ID = Snowflake()
SCHEDULED = StepScheduled("a", 1, -1, attempt=1, tool="noop", queue="default.io", reads={})


def append(log: EventLog, execution_id: int, *events: Event, key: str | None = None) -> None:
    first, *others = events
    with log.transaction([execution_id]) as tx:
        tx.append(execution_id, [Draft(first, key), *(Draft(event) for event in others)])


def begun(
    log: EventLog,
    *,
    path: str = "p",
    parent: int | None = None,
    retry_of: int | None = None,
    key: str | None = None,
) -> int:
    execution_id = NEW_ID()
    started = ExecutionStarted(7, path, 1, {}, parent_execution_id=parent, retry_of=retry_of)
    append(log, execution_id, started, SCHEDULED, key=key)
    return execution_id


def ended(log: EventLog, **how: str | int | None) -> int:
    execution_id = begun(log, **how)  # type: ignore[arg-type]  # names and values fit
    append(log, execution_id, ExecutionCompleted())
    return execution_id


def remove(retention: RetentionStore, *ids: int, events: int = 3) -> list[int]:
    return retention.remove(dict.fromkeys(ids, events), ended_before=SOON)


def there(log: EventLog) -> set[int]:
    return {row.execution_id for row in log.executions(ExecutionFilter(limit=500))}


# ---------------------------------------------------------------------- finding
def test_tops_are_those_that_nobody_started_who_is_there(
    log: EventLog, retention: RetentionStore
) -> None:
    parent, other = ended(log), begun(log)
    ended(log, parent=parent)
    orphan = ended(log, parent=12345)
    found = [row.execution_id for row in retention.tops(after=0, before=SOON, limit=9)]
    assert found == [parent, other, orphan]
    assert [r.execution_id for r in retention.tops(after=parent, before=SOON, limit=1)] == [other]
    past = datetime.now(UTC) - timedelta(hours=1)
    assert retention.tops(after=0, before=past, limit=9) == []


def test_a_family_is_told_from_its_ends_up(log: EventLog, retention: RetentionStore) -> None:
    top = ended(log)
    middle = ended(log, parent=top)
    end, running = ended(log, parent=middle), begun(log, parent=top)
    ended(log)
    found = retention.family(top)
    assert [each.execution_id for each in found] == [end, middle, running, top]
    assert [each.events for each in found] == [3, 3, 2, 3]
    assert [each.summary.status for each in found] == ["COMPLETED"] * 2 + ["RUNNING", "COMPLETED"]
    assert retention.family(12345) == []


def test_the_newest_tops_of_a_path_that_have_ended_are_counted(
    log: EventLog, retention: RetentionStore
) -> None:
    first, second, third = (ended(log) for _ in range(3))
    begun(log)
    ended(log, path="q")
    ended(log, parent=first)
    assert [retention.oldest_kept("p", keep) for keep in (1, 2, 3, 4)] == [third, second, first, 0]


def test_names_of_stored_values_are_told(log: EventLog, retention: RetentionStore) -> None:
    execution_id = begun(log)
    with log.transaction([execution_id]) as tx:
        tx.store_value(execution_id, "result/b", 1, source_step="b")
        tx.store_value(execution_id, "result/a", 2, source_step="a")
    assert retention.value_names(execution_id) == ["result/a", "result/b"]


# ---------------------------------------------------------------------- removing
def test_what_is_removed_is_gone_and_nothing_else_is(
    log: EventLog, retention: RetentionStore
) -> None:
    gone, stays = ended(log, key="start:a"), ended(log, key="start:b")
    for each in (gone, stays):
        with log.transaction([each]) as tx:
            tx.store_value(each, "result/a", 1, source_step="a")
    assert remove(retention, gone) == [gone]
    assert (log.summary(gone), log.read(gone), log.count(gone)) == (None, [], 0)
    assert log.values(gone, ["result/a"]) == {}
    assert log.started_under("start:a") is None
    assert there(log) == {stays}
    assert log.count(stays) == 3
    assert log.values(stays, ["result/a"]) == {"result/a": 1}
    assert ended(log, key="start:a") in there(log), "its key is free again"


def test_what_is_gone_is_noted_until_it_is_forgotten(
    log: EventLog, retention: RetentionStore
) -> None:
    ids = [ended(log) for _ in range(3)]
    assert remove(retention, *ids) == ids
    assert retention.removed(9) == ids
    assert retention.removed(2) == ids[:2]
    assert retention.removed(1, after=ids[0]) == [ids[1]]
    retention.forget(ids[:2])
    assert retention.removed(9) == ids[2:]
    assert remove(retention, *ids) == [], "twice is once"
    assert retention.removed(9) == ids[2:]


@pytest.mark.parametrize("why", ["runs", "young", "has another event", "unknown"])
def test_what_may_not_go_stays(log: EventLog, retention: RetentionStore, why: str) -> None:
    stays = begun(log) if why == "runs" else ended(log)
    other = ended(log)
    if why == "unknown":
        assert retention.remove({NEW_ID(): 3}, ended_before=SOON) == []
        return
    before = datetime.now(UTC) - timedelta(hours=1) if why == "young" else SOON
    events = {"runs": 2, "has another event": 4}.get(why, 3)
    gone = retention.remove({stays: events, other: 3}, ended_before=before)
    assert gone == ([] if why == "young" else [other])
    assert stays in there(log)


def test_one_that_started_another_stays_as_long_as_that(
    log: EventLog, retention: RetentionStore
) -> None:
    top = ended(log)
    middle = ended(log, parent=top)
    end = begun(log, parent=middle)
    assert retention.remove({top: 3, middle: 3, end: 2}, ended_before=SOON) == []
    append(log, end, ExecutionCompleted())
    assert remove(retention, top) == []
    assert remove(retention, top, middle) == []
    assert remove(retention, end) == [end]
    assert remove(retention, top, middle) == [top, middle]


def test_what_a_running_retry_takes_over_stays(log: EventLog, retention: RetentionStore) -> None:
    before = ended(log)
    retry = begun(log, retry_of=before)
    assert remove(retention, before) == []
    append(log, retry, ExecutionCompleted())
    assert remove(retention, before) == [before]


def test_what_a_running_retry_leads_back_to_stays_with_all_below(
    log: EventLog, retention: RetentionStore
) -> None:
    top = ended(log)
    first, beside = ended(log, parent=top), ended(log, parent=top)
    below = ended(log, parent=first)
    second = ended(log, retry_of=first)
    under_second = ended(log, parent=second)
    retry = begun(log, retry_of=second)
    other = ended(log)
    all_of_them = [top, first, beside, below, second, under_second, other]
    assert remove(retention, *all_of_them) == [other]
    append(log, retry, ExecutionCompleted())
    assert remove(retention, *all_of_them) == all_of_them[:-1]


def test_what_was_started_by_one_that_runs_stays(log: EventLog, retention: RetentionStore) -> None:
    parent = begun(log)
    child = ended(log, parent=parent)
    below = ended(log, parent=child)
    assert remove(retention, child, below) == []
    append(log, parent, ExecutionCompleted())
    assert remove(retention, child, below) == [child, below]


def test_one_that_somebody_is_at_work_on_is_left_for_another_time(
    log: EventLog, retention: RetentionStore
) -> None:
    busy, idle = ended(log), ended(log)
    locked, done = threading.Event(), threading.Event()

    def work() -> None:
        with log.transaction([busy]):
            locked.set()
            assert done.wait(30)

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            assert locked.wait(30)
            assert remove(retention, busy, idle) == [idle]
        finally:
            done.set()
        working.result()
    assert remove(retention, busy) == [busy]


def test_two_at_once_remove_each_execution_once(log: EventLog, store: Store) -> None:
    ids = [ended(log) for _ in range(60)]
    stays = ended(log)

    def all_of_them(_: int) -> list[int]:
        gone = []
        for start in range(0, len(ids), 5):
            gone += remove(store.retention, *ids[start : start + 5])
        return gone

    with ThreadPoolExecutor(3) as pool:
        gone = [each for found in pool.map(all_of_them, range(3)) for each in found]
    # One that another had locked may have been passed over by all: it goes the next time.
    gone += remove(store.retention, *ids)
    assert sorted(gone) == ids
    assert there(log) == {stays}
