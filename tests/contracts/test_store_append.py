"""What every event log promises a writer: order, unique keys, all or nothing."""

from __future__ import annotations

import contextlib
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from app.engine.ahead import Ahead
from app.engine.events import (
    AttemptExpired,
    AttemptFailed,
    AttemptInterrupted,
    AttemptLate,
    CtxUpdated,
    Event,
    ExecutionCancelled,
    ExecutionCompleted,
    ExecutionFailed,
    ExecutionStarted,
    LoopDone,
    LoopStarted,
    StepCancelled,
    StepDone,
    StepFailed,
    StepRouted,
    StepScheduled,
    StepSkipped,
    StepStarted,
)
from app.engine.ports import Draft, DuplicateEventError, EventLog
from app.errors import BadRequestError

STARTED = ExecutionStarted(7, "examples/demo", 3, {"rows": [1, 2], "name": "é"})
SCHEDULED = StepScheduled("a", 1, -1, 1, "noop", "default.io", {"workload": 1})
CLAIMED = StepStarted("a", 1, -1, 1, "worker-1")
DONE = StepDone(
    "a", 1, -1, 1, {"rows": [None, 1.5]}, ctx={"n": 1}, worker="worker-1", duration_ms=12.25
)
ERROR = {"kind": "timeout", "message": "too slow", "retryable": True}

EVERY_TYPE: list[Event] = [
    STARTED,
    LoopStarted("a", 1, [1, {"x": 2}], 2, 10, "z", 1),
    SCHEDULED,
    CLAIMED,
    AttemptFailed("a", 1, -1, 1, ERROR, 99.5, "worker-1", 3.0),
    AttemptExpired("a", 1, -1, 1, "worker-1"),
    AttemptInterrupted("a", 1, -1, 1, "worker-1"),
    AttemptLate("a", 1, -1, 1, "worker-1", "failed"),
    DONE,
    StepFailed("b", 1, 4, 2, ERROR, ctx={"x": 1}, worker="worker-1", duration_ms=1),
    StepSkipped("c", 1, source="a", source_visit=1),
    StepCancelled("d", 2),
    StepRouted("a", 1, ("b", "c")),
    CtxUpdated("a", 1, {"x": {"y": None}}),
    LoopDone("l", 1, 5, 4, 1, ERROR),
    ExecutionCompleted("a"),
]


def append(log: EventLog, execution_id: int, *events: Event, key: str | None = None) -> list[int]:
    with log.transaction([execution_id]) as tx:
        entries = tx.append(execution_id, [Draft(event, key) for event in events])
    return [entry.seq for entry in entries]


def test_every_type_of_event_comes_back_as_it_was_written(log: EventLog) -> None:
    append(log, 1, *EVERY_TYPE)
    assert [entry.event for entry in log.read(1)] == EVERY_TYPE


@pytest.mark.parametrize("end", [ExecutionFailed(ERROR), ExecutionCancelled("why")])
def test_every_end_comes_back_as_it_was_written(log: EventLog, end: Event) -> None:
    append(log, 1, STARTED, end)
    assert log.read(1)[-1].event == end


def test_what_append_returns_is_what_a_reader_finds(log: EventLog) -> None:
    with log.transaction([1]) as tx:
        moment = datetime(2026, 1, 2, tzinfo=UTC)
        written = tx.append(1, [Draft(STARTED), Draft(CtxUpdated("a", 1, {"t": (1, moment)}))])
    read = log.read(1)
    assert [(e.seq, e.event) for e in written] == [(e.seq, e.event) for e in read]
    assert written[1].event == CtxUpdated("a", 1, {"t": [1, "2026-01-02T00:00:00+00:00"]})
    assert read[0].at is not None
    assert read[0].at.utcoffset() is not None
    assert 0 < read[0].event_id < read[1].event_id


def test_seq_counts_from_one_without_a_gap_per_execution(log: EventLog) -> None:
    assert append(log, 1, STARTED, SCHEDULED) == [1, 2]
    assert append(log, 2, STARTED) == [1]
    assert append(log, 1, CLAIMED, DONE) == [3, 4]
    assert [entry.seq for entry in log.read(1)] == [1, 2, 3, 4]
    assert (log.count(1), log.count(2), log.count(3)) == (4, 1, 0)


def test_a_transaction_sees_what_it_wrote_and_others_only_after_commit(log: EventLog) -> None:
    with log.transaction([1, 2]) as tx:
        assert (tx.last_seq(1), tx.read(1)) == (0, [])
        tx.append(1, [Draft(STARTED), Draft(SCHEDULED)])
        assert tx.last_seq(1) == 2
        assert [entry.event for entry in tx.read(1, after=1)] == [SCHEDULED]
        with ThreadPoolExecutor(1) as others:
            assert others.submit(log.read, 1).result() == []
            assert others.submit(log.summary, 1).result() is None
    assert log.count(1) == 2


def test_an_error_rolls_everything_back(log: EventLog) -> None:
    def write_and_stop() -> None:
        with log.transaction([1, 2]) as tx:
            tx.append(1, [Draft(STARTED)])
            tx.append(2, [Draft(STARTED)])
            tx.store_value(1, "result/a/1/-1", [1], source_step="a")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_stop()
    assert (log.count(1), log.count(2), log.summary(1)) == (0, 0, None)
    assert log.values(1, ["result/a/1/-1"]) == {}
    assert append(log, 1, STARTED) == [1]


def test_many_events_in_one_call_keep_their_order(log: EventLog) -> None:
    events = [StepScheduled("a", 1, index, 1, "noop", "q", {}) for index in range(1000)]
    assert append(log, 1, STARTED, *events) == list(range(1, 1002))
    assert [entry.event for entry in log.read(1, after=1)] == events


def test_nothing_to_append_is_fine(log: EventLog) -> None:
    assert append(log, 1) == []
    with log.transaction([]) as tx:
        assert tx.attempts([]) == {}


@pytest.mark.parametrize(
    ("key", "history", "event"),
    [
        pytest.param("U3", [SCHEDULED], SCHEDULED, id="an attempt is scheduled once"),
        pytest.param("U4", [DONE], DONE, id="a step ends once"),
        pytest.param("U4", [DONE], StepSkipped("a", 1), id="an ended step is not skipped"),
        pytest.param(
            "U4",
            [StepDone("a", 1, 3, 1)],
            StepFailed("a", 1, 3, 2, ERROR),
            id="an iteration ends once, whatever the attempt",
        ),
        pytest.param(
            "U4",
            [LoopDone("a", 1, 0, 0, 0)],
            StepCancelled("a", 1),
            id="the end of a loop ends its step",
        ),
        pytest.param(
            "U5", [ExecutionCompleted()], ExecutionFailed(ERROR), id="an execution ends once"
        ),
        pytest.param("U6", [], STARTED, id="an execution starts once"),
        pytest.param(
            "U7", [CLAIMED], StepStarted("a", 1, -1, 1, "other"), id="an attempt is claimed once"
        ),
    ],
)
def test_unique_keys(log: EventLog, key: str, history: list[Event], event: Event) -> None:
    append(log, 1, STARTED, *history)
    append(log, 2, STARTED) if key == "U6" else append(log, 2, STARTED, event)  # not across ids
    with pytest.raises(DuplicateEventError) as caught:
        append(log, 1, event)
    assert caught.value.key == key
    assert f"[{key}]" in str(caught.value)
    assert log.count(1) == 1 + len(history)
    append(log, 1, CtxUpdated("a", 1, {}))
    assert log.read(1)[-1].seq == 2 + len(history)


def test_u2_a_report_sent_twice_is_one_row(log: EventLog) -> None:
    append(log, 1, STARTED)
    append(log, 1, CtxUpdated("a", 1, {"x": 1}), key="report-1")
    append(log, 2, CtxUpdated("a", 1, {"x": 1}), key="report-1")
    with pytest.raises(DuplicateEventError) as caught:
        append(log, 1, CtxUpdated("a", 1, {"x": 2}), key="report-1")
    assert caught.value.key == "U2"
    assert log.count(1) == 2


def test_a_duplicate_within_one_call_is_refused_too(log: EventLog) -> None:
    with pytest.raises(DuplicateEventError) as caught:
        append(log, 1, STARTED, SCHEDULED, SCHEDULED)
    assert caught.value.key == "U3"
    assert log.count(1) == 0


def test_a_duplicate_loses_the_transaction(log: EventLog) -> None:
    append(log, 1, STARTED)

    def write_and_read() -> None:
        with log.transaction([1]) as tx:
            with contextlib.suppress(DuplicateEventError):  # it may be told at once
                tx.append(1, [Draft(STARTED)])
            tx.read(1)

    with pytest.raises(DuplicateEventError):
        write_and_read()
    assert log.count(1) == 1


def test_leaving_quietly_after_losing_earlier_writes_is_an_error(log: EventLog) -> None:
    append(log, 1, STARTED)

    def write_and_leave() -> None:
        with log.transaction([1, 2]) as tx:
            tx.append(2, [Draft(STARTED)])
            with contextlib.suppress(DuplicateEventError):
                tx.append(1, [Draft(STARTED)])

    with pytest.raises(DuplicateEventError) as caught:
        write_and_leave()
    assert "execution 1:" in str(caught.value)
    assert log.count(2) == 0


def test_several_executions_are_written_together(log: EventLog) -> None:
    with log.transaction([1, 2, 3], ahead=Ahead(after={1: 0, 2: 0, 3: 0})) as tx:
        for execution_id in (3, 1, 2):
            assert tx.read(execution_id) == []
            tx.append(execution_id, [Draft(STARTED), Draft(SCHEDULED)])
        assert [entry.seq for entry in tx.read(2)] == [1, 2]  # its own writes, too
        tx.append(2, [Draft(CLAIMED)])
    assert [log.count(execution_id) for execution_id in (1, 2, 3)] == [2, 3, 2]
    many = [Draft(CtxUpdated("a", 1, {"n": n})) for n in range(1200)]
    with log.transaction([1]) as tx:
        tx.append(1, many)
    with log.transaction([1, 3], ahead=Ahead(after={1: 0, 3: 1})) as tx:
        assert [entry.seq for entry in tx.read(1)] == list(range(1, 1203))
        assert [entry.seq for entry in tx.read(3, after=1)] == [2]
    place = (2, SCHEDULED.key)
    ahead = Ahead(after={2: 2, 3: 0}, attempts=[place])
    with log.transaction([2, 3], ahead=ahead) as tx:
        assert [entry.seq for entry in tx.read(2, after=2)] == [3]
        assert [entry.seq for entry in tx.read(2, after=1)] == [2, 3]
        assert [entry.seq for entry in tx.read(3)] == [1, 2]
        assert tx.attempts([place])[place].started_by == CLAIMED.worker
        tx.append(2, [Draft(StepDone("a", 1, -1, 1))])
        assert tx.attempts([place])[place].ended == "step.done"


def test_who_does_not_wait_goes_without_what_others_hold(log: EventLog) -> None:
    append(log, 1, STARTED)
    append(log, 2, STARTED)
    with (
        log.transaction([1]),
        log.transaction([1, 2], ahead=Ahead(after={1: 0, 2: 0}), waits=False) as tx,
    ):
        assert [execution_id in tx.held for execution_id in (1, 2)] == [False, True]
        assert [entry.seq for entry in tx.read(2)] == [1]
        tx.append(2, [Draft(SCHEDULED)])
    with log.transaction([1, 2], waits=False) as tx:
        assert [execution_id in tx.held for execution_id in (1, 2)] == [True, True]
    assert [log.count(execution_id) for execution_id in (1, 2)] == [1, 2]


def test_only_locked_executions_can_be_written(log: EventLog) -> None:
    with log.transaction([1]) as tx:
        with pytest.raises(ValueError, match="execution 2 is not locked"):
            tx.append(2, [Draft(STARTED)])
        with pytest.raises(ValueError, match="execution 2 is not locked"):
            tx.store_value(2, "x", 1, source_step="a")
    assert log.count(2) == 0


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(math.nan, "value.values.x", id="NaN"),
        pytest.param([{"deep": [1, math.inf]}], r"value.values.x\[0\].deep\[1\]", id="infinity"),
        pytest.param({1, 2}, "set", id="a set"),
        pytest.param(b"bytes", "bytes", id="bytes"),
        pytest.param(2**70, "64-bit", id="a number beyond 64 bits"),
        pytest.param("a\0b", "NUL", id="the character NUL"),
        pytest.param("\ud800", "UTF-8", id="half a surrogate pair"),
        pytest.param({1: 2}, "key", id="a key that is not text"),
    ],
)
def test_what_is_not_json_is_refused_and_says_where(log: EventLog, value: Any, reason: str) -> None:
    append(log, 1, STARTED)
    with pytest.raises(BadRequestError, match=reason):
        append(log, 1, CtxUpdated("a", 1, {"x": value}))
    with (
        pytest.raises(BadRequestError, match=reason.replace("value.values.x", "value")),
        log.transaction([1]) as tx,
    ):
        tx.store_value(1, "name", value, source_step="a")
    assert log.count(1) == 1


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_a_column_takes_no_other_text_than_a_payload(log: EventLog, text: str) -> None:
    for event, key in ((StepSkipped(text, 1), None), (StepSkipped("a", 1), text)):
        with pytest.raises(BadRequestError):
            append(log, 1, event, key=key)
    with pytest.raises(BadRequestError), log.transaction([1]) as tx:
        tx.store_value(1, text, 1, source_step="a")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "",
        "null and \\u0000 as plain text",
        0.1,
        -(2**63),
        2**63 - 1,
        5e-324,
        1.7976931348623157e308,
        [1e15, 1e16, 6.073751732245395e16, -1e18, 1e300, 10**17],
        "1e16 is not a number here",
        {"é": ["\u2028", "😀"]},
    ],
)
def test_values_come_back_exactly(log: EventLog, value: Any) -> None:
    with log.transaction([1]) as tx:
        tx.store_value(1, "result/a/1/-1", value, source_step="a")
        tx.append(1, [Draft(CtxUpdated("a", 1, {"x": value}))])
    found = log.values(1, ["result/a/1/-1", "missing"])
    assert found == {"result/a/1/-1": value}
    # 1e17 and 10**17 are equal to Python, but not to a reader.
    assert repr(found["result/a/1/-1"]) == repr(value)
    assert repr(log.read(1)[0].event) == repr(CtxUpdated("a", 1, {"x": value}))


def test_a_value_stored_again_replaces_the_first(log: EventLog) -> None:
    for value in ("first", "second"):
        with log.transaction([1]) as tx:
            tx.store_value(1, "x", value, source_step="a")
    assert log.values(1, ["x"]) == {"x": "second"}
    assert log.values(2, ["x"]) == {}


def test_nobody_reaches_into_the_log_through_an_object(log: EventLog) -> None:
    values: dict[str, Any] = {"x": [1]}
    append(log, 1, CtxUpdated("a", 1, values))
    with log.transaction([1]) as tx:
        tx.store_value(1, "kept", values, source_step="a")
    values["x"].append("changed after the write")
    for _ in range(2):
        event = log.read(1)[0].event
        assert isinstance(event, CtxUpdated)
        assert event.values == {"x": [1]}
        event.values["x"].append("changed after a read")
        kept = log.values(1, ["kept"])
        assert kept == {"kept": {"x": [1]}}
        kept["kept"]["x"].append("changed after a read")


def test_two_transactions_on_one_execution_take_turns(log: EventLog) -> None:
    entered, order = threading.Event(), []

    def second() -> None:
        entered.set()
        with log.transaction([1, 2]) as tx:
            order.append(("second sees", tx.last_seq(1)))
            tx.append(1, [Draft(SCHEDULED)])

    thread = threading.Thread(target=second)
    with log.transaction([1]) as tx:
        thread.start()
        entered.wait()
        tx.append(1, [Draft(STARTED)])
        # Give the other one every chance to go ahead without the lock.
        thread.join(0.2)
        order.append(("first writes", tx.last_seq(1)))
    thread.join()
    assert order == [("first writes", 1), ("second sees", 1)]
    assert [entry.event for entry in log.read(1)] == [STARTED, SCHEDULED]


def test_other_executions_do_not_wait(log: EventLog) -> None:
    with log.transaction([1]), log.transaction([2]) as tx:
        tx.append(2, [Draft(STARTED)])
    assert log.count(2) == 1


def test_sixteen_writers_leave_no_gap(log: EventLog) -> None:
    def write(writer: int) -> None:
        # Two executions in either order: only an order of locks keeps them from a deadlock.
        ids = [1, 2] if writer % 2 else [2, 1]
        for turn in range(10):
            with log.transaction(ids, durable=turn % 2 == 0) as tx:
                for execution_id in ids:
                    tx.append(execution_id, [Draft(CtxUpdated("a", 1, {"w": [writer, turn]}))])

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    for execution_id in (1, 2):
        entries = log.read(execution_id)
        assert [entry.seq for entry in entries] == list(range(1, 161))
        assert len({entry.event_id for entry in entries}) == 160


def test_of_sixteen_claims_one_succeeds(log: EventLog) -> None:
    append(log, 1, STARTED, SCHEDULED)

    def claim(worker: int) -> str:
        try:
            append(log, 1, StepStarted("a", 1, -1, 1, f"worker-{worker}"))
        except DuplicateEventError as exc:
            return exc.key
        return "won"

    with ThreadPoolExecutor(16) as pool:
        results = sorted(pool.map(claim, range(16)))
    assert results == ["U7"] * 15 + ["won"]


def test_an_event_is_found_under_its_key(log: EventLog) -> None:
    with log.transaction([1, 2]) as tx:
        tx.append(1, [Draft(STARTED), Draft(SCHEDULED), Draft(CLAIMED, "claim:x")])
        tx.append(2, [Draft(STARTED, "claim:x")])
        own = tx.under(1, "claim:x")
        assert own is not None
        assert (own.seq, own.event) == (3, CLAIMED)
    with log.transaction([1, 3]) as tx:
        kept = tx.under(1, "claim:x")
        assert kept is not None
        assert (kept.execution_id, kept.seq, kept.event) == (1, 3, CLAIMED)
        assert tx.under(1, "claim:y") is None
        assert tx.under(3, "claim:x") is None
