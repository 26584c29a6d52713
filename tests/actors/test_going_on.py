"""A thread that reported a step goes on with the one that follows, under the message of the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.actors import steps as module
from app.actors.steps import Runner
from app.engine.events import StepDone
from app.engine.ports import Pointer
from app.errors import UnavailableError
from app.services.desk import Desk
from app.settings import load
from app.wire import Exchange, ExchangeAnswer, Serves
from app.wiring import ToolKinds
from tests.services.conftest import Bench, make_bench  # noqa: F401 (a fixture)

CHAIN = """
workflow:
- {step: a, tool: {kind: noop}, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: noop}, next: {arcs: [{step: c}]}}
- {step: c, tool: {kind: noop}}
"""


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:  # noqa: F811
    return make_bench(eager=True)


@pytest.fixture
def first(bench: Bench) -> Pointer:
    bench.start(CHAIN)
    return bench.dispatcher.sent[0].pointer


def runner_on(desk: Any) -> Runner:
    serves = Serves(queues=["default.cpu", "default.io"], tools=["noop"])
    return Runner(desk, load({}).settings, ToolKinds(), {}, name="w1", serves=serves)


class Watched(Desk):
    """A desk that keeps what it was asked, and may be made to fail."""

    asked: list[Exchange]
    fails: Callable[[Exchange], None]

    def exchange(self, request: Exchange) -> ExchangeAnswer:
        self.asked.append(request)
        answer = super().exchange(request)
        self.fails(request)
        return answer


def watched(bench: Bench, fails: Callable[[Exchange], None] = lambda _: None) -> Watched:
    desk = Watched(bench.control)
    object.__setattr__(desk, "asked", [])
    object.__setattr__(desk, "fails", fails)
    return desk


def ends(bench: Bench, execution_id: int) -> list[tuple[str, int]]:
    events = (entry.event for entry in bench.log(execution_id))
    return [(event.step, event.attempt) for event in events if isinstance(event, StepDone)]


def test_one_message_brings_a_chain_to_its_end(bench: Bench, first: Pointer) -> None:
    desk = watched(bench)
    runner = runner_on(desk)
    runner.run(first)
    assert ends(bench, first.execution_id) == [("a", 1), ("b", 1), ("c", 1)]
    assert bench.control.executions.get(first.execution_id).status == "COMPLETED"
    # A claim for the first, and a report for each.
    assert [(len(r.claims), len(r.reports)) for r in desk.asked] == [(1, 0), (0, 1), (0, 1), (0, 1)]
    assert runner.running() == []
    assert runner.activity()["claims"] == runner.activity()["reports"] == 3


def test_after_a_while_others_have_their_turn(
    bench: Bench, first: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ONWARD", 0.0)
    runner_on(watched(bench)).run(first)
    assert ends(bench, first.execution_id) == [("a", 1)]
    assert bench.dispatcher.wakes == [first.execution_id]


def test_a_lost_answer_is_asked_for_again_and_brings_the_next_step(
    bench: Bench, first: Pointer
) -> None:
    lost: set[str] = set()

    def fails(request: Exchange) -> None:
        fresh = {report.step for report in request.reports} - lost
        lost.update(fresh)
        if fresh:
            raise UnavailableError("the answer was lost")

    runner_on(watched(bench, fails)).run(first)
    assert ends(bench, first.execution_id) == [("a", 1), ("b", 1), ("c", 1)]


def test_what_cannot_be_gone_on_with_is_given_back(
    bench: Bench, first: Pointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = runner_on(watched(bench))
    really = runner.work

    def work(granted: Any) -> Any:
        if granted.attempt.pointer.step == "b":
            raise UnavailableError("a failpoint, or a bug of ours")
        return really(granted)

    monkeypatch.setattr(runner, "work", work)
    runner.run(first)
    assert runner.running() == []
    assert bench.types(first.execution_id)[-1] == "attempt.interrupted"
    assert bench.advance(first.execution_id) == [first._replace(step="b", attempt=2)]


def test_a_worker_that_stops_gives_back_what_it_was_handed(bench: Bench, first: Pointer) -> None:
    def fails(request: Exchange) -> None:
        if request.reports:
            runner.begin_shutdown()

    runner = runner_on(watched(bench, fails))
    runner.run(first)
    assert ends(bench, first.execution_id) == [("a", 1)]
    assert bench.types(first.execution_id)[-1] == "attempt.interrupted"
    assert runner.running() == []


def test_what_follows_a_report_whose_answers_got_lost_at_the_end_is_given_back(
    bench: Bench, first: Pointer
) -> None:
    """b was reported, c handed over, and nobody heard of it: b is said to be given back at last."""

    def fails(request: Exchange) -> None:
        if any(r.step == "b" and r.outcome == "done" for r in request.reports):
            runner.begin_shutdown()
            raise UnavailableError("the answer was lost")

    runner = runner_on(watched(bench, fails))
    runner.run(first)
    assert ends(bench, first.execution_id) == [("a", 1), ("b", 1)]
    assert bench.types(first.execution_id)[-1] == "attempt.interrupted"
    assert bench.advance(first.execution_id) == [first._replace(step="c", attempt=2)]
