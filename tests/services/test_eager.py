"""What follows a start or a report is decided with it, and the next step handed to who reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.engine.ports import Pointer
from app.errors import UnavailableError
from app.services import eager as module
from app.wire import Beat, Exchange, ExchangeAnswer, PointerWire, Report, ReportAnswer, Serves
from tests.services.conftest import Bench
from tests.services.test_unknown_events import book_of, newer

SERVES = Serves(queues=["default.cpu", "default.io"], tools=["http", "python", "playbook", "noop"])
CHAIN = """
workflow:
- {step: a, tool: {kind: http, url: x}, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: http, url: '{{ a.v }}'}, next: {arcs: [{step: c}]}}
- {step: c, tool: {kind: http, url: x}}
"""


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench(eager=True)


def begun(bench: Bench, workflow: str = CHAIN) -> tuple[int, Pointer]:
    """An execution whose first step was claimed by w1."""
    execution_id = bench.start(workflow)
    (sent,) = bench.dispatcher.sent
    assert bench.claim(sent.pointer).granted
    bench.dispatcher.sent.clear()
    return execution_id, sent.pointer


def begun_the_usual_way(bench: Bench) -> tuple[int, Pointer]:
    execution_id = bench.start(CHAIN)
    (pointer,) = bench.advance(execution_id)
    assert bench.claim(pointer).granted
    return execution_id, pointer


def report_of(pointer: Pointer, result: Any = None, **extra: Any) -> Report:
    values = {"outcome": "done", "key": f"w1:{pointer}", "onward": True, **extra}
    return Report(**pointer._asdict(), result=result, **values)


def exchange(
    bench: Bench, *reports: Report, serves: Serves | None = SERVES, **more: Any
) -> ExchangeAnswer:
    request = Exchange(worker="w1", reports=list(reports), serves=serves)
    return bench.control.work.exchange(request, **more)


def next_of(answer: ReportAnswer) -> Pointer | None:
    return None if answer.follows is None else Pointer(**answer.follows.pointer.model_dump())


def ended(bench: Bench, pointer: Pointer, result: Any = None, **more: Any) -> Pointer | None:
    """Report the end of *pointer*; what is handed over for it."""
    return next_of(exchange(bench, report_of(pointer, result), **more).reports[0])


# ---------------------------------------------------------------------- what is saved
def test_a_start_sends_the_first_pointer_itself(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    assert [d.pointer for d in bench.dispatcher.sent] == [Pointer(execution_id, "a", 1, -1, 1)]
    assert bench.dispatcher.wakes == []


def test_a_chain_runs_to_its_end_without_a_wake_a_pointer_or_a_claim(bench: Bench) -> None:
    execution_id, first = begun(bench)
    second = ended(bench, first, {"v": 1})
    assert second == first._replace(step="b")
    third = ended(bench, second)
    assert third == first._replace(step="c")
    assert ended(bench, third) is None
    assert bench.control.executions.get(execution_id).status == "COMPLETED"
    assert (bench.dispatcher.sent, bench.dispatcher.wakes) == ([], [])


def test_the_log_is_that_of_the_usual_way(make_bench: Callable[..., Bench]) -> None:
    usual, short = make_bench(eager=False), make_bench(eager=True)
    one = usual.start(CHAIN)
    usual.settle(one, {"v": 1})
    two, pointer = begun(short)
    following: Pointer | None = pointer
    while following is not None:
        following = ended(short, following, {"v": 1})
    assert [entry.event for entry in short.log(two)] == [entry.event for entry in usual.log(one)]


def test_what_is_handed_over_comes_with_its_step_and_variables(bench: Bench) -> None:
    _, first = begun(bench)
    answer = exchange(bench, report_of(first, {"v": 7}))
    follows = answer.reports[0].follows
    assert follows is not None
    assert follows.claim.variables is not None
    assert follows.claim.variables.results == {"a": {"v": 7}}
    assert answer.steps[follows.claim.step or ""]["tool"]["url"] == "{{ a.v }}"
    assert answer.claims == []


def test_each_of_several_reports_is_followed_by_its_own(bench: Bench) -> None:
    pointers = [begun(bench)[1] for _ in range(3)]
    answer = exchange(bench, *(report_of(pointer, {"v": 1}) for pointer in pointers))
    assert [next_of(each) for each in answer.reports] == [
        pointer._replace(step="b") for pointer in pointers
    ]


# ---------------------------------------------------------------------- what goes the usual way
FORK = """
workflow:
- {step: a, tool: {kind: http, url: x}, next: {spec: {mode: inclusive}, arcs: [{step: b}, {step: c}]}}
- {step: b, tool: {kind: http, url: x}}
- {step: c, tool: {kind: http, url: x}}
"""
TO_LOOP = """
workflow:
- {step: a, tool: {kind: http, url: x}, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: http, url: x}, loop: {in: [1, 2], iterator: i, spec: {mode: parallel}}}
"""
OTHER_QUEUE = CHAIN.replace(
    "{step: b, tool: {kind: http, url: '{{ a.v }}'}", "{step: b, tool: {kind: python, code: x}"
)


def test_several_steps_that_follow_are_sent(bench: Bench) -> None:
    _, first = begun(bench, FORK)
    assert ended(bench, first) is None
    assert [d.pointer.step for d in bench.dispatcher.sent] == ["b", "c"]
    assert bench.dispatcher.wakes == []


def test_a_step_of_a_queue_that_the_worker_does_not_serve_is_sent(bench: Bench) -> None:
    _, first = begun(bench, OTHER_QUEUE)
    assert (
        ended(bench, first, serves=Serves(queues=["default.io"], tools=["http", "python"])) is None
    )
    assert [(d.pointer.step, d.queue) for d in bench.dispatcher.sent] == [("b", "default.cpu")]


def test_a_token_of_a_pool_is_handed_steps_of_it_alone(bench: Bench) -> None:
    _, first = begun(bench, CHAIN.replace("{step: b,", "{step: b, pool: other,"))
    assert (
        ended(
            bench,
            first,
            serves=Serves(queues=["default.io", "other.io"], tools=["http"]),
            pool="default",
        )
        is None
    )
    assert [d.queue for d in bench.dispatcher.sent] == ["other.io"]


def test_a_step_of_a_tool_that_the_worker_lacks_is_sent(bench: Bench) -> None:
    _, first = begun(bench)
    assert ended(bench, first, serves=Serves(queues=SERVES.queues, tools=["python"])) is None
    assert [d.pointer.step for d in bench.dispatcher.sent] == ["b"]


def test_iterations_of_a_sequential_loop_are_handed_over_one_after_the_other(bench: Bench) -> None:
    execution_id, first = begun(bench, TO_LOOP.replace(", spec: {mode: parallel}", ""))
    following: Pointer | None = first
    walked = []
    while following is not None:
        walked.append((following.step, following.iteration))
        following = ended(bench, following, {"v": 1})
    assert walked == [("a", -1), ("b", 0), ("b", 1)]
    assert bench.control.executions.get(execution_id).status == "COMPLETED"
    assert (bench.dispatcher.sent, bench.dispatcher.wakes) == ([], [])


def test_iterations_of_a_wide_loop_are_decided_by_orchestrators(bench: Bench) -> None:
    execution_id, first = begun(bench, TO_LOOP)
    assert ended(bench, first) is None
    for pointer in bench.advance(execution_id):
        assert bench.claim(pointer).granted
        assert ended(bench, pointer) is None
    assert bench.types(execution_id)[-1] == "step.done"


def test_wide_loops_are_decided_by_orchestrators(bench: Bench) -> None:
    execution_id, first = begun(bench, TO_LOOP)
    assert ended(bench, first) is None
    assert (bench.dispatcher.sent, bench.dispatcher.wakes) == ([], [execution_id])


def test_one_that_begins_with_a_loop_is_decided_by_an_orchestrator(bench: Bench) -> None:
    loop = "loop: {in: [1, 2], iterator: i, spec: {mode: parallel}}"
    begins = f"workflow: [{{step: a, tool: {{kind: http, url: x}}, {loop}}}]"
    execution_id = bench.start(begins)
    assert (bench.dispatcher.sent, bench.dispatcher.wakes) == ([], [execution_id])


PASSED_OVER = """
workflow:
- {step: a, tool: {kind: http, url: x}, next: {arcs: [{step: b}]}}
- {step: b, when: '{{ false }}', tool: {kind: http, url: x}, next: {arcs: [{step: c}]}}
- {step: c, tool: {kind: http, url: x}, loop: {in: '{{ range(50) }}', iterator: i, spec: {mode: parallel}}}
"""
CALLED = "workflow: [{step: a, tool: {kind: http, url: x}}]"
CALLS = """
workflow:
- {step: a, tool: {kind: playbook, path: called, return_step: a}, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: http, url: x}}
"""


def test_more_than_a_little_is_decided_by_an_orchestrator(bench: Bench) -> None:
    execution_id, first = begun(bench, PASSED_OVER)
    assert ended(bench, first) is None
    assert bench.types(execution_id)[-1] == "step.done"
    assert (bench.dispatcher.sent, bench.dispatcher.wakes) == ([], [execution_id])


def test_an_end_that_others_wait_for_is_decided_by_an_orchestrator(bench: Bench) -> None:
    bench.register(CALLED, "called")
    parent = bench.start(CALLS)
    (child,) = bench.children(parent)
    bench.dispatcher.wakes.clear()
    (pointer,) = bench.advance(child)
    assert bench.claim(pointer).granted
    assert ended(bench, pointer) is None
    assert bench.types(child)[-1] == "step.done"
    assert bench.dispatcher.wakes == [child]
    bench.control.advance.advance(child)
    assert [pointer.step for pointer in bench.advance(parent)] == ["b"]


def test_retries_are_decided_by_orchestrators(bench: Bench) -> None:
    execution_id, first = begun(bench)
    bench.report(first, outcome="failed", error={"kind": "x", "message": "no"})
    bench.advance(execution_id)
    bench.dispatcher.sent.clear()
    bench.dispatcher.wakes.clear()
    retried = bench.control.intervention.retry(execution_id).started
    assert retried is not None
    again = retried.execution_id
    assert (bench.dispatcher.sent, bench.dispatcher.wakes) == ([], [again])
    (pointer,) = bench.advance(again)
    assert bench.claim(pointer).granted
    assert ended(bench, pointer) is None
    assert bench.dispatcher.wakes == [again, again]


def test_an_older_worker_is_handed_nothing(bench: Bench) -> None:
    execution_id, first = begun(bench)
    assert ended(bench, first, serves=None) is None
    assert bench.dispatcher.wakes == [execution_id]


def test_a_paused_execution_goes_on_when_it_is_resumed(bench: Bench) -> None:
    execution_id, first = begun(bench)
    bench.control.intervention.pause(execution_id)
    assert ended(bench, first) is None
    assert bench.types(execution_id)[-1] == "step.done"
    bench.control.intervention.resume(execution_id)
    assert [pointer.step for pointer in bench.advance(execution_id)] == ["b"]


def test_a_long_log_that_is_not_known_here_is_left_to_orchestrators(
    bench: Bench, make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id, first = begun(bench)
    monkeypatch.setattr(module, "MOST_READ", 1)
    bench.control.advance._cache.pop(execution_id)
    assert ended(bench, first) is None
    assert bench.dispatcher.wakes == [execution_id]


# ---------------------------------------------------------------------- what goes wrong
def test_a_report_counts_where_what_follows_cannot_be_decided(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id, first = begun(bench)

    def broken(*_: Any) -> None:
        raise UnavailableError("the blob store is away")

    monkeypatch.setattr(bench.control.advance, "folded", broken)
    answer = exchange(bench, report_of(first)).reports[0]
    assert (answer.accepted, answer.duplicate, answer.follows) == (True, False, None)
    assert bench.types(execution_id)[-1] == "step.done"
    assert bench.dispatcher.wakes == [execution_id]


def test_a_report_counts_where_the_log_has_an_event_of_a_newer_version(bench: Bench) -> None:
    execution_id, first = begun(bench)
    newer(bench, execution_id)
    answer = exchange(bench, report_of(first)).reports[0]
    assert (answer.accepted, answer.follows) == (True, None)
    assert book_of(bench, execution_id).rows[-1].row.type == "step.done"
    assert bench.dispatcher.wakes == [execution_id]


def test_a_start_counts_where_what_follows_cannot_be_decided(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(bench.control.advance, "folded", broken)
    execution_id = bench.start(CHAIN)
    assert bench.types(execution_id) == ["execution.started"]
    assert bench.dispatcher.wakes == [execution_id]


def test_without_a_broker_what_was_decided_stays(bench: Bench) -> None:
    execution_id, first = begun(bench, FORK)
    bench.dispatcher.down = True
    assert ended(bench, first) is None
    assert bench.types(execution_id).count("step.scheduled") == 3


def test_a_report_that_is_sent_again_is_handed_the_same_again(bench: Bench) -> None:
    execution_id, first = begun(bench)
    second = ended(bench, first)
    types = bench.types(execution_id)
    answer = exchange(bench, report_of(first)).reports[0]
    assert (answer.duplicate, next_of(answer)) == (True, second)
    assert bench.types(execution_id) == types
    # Also where what is sent again is not quite the same.
    again = exchange(bench, report_of(first, onward=False, outcome="failed")).reports[0]
    assert next_of(again) == second


def test_a_token_of_another_pool_is_not_told_what_was_handed_over(bench: Bench) -> None:
    _, first = begun(bench)
    assert ended(bench, first) is not None
    answer = exchange(bench, report_of(first), pool="other").reports[0]
    assert (answer.duplicate, answer.follows) == (True, None)


def test_what_took_too_long_to_decide_is_left_to_orchestrators(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", -1.0)
    execution_id, first = begun_the_usual_way(bench)
    assert ended(bench, first) is None
    assert bench.dispatcher.wakes[-1] == execution_id


@pytest.mark.parametrize("how", ["it has ended", "it was given up", "the execution has ended"])
def test_what_is_over_is_not_handed_over_again(bench: Bench, how: str) -> None:
    execution_id, first = begun(bench)
    second = ended(bench, first)
    assert second is not None
    if how == "it has ended":
        ended(bench, second)
    elif how == "it was given up":
        bench.report(second, outcome="interrupted", key="back")
    else:
        bench.control.executions.cancel(execution_id)
    answer = exchange(bench, report_of(first)).reports[0]
    assert (answer.accepted, answer.duplicate, answer.follows) == (True, True, None)


def test_what_was_handed_to_a_worker_that_dies_is_given_to_others(bench: Bench) -> None:
    bench.control.presence.beat(Beat(name="w1"))
    execution_id, first = begun(bench)
    second = ended(bench, first)
    assert second is not None
    bench.now[0] += 1000
    assert bench.control.sweeper.sweep().expired == 1
    assert bench.advance(execution_id) == [second._replace(attempt=2)]
    answer = exchange(bench, report_of(first)).reports[0]
    assert (answer.duplicate, answer.follows) == (True, None)


def test_a_worker_is_told_to_stop_what_was_handed_to_it(bench: Bench) -> None:
    execution_id, first = begun(bench)
    second = ended(bench, first)
    assert second is not None
    running = [PointerWire(**second._asdict())]
    assert bench.control.presence.beat(Beat(name="w1", running=running)).stop == []
    bench.control.executions.cancel(execution_id)
    assert bench.control.presence.beat(Beat(name="w1", running=running)).stop == running
