"""One bad value, playbook or answer never hangs an execution nor harms another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.engine.events import ExecutionFailed, StepScheduled
from app.engine.ports import Pointer
from app.errors import BadRequestError, UnavailableError
from app.services.briefing import Briefing
from app.store.keys import keys_of
from app.store.memory import MemoryLog
from app.wire import Claim, Exchange
from tests.services.conftest import Bench

ONE = "workflow: [{step: a, tool: {kind: noop}}]"


def begun(
    bench: Bench, workflow: str, payload: dict[str, Any] | None = None
) -> tuple[int, Pointer]:
    execution_id = bench.start(workflow, payload)
    (pointer,) = bench.advance(execution_id)
    return execution_id, pointer


@pytest.mark.parametrize(
    "value", ["{{ 10 ** 30 }}", "{{ 'x' * 5000 }}"], ids=["beyond 64 bits", "above the limit"]
)
def test_a_value_that_cannot_be_kept_fails_the_execution(
    make_bench: Callable[..., Bench], value: str
) -> None:
    bench = make_bench(result_bytes=1000)
    workflow = f"""
workflow:
- {{step: a, set: {{ctx.x: "{value}"}}, next: {{arcs: [{{step: b}}]}}}}
- {{step: b}}
"""
    execution_id, pointer = begun(bench, workflow)
    bench.work(pointer, {})
    bench.advance(execution_id)
    summary = bench.control.executions.get(execution_id)
    assert summary.status == "FAILED"
    assert "cannot be kept" in str(summary.error) or "CALLBOARD_RESULT_BYTES" in str(summary.error)


def test_a_loop_over_what_cannot_be_kept_fails_its_step(bench: Bench) -> None:
    workflow = """
workflow:
- {step: a, tool: {kind: noop}, loop: {in: "{{ [1e308 * 10] }}"}}
"""
    execution_id = bench.start(workflow)
    bench.advance(execution_id)
    assert bench.control.executions.get(execution_id).status == "FAILED"


def test_a_bug_in_deciding_ends_the_execution(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = bench.start(ONE)

    def broken(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("app.services.advance.decide", broken)
    bench.advance(execution_id)
    event = bench.log(execution_id)[-1].event
    assert isinstance(event, ExecutionFailed)
    assert "a bug of ours" in event.error["message"]


def test_an_outage_in_deciding_ends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    execution_id = bench.start(ONE)

    def away(*_: object) -> None:
        raise UnavailableError("the database is away")

    monkeypatch.setattr("app.services.advance.decide", away)
    with pytest.raises(UnavailableError):
        bench.advance(execution_id)
    assert bench.types(execution_id) == ["execution.started"]


def test_a_claim_that_cannot_be_briefed_leaves_the_others_of_its_batch_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, good = begun(bench, ONE)
    _, bad = begun(bench, ONE)
    brief = Briefing._brief

    def picky(self: Briefing, granted: Any, *rest: Any) -> Any:
        if granted.claim.execution_id == bad.execution_id:
            raise KeyError("the tool is not installed here")
        return brief(self, granted, *rest)

    monkeypatch.setattr(Briefing, "_brief", picky)
    claims = [Claim(**pointer._asdict(), key=str(pointer)) for pointer in (good, bad)]
    answer = bench.control.work.exchange(Exchange(worker="w", claims=claims))
    assert [claim.granted for claim in answer.claims] == [True, True]
    assert [claim.step is not None for claim in answer.claims] == [True, False]
    assert "not installed" in str(answer.claims[1].reason)


@pytest.mark.parametrize(
    "result",
    [
        {"_ref": {"name": "nope"}},
        {"_ref": {"name": "nope"}, "_store": "kv", "_size_bytes": 1, "_preview": None, "own": 1},
    ],
    ids=["looks a little like a reference", "looks like a reference"],
)
def test_what_looks_like_a_reference_is_data(bench: Bench, result: dict[str, Any]) -> None:
    workflow = """
workflow:
- {step: a, next: {arcs: [{step: b, when: "{{ a.own | default(2) }}"}]}}
- {step: b, tool: {kind: http, url: "{{ a }}"}}
"""
    execution_id, pointer = begun(bench, workflow)
    bench.work(pointer, result)
    (second,) = bench.advance(execution_id)
    answer = bench.claim(second)
    assert answer.granted
    assert answer.variables is not None


def test_keys_removed_from_a_large_result_stay_removed(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(inline_bytes=100)
    workflow = """
workflow:
- {step: a, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: http, url: "{{ a }}"}, next: {arcs: [{step: c}]}}
- {step: c, tool: {kind: http, url: "{{ b }}"}}
"""
    execution_id, pointer = begun(bench, workflow)
    bench.work(pointer, {"rows": list(range(100)), "kept": 1})
    (second,) = bench.advance(execution_id)
    assert bench.claim(second).granted
    given = bench.control.executions.result(execution_id, "a")
    bench.report(second, {key: value for key, value in given.items() if key != "rows"})
    (third,) = bench.advance(execution_id)
    variables = bench.claim(third).variables
    assert variables is not None
    assert variables.results["b"] == {"kept": 1}


def test_large_ctx_values_of_iterations_do_not_overwrite_each_other(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(inline_bytes=50)
    workflow = """
workflow:
- step: a
  loop: {in: "{{ 3 }}", iterator: i}
  tool: {kind: http, url: "{{ acc }}"}
"""
    execution_id = bench.start(workflow)
    seen = []
    for number in range(3):
        (pointer,) = bench.advance(execution_id)
        variables = bench.claim(pointer).variables
        assert variables is not None
        seen.append(bench.read(pointer, variables.ctx.get("acc")))
        bench.report(pointer, {}, ctx={"acc": ["x" * 60] * (number + 1)})
    assert [len(value or []) for value in seen] == [0, 1, 2]


def crash(bench: Bench, execution_id: int) -> None:
    """Take the last event back, as a crash does with what was committed and not yet on disk."""
    log = bench.ports.events
    assert isinstance(log, MemoryLog)
    book = log._shelf.book(execution_id)
    lost = book.rows.pop()
    book.taken.difference_update(keys_of(lost.row))
    for stored in book.by_key.values():
        if lost in stored:
            stored.remove(lost)


def test_a_claim_taken_back_by_a_crash_is_not_remembered(bench: Bench) -> None:
    """A claim commits before it is on disk: its seq may be given to another event after a crash."""
    execution_id, pointer = begun(bench, ONE)
    assert bench.claim(pointer).granted
    bench.advance(execution_id)  # folds the claim, decides nothing
    bench.control.executions.state(execution_id)
    crash(bench, execution_id)
    assert "step.started" not in bench.types(execution_id)
    assert bench.report(pointer, {"v": 1}).accepted
    bench.advance(execution_id)
    assert bench.control.executions.get(execution_id).status == "COMPLETED"


def test_an_absurd_delay_is_bounded(bench: Bench) -> None:
    execution_id, pointer = begun(bench, ONE)
    bench.claim(pointer)
    bench.report(pointer, outcome="failed", error={"message": "x"}, retry_in=1e300)
    bench.advance(execution_id)
    scheduled = [
        entry.event for entry in bench.log(execution_id) if isinstance(entry.event, StepScheduled)
    ]
    assert scheduled[-1].not_before == pytest.approx(bench.now[0] + 31_536_000)


def test_a_part_of_the_sweep_that_fails_keeps_no_other_from_its_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id, _ = begun(bench, ONE)

    def refused(*_: object) -> int:
        raise BadRequestError("one odd row")

    monkeypatch.setattr(bench.control.sweeper, "_send_again", refused)
    bench.dispatcher.wakes.clear()
    with pytest.raises(BadRequestError):
        bench.control.sweeper.sweep()
    assert bench.dispatcher.wakes == [execution_id]
