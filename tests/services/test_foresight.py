"""What a process knows of an execution need not be read; what is not so must never be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.engine.ahead import NOTHING, NotAsAssumedError
from app.engine.events import AttemptLate, StepKey, StepStarted
from app.engine.ports import Draft, LogTransaction, Pointer
from app.services import foresight as module
from app.store.keys import keys_of
from app.store.memory import MemoryLog
from app.wire import Beat
from tests.services.conftest import Bench
from tests.services.test_eager import CHAIN, begun, ended, exchange, report_of


class Looks:
    """Counts the transactions of a log: by what was assumed, or with a look; and which were not so."""

    def __init__(self, log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_assumption = self.by_looking = self.refused = 0
        original = log.transaction

        @contextmanager
        def transaction(*args: Any, **named: Any) -> Iterator[LogTransaction]:
            try:
                with original(*args, **named) as tx:
                    yield tx
            except NotAsAssumedError:
                self.refused += 1
                raise
            if named.get("ahead", NOTHING).assumed:
                self.by_assumption += 1
            else:
                self.by_looking += 1

        monkeypatch.setattr(log, "transaction", transaction)

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.by_assumption, self.by_looking, self.refused


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(eager=True)


@pytest.fixture
def looks(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(log_of(bench), monkeypatch)


def log_of(bench: Bench) -> MemoryLog:
    log = bench.ports.events
    assert isinstance(log, MemoryLog)
    return log


def take_back(bench: Bench, execution_id: int) -> None:
    """Lose the newest event, as a crash of the database may lose a claim."""
    book = log_of(bench).shelf.book(execution_id)
    row = book.rows.pop().row
    assert row.type == "step.started"
    book.taken.difference_update(keys_of(row))
    book.by_key[StepKey(str(row.step), row.visit or 0, row.iteration or 0)].pop()


def late(bench: Bench, execution_id: int) -> list[AttemptLate]:
    events = (entry.event for entry in bench.log(execution_id))
    return [event for event in events if isinstance(event, AttemptLate)]


def test_a_chain_is_never_looked_at(bench: Bench, looks: Looks) -> None:
    _, pointer = begun(bench)
    following: Pointer | None = pointer
    while following is not None:
        following = ended(bench, following, {"v": 1})
    assert looks.counts == (5, 0, 0)  # a start, a claim and three reports


def test_what_another_process_wrote_is_seen(bench: Bench, looks: Looks) -> None:
    execution_id, first = begun(bench)
    bench.control.presence.beat(Beat(name="w1"))
    bench.now[0] += 1000
    assert bench.control.sweeper.sweep().expired == 1
    answer = exchange(bench, report_of(first)).reports[0]
    assert (answer.accepted, answer.follows) == (False, None)
    assert [event.worker for event in late(bench, execution_id)] == ["w1"]
    assert looks.refused == 1


def test_an_execution_that_was_cancelled_meanwhile_takes_no_report(
    bench: Bench, looks: Looks
) -> None:
    execution_id, first = begun(bench)
    events = log_of(bench)
    with events.transaction([execution_id]) as tx:
        before = tx.last_seq(execution_id)
    bench.control.executions.cancel(execution_id)
    assert not exchange(bench, report_of(first)).reports[0].accepted
    assert [e.event.type for e in bench.log(execution_id) if e.seq > before][-1] == "attempt.late"
    assert looks.refused == 1


def test_a_pause_that_others_wrote_holds_back_the_next_step(bench: Bench) -> None:
    execution_id, first = begun(bench)
    bench.control.intervention.pause(execution_id)
    assert ended(bench, first) is None
    assert "step.scheduled" not in bench.types(execution_id)[-2:]


@pytest.mark.parametrize("claims_again", ["another worker", "the same worker", "nobody"])
def test_a_claim_that_the_disk_lost_is_not_gone_by(bench: Bench, claims_again: str) -> None:
    execution_id, first = begun(bench)
    take_back(bench, execution_id)
    if claims_again == "another worker":
        # Through another process. It takes the seq that the lost claim had.
        claim = StepStarted(*first.key, attempt=1, worker="w2")
        with log_of(bench).transaction([execution_id]) as tx:
            tx.append(execution_id, [Draft(claim, "claim:w2")])
    elif claims_again == "the same worker":
        assert bench.claim(first).granted
    answer = exchange(bench, report_of(first)).reports[0]
    assert answer.accepted == (claims_again != "another worker")
    claims = [e for e in bench.log(execution_id) if e.event.type == "step.started"]
    assert [entry.seq for entry in bench.log(execution_id)] == [
        *range(1, len(bench.log(execution_id)) + 1)
    ]
    if claims_again == "another worker":
        assert [getattr(entry.event, "worker", None) for entry in claims] == ["w2"]
        assert len(late(bench, execution_id)) == 1
        report = report_of(first).model_copy(update={"key": "w2"})
        assert bench.report(first, worker="w2", key=report.key).accepted


def test_a_claim_is_not_granted_twice_by_what_is_remembered(bench: Bench, looks: Looks) -> None:
    _, first = begun(bench)
    refused = bench.claim(first, worker="w2")
    assert (refused.granted, refused.reason) == (False, "claimed by another worker")
    assert bench.claim(first).granted  # the same claim again
    assert looks.by_looking == 2


def test_an_execution_that_others_write_to_is_looked_at(
    bench: Bench, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_FAILED", 1)
    execution_id, first = begun(bench)
    bench.control.intervention.pause(execution_id)
    bench.control.intervention.resume(execution_id)
    second = ended(bench, first)
    assert second is not None
    before = looks.counts
    third = ended(bench, second)
    assert third is not None
    assert looks.counts == (before[0], before[1] + 1, before[2])


def test_a_large_result_is_kept_all_the_same(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(eager=True, inline_bytes=100)
    execution_id, first = begun(bench)
    second = ended(bench, first, {"v": "x" * 1000})
    assert second is not None
    answer = exchange(bench, report_of(second))
    assert answer.reports[0].accepted
    assert bench.control.executions.result(execution_id, "a") == {"v": "x" * 1000}


def test_a_start_under_an_id_that_is_taken_is_one_start(bench: Bench) -> None:
    entry = bench.register(CHAIN)
    started = [
        bench.control.executions.start(catalog_id=entry.catalog_id, execution_id=77)
        for _ in range(2)
    ]
    assert [each.execution_id for each in started] == [77, 77]
    assert bench.types(77).count("execution.started") == 1
