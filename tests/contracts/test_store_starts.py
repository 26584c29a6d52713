"""What every event log promises of starts under a key: one execution, whoever asks how often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.engine.events import CtxUpdated, Event, ExecutionStarted
from app.engine.ports import Draft, DuplicateEventError, EventLog

STARTED = ExecutionStarted(7, "examples/demo", 3, {})


def append(log: EventLog, execution_id: int, event: Event, key: str | None) -> None:
    with log.transaction([execution_id]) as tx:
        tx.append(execution_id, [Draft(event, key)])


def test_one_key_starts_one_execution(log: EventLog) -> None:
    append(log, 1, STARTED, "start:a")
    with pytest.raises(DuplicateEventError) as caught:
        append(log, 2, STARTED, "start:a")
    assert caught.value.key == "U9"
    assert (log.count(2), log.summary(2)) == (0, None)


def test_the_execution_is_found_by_its_key_alone(log: EventLog) -> None:
    append(log, 1, STARTED, "start:a")
    append(log, 2, STARTED, None)
    append(log, 3, STARTED, None)
    append(log, 3, CtxUpdated("a", 1, {}), "start:b")
    found = log.started_under("start:a")
    assert found is not None
    assert found.execution_id == 1
    assert log.started_under("start:b") is None, "only starts count"


def test_a_key_whose_start_was_rolled_back_is_free(log: EventLog) -> None:
    with pytest.raises(DuplicateEventError), log.transaction([1]) as tx:
        tx.append(1, [Draft(STARTED, "start:a"), Draft(STARTED)])
    append(log, 2, STARTED, "start:a")
    found = log.started_under("start:a")
    assert found is not None
    assert found.execution_id == 2


def test_of_sixteen_starts_under_one_key_one_succeeds(log: EventLog) -> None:
    def start(execution_id: int) -> str:
        try:
            append(log, execution_id, STARTED, "start:a")
        except DuplicateEventError as exc:
            return exc.key
        return "won"

    with ThreadPoolExecutor(16) as pool:
        results = sorted(pool.map(start, range(1, 17)))
    assert results == ["U9"] * 15 + ["won"]
