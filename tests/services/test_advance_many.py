"""Several executions decided in one transaction, and what happens where one of them goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from app.engine.events import CtxUpdated, ExecutionStarted, StepStarted
from app.engine.ports import Draft
from app.errors import CallboardError, UnavailableError
from app.services.advance import PATIENCE, SHORT, BrokenLogError
from tests.services.conftest import Bench

CHAIN = (
    "workflow: [{step: a, tool: {kind: noop}, next: {arcs: [{step: b}]}},"
    " {step: b, tool: {kind: noop}}]"
)


def advance_many(bench: Bench, ids: Sequence[int]) -> list[Any]:
    """How many events followed for each, or what went wrong."""
    answers: list[Any] = []
    for turn in bench.control.advance.decide_many(ids):
        try:
            answers.append(bench.control.advance.conclude(turn))
        except CallboardError as exc:
            answers.append(exc)
    return answers


def test_all_are_decided_and_sent_at_once(bench: Bench) -> None:
    ids = [bench.start(CHAIN) for _ in range(5)]
    assert advance_many(bench, ids) == [1] * 5
    first = list(bench.dispatcher.sent)
    assert [each.pointer.execution_id for each in first] == ids
    for each in first:
        bench.work(each.pointer)
    assert advance_many(bench, ids) == [1] * 5
    for each in bench.dispatcher.sent[5:]:
        bench.work(each.pointer)
    assert advance_many(bench, ids) == [2] * 5
    assert {bench.types(i)[-1] for i in ids} == {"execution.completed"}
    assert advance_many(bench, ids) == [0] * 5


def test_one_that_goes_wrong_keeps_no_other_from_going_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [bench.start(CHAIN) for _ in range(3)]
    really = bench.control.advance._decide

    def decide(execution_id: int, cached: object) -> object:
        if execution_id == ids[1]:
            raise RuntimeError("a bug of ours")
        return really(execution_id, cached)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(bench.control.advance, "_decide", decide)
    assert advance_many(bench, ids) == [1, 1, 1]
    assert [bench.types(i)[-1] for i in ids] == [
        "step.scheduled",
        "execution.failed",
        "step.scheduled",
    ]


def test_what_cannot_be_read_is_told_of_that_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [bench.start(CHAIN) for _ in range(3)]
    log = bench.ports.events
    with log.transaction([ids[2]]) as tx:
        tx.append(ids[2], [Draft(StepStarted("a", 1, -1, 1, "w"))])
    log._shelf.book(ids[2]).rows.pop(0)  # type: ignore[attr-defined]  # rows removed by hand
    one, two, three = advance_many(bench, ids)
    assert (one, two) == (1, 1)
    assert isinstance(three, BrokenLogError)


def begun_without_a_wake(bench: Bench, execution_id: int) -> int:
    entry = bench.register(CHAIN)
    with bench.ports.events.transaction([execution_id]) as tx:
        tx.append(execution_id, [Draft(ExecutionStarted(entry.catalog_id, "t", 1, {}))])
    return execution_id


def test_an_outage_is_told_of_all(bench: Bench) -> None:
    ids = [bench.start(CHAIN) for _ in range(2)]
    bench.dispatcher.down = True
    answers = advance_many(bench, ids)
    # It is in the log: what was not sent the sweeper sends.
    assert all(isinstance(answer, UnavailableError) for answer in answers)
    assert [bench.types(i)[-1] for i in ids] == ["step.scheduled"] * 2
    alone = bench.ports.new_id()
    with pytest.raises(UnavailableError):
        bench.control.advance.advance(begun_without_a_wake(bench, alone))


def test_a_long_story_and_a_slow_one_keep_no_other_waiting(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [bench.start(CHAIN) for _ in range(4)]
    with bench.ports.events.transaction([ids[1]]) as tx:
        tx.append(ids[1], [Draft(CtxUpdated("a", 1, {"n": n})) for n in range(SHORT)])
    together: list[list[int]] = []
    really, decide = bench.ports.events.transaction, bench.control.advance._decide

    def watched(wanted: Sequence[int], **more: Any) -> Any:
        together.append(list(wanted))
        return really(wanted, **more)

    def slowly(execution_id: int, cached: Any) -> Any:
        bench.now[0] += PATIENCE * 2 if execution_id == ids[2] else 0.0
        return decide(execution_id, cached)

    monkeypatch.setattr(bench.control.advance, "_decide", slowly)
    monkeypatch.setattr(bench.ports.events, "transaction", watched)
    assert advance_many(bench, ids) == [1, 1, 1, 1]
    # The long one, and the one behind the slow one, were decided in transactions of their own.
    assert together == [ids, [ids[1]], [ids[3]]]


def test_one_that_somebody_else_works_on_keeps_no_other_waiting(bench: Bench) -> None:
    ids = [bench.start(CHAIN) for _ in range(3)]
    with bench.ports.events.transaction([ids[1]]):
        turns = bench.control.advance.decide_many(ids)
    assert [turn.is_put_off for turn in turns] == [False, True, False]
    assert [bench.control.advance.conclude(turn) for turn in turns] == [1, 1, 1]


def test_a_lone_one_with_a_long_story_is_put_off_too(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    with bench.ports.events.transaction([execution_id]) as tx:
        tx.append(execution_id, [Draft(CtxUpdated("a", 1, {"n": n})) for n in range(SHORT)])
    (turn,) = bench.control.advance.decide_many([execution_id])
    assert turn.is_put_off
    assert bench.control.advance.conclude(turn) == 1


def test_a_crash_in_one_is_told_of_that_one(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [bench.start(CHAIN) for _ in range(3)]
    really = bench.control.advance._turn

    def turn(tx: Any, execution_id: int, known: Any) -> Any:
        if execution_id == ids[0]:
            raise UnavailableError("not now")
        return really(tx, execution_id, known)

    monkeypatch.setattr(bench.control.advance, "_turn", turn)
    first, *others = advance_many(bench, ids)
    assert isinstance(first, UnavailableError)
    assert others == [1, 1]
