"""Claims and reports: the fence between an attempt and the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.engine.ports import Pointer
from app.errors import ForbiddenError, UnavailableError
from app.services import sweep
from app.store.shelf import MemoryTransaction
from app.wire import Beat, Claim, ClaimRequest, PointerWire, Report, ReportRequest
from tests.services.conftest import Bench

TWO = """
workflow:
- {step: a, next: {arcs: [{step: b}]}}
- {step: b, tool: {kind: http, url: '{{ a.v }}/{{ n }}'}}
"""


def begun(
    bench: Bench, workflow: str = TWO, payload: dict[str, Any] | None = None
) -> tuple[int, Pointer]:
    execution_id = bench.start(workflow, payload)
    (pointer,) = bench.advance(execution_id)
    return execution_id, pointer


def test_a_run_goes_from_claim_to_report_to_the_end(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    bench.work(pointer, {"v": 1})
    (second,) = bench.advance(execution_id)
    bench.work(second, {})
    assert bench.advance(execution_id) == []
    assert bench.control.executions.get(execution_id).status == "COMPLETED"
    assert bench.types(execution_id) == [
        "execution.started",
        "step.scheduled",
        "step.started",
        "step.done",
        "step.scheduled",
        "step.started",
        "step.done",
        "step.routed",
        "execution.completed",
    ]


def test_a_claim_brings_the_step_and_exactly_the_variables_it_names(bench: Bench) -> None:
    execution_id, pointer = begun(bench, payload={"n": 5, "secretive": "x"})
    bench.work(pointer, {"v": 1})
    (second,) = bench.advance(execution_id)
    response = bench.control.work.claim(
        ClaimRequest(worker="w", claims=[Claim(**second._asdict(), key="k")])
    )
    answer = response.answers[0]
    assert answer.step is not None
    assert answer.variables is not None
    assert response.steps[answer.step]["tool"] == {"kind": "http", "url": "{{ a.v }}/{{ n }}"}
    assert answer.variables.workload == {"n": 5}
    assert answer.variables.results == {"a": {"v": 1}}
    assert answer.variables.ctx == {}


def test_a_second_worker_is_refused(bench: Bench) -> None:
    _, pointer = begun(bench)
    assert bench.claim(pointer, worker="w1").granted
    refused = bench.claim(pointer, worker="w2")
    assert (refused.granted, refused.reason) == (False, "claimed by another worker")


def test_two_claims_of_one_attempt_in_one_call_grant_one(bench: Bench) -> None:
    _, pointer = begun(bench)
    claims = [Claim(**pointer._asdict(), key=key) for key in ("k1", "k2")]
    answers = bench.control.work.claim(ClaimRequest(worker="w", claims=claims)).answers
    assert [answer.granted for answer in answers] == [True, False]


def test_the_same_claim_again_is_granted_again(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    assert bench.claim(pointer).granted
    assert bench.claim(pointer).granted
    assert bench.types(execution_id).count("step.started") == 1


def test_the_same_report_again_is_one_event(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    bench.work(pointer, {"v": 1})
    again = bench.report(pointer, {"v": 1})
    assert (again.accepted, again.duplicate) == (True, True)
    assert bench.types(execution_id).count("step.done") == 1


@pytest.mark.parametrize("attempt", [0, 2, 7])
def test_a_claim_of_another_attempt_is_refused(bench: Bench, attempt: int) -> None:
    _, pointer = begun(bench)
    assert not bench.claim(pointer._replace(attempt=attempt)).granted


def test_what_was_never_scheduled_cannot_be_claimed(bench: Bench) -> None:
    _, pointer = begun(bench)
    assert bench.claim(pointer._replace(step="b")).reason == "never scheduled"
    assert bench.claim(pointer._replace(execution_id=12)).reason == "never scheduled"


def test_a_late_report_is_refused_and_kept_for_the_audit(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    assert bench.claim(pointer).granted
    assert bench.report(pointer, outcome="interrupted").accepted
    bench.advance(execution_id)
    late = bench.report(pointer, {"v": 1}, key="late")
    bench.report(pointer, {"v": 1}, key="late")
    assert not late.accepted
    assert bench.types(execution_id).count("attempt.late") == 1
    assert "step.done" not in bench.types(execution_id)


def test_an_interrupted_attempt_is_scheduled_again(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    bench.report(pointer, outcome="interrupted")
    (again,) = bench.advance(execution_id)
    assert again == pointer._replace(attempt=2)


def test_a_retry_that_must_wait_is_sent_with_its_delay(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    error = {"kind": "server_error", "message": "503", "retryable": True}
    bench.report(pointer, outcome="failed", error=error, retry_in=60.0)
    (again,) = bench.advance(execution_id)
    assert again.attempt == 2
    assert bench.dispatcher.sent[-1].delay == pytest.approx(60)
    answer = bench.claim(again)
    assert answer.variables is not None
    assert answer.variables.local["_tries"] == 1


def test_after_the_end_of_the_execution_nothing_is_accepted(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    bench.control.executions.cancel(execution_id, reason="enough")
    assert not bench.report(pointer, {}).accepted
    assert not bench.claim(pointer).granted
    assert bench.control.executions.get(execution_id).status == "CANCELLED"


def test_a_pool_token_reaches_its_own_pool_only(bench: Bench) -> None:
    _, pointer = begun(bench)
    request = ClaimRequest(worker="w", claims=[Claim(**pointer._asdict(), key="k")])
    with pytest.raises(ForbiddenError):
        bench.control.work.claim(request, pool="gpu")
    assert bench.control.work.claim(request, pool="default").answers[0].granted
    report = Report(**pointer._asdict(), key="k", outcome="done")
    with pytest.raises(ForbiddenError):
        bench.control.work.report(ReportRequest(worker="w", reports=[report]), pool="gpu")


def test_a_report_is_kept_while_the_broker_is_away(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    bench.dispatcher.down = True
    assert bench.report(pointer, {"v": 1}).accepted
    bench.dispatcher.down = False
    assert bench.control.sweeper.sweep().woken == 1
    assert bench.dispatcher.wakes[-1] == execution_id


def test_a_large_result_goes_by_reference_and_is_read_back(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(inline_bytes=100)
    execution_id, pointer = begun(bench)
    rows = [{"n": number} for number in range(100)]
    bench.work(pointer, {"v": rows})
    (second,) = bench.advance(execution_id)
    done = bench.log(execution_id)[3].event
    assert set(done.result) == {"_ref", "_store", "_size_bytes", "_preview"}  # type: ignore[union-attr]
    variables = bench.claim(second).variables
    assert variables is not None
    assert variables.results["a"] == done.result  # type: ignore[union-attr]
    read = bench.read(second, variables.results["a"])
    assert read["v"] == rows
    assert read["_size_bytes"] > 100


def test_conditions_see_through_references(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(inline_bytes=100)
    workflow = """
workflow:
- {step: a, next: {arcs: [{step: b, when: '{{ a.rows | length == 99 }}'}]}}
- {step: b}
"""
    execution_id, pointer = begun(bench, workflow)
    bench.work(pointer, {"rows": list(range(99))})
    assert [item.step for item in bench.advance(execution_id)] == ["b"]


def test_loop_iterations_get_their_item(bench: Bench) -> None:
    workflow = """
workflow:
- step: a
  loop: {in: '{{ xs }}', iterator: x, spec: {mode: parallel}}
  tool: {kind: http, url: '{{ iter.x }}'}
"""
    execution_id = bench.start(workflow, {"xs": ["p", "q"]})
    first, second = bench.advance(execution_id)
    answer = bench.claim(second)
    assert answer.variables is not None
    local = answer.variables.local
    assert (local["x"], local["iter"]["x"], local["loop_index"], local["_total"]) == (
        "q",
        "q",
        1,
        2,
    )
    bench.report(second, "Q")
    bench.work(first, "P")
    bench.advance(execution_id)
    assert bench.control.executions.result(execution_id, "a") == {
        "results": ["P", "Q"],
        "data": ["P", "Q"],
        "stats": {"total": 2, "success": 2, "failed": 0},
    }


def test_a_heartbeat_names_the_attempts_to_stop(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    running = [PointerWire(**pointer._asdict())]
    assert bench.control.presence.beat(Beat(name="w1", running=running)).stop == []
    bench.control.executions.cancel(execution_id)
    assert bench.control.presence.beat(Beat(name="w1", running=running)).stop == running


# ---------------------------------------------------------------------- the sweeper
def test_the_attempt_of_a_silent_worker_is_given_to_another(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    bench.control.presence.beat(Beat(name="w1"))
    bench.claim(pointer)
    bench.now[0] += 10
    assert bench.control.sweeper.sweep().expired == 0
    bench.now[0] += 10
    assert bench.control.sweeper.sweep().expired == 1
    assert bench.control.sweeper.sweep().expired == 0
    (again,) = bench.advance(execution_id)
    assert again.attempt == 2
    assert bench.claim(again, worker="w2").granted
    assert not bench.report(pointer, {}, worker="w1").accepted


def test_a_pointer_nobody_claimed_is_sent_again(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    assert bench.control.sweeper.sweep().resent == 0
    bench.now[0] += 21
    assert bench.control.sweeper.sweep().resent == 1
    assert bench.dispatcher.sent[-1].pointer == pointer
    bench.work(pointer, {})
    bench.advance(execution_id)
    bench.now[0] += 1
    assert bench.control.sweeper.sweep().resent == 0


def test_a_pointer_that_may_still_wait_in_its_queue_is_not_sent_again(bench: Bench) -> None:
    begun(bench)
    bench.now[0] += 21
    bench.dispatcher.oldest = 21
    assert bench.control.sweeper.sweep().resent == 0
    bench.now[0] += 600
    bench.dispatcher.oldest = 621
    assert bench.control.sweeper.sweep().resent == 0


def test_a_pointer_that_was_lost_is_sent_again_however_long_the_queue_is(bench: Bench) -> None:
    begun(bench)
    bench.now[0] += 25
    bench.dispatcher.oldest = 19
    assert bench.control.sweeper.sweep().resent == 1, "what was sent with it has been fetched"


def test_a_pointer_that_was_sent_again_gets_its_time_and_more_each_time(bench: Bench) -> None:
    begun(bench)
    sent = []
    for _ in range(400):
        bench.now[0] += 5
        if bench.control.sweeper.sweep().resent:
            sent.append(bench.now[0] - 1_800_000_000)
    assert sent == [20, 40, 80, 160, 320, 640, 1240, 1840]


def test_what_a_broker_lost_with_its_store_is_sent_again_at_the_next_sweep(bench: Bench) -> None:
    pointers = {begun(bench)[1] for _ in range(3)}
    bench.control.sweeper.sweep()
    bench.dispatcher.sent.clear()
    bench.dispatcher.born = "tuesday"
    bench.dispatcher.oldest = 1_000.0  # whatever waits there are not these
    swept = bench.control.sweeper.sweep()
    assert (swept.resent, swept.woken) == (3, 3)
    assert {dispatch.pointer for dispatch in bench.dispatcher.sent} == pointers
    assert bench.control.sweeper.sweep().resent == 0


def test_after_a_loss_a_run_sends_several_batches_and_the_next_the_rest(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "BATCH", 2)
    monkeypatch.setattr(sweep, "WAKES", 2)
    monkeypatch.setattr(sweep, "BATCHES_AFTER_LOSS", 2)
    for _ in range(7):
        begun(bench)
    bench.control.sweeper.sweep()
    bench.dispatcher.born = "tuesday"
    runs = [bench.control.sweeper.sweep() for _ in range(3)]
    assert [run.resent for run in runs] == [4, 3, 0]
    assert [run.woken for run in runs] == [4, 3, 2]


def test_a_broker_that_is_away_has_lost_nothing_yet(bench: Bench) -> None:
    begun(bench)
    bench.control.sweeper.sweep()
    bench.dispatcher.down = True
    with pytest.raises(UnavailableError):
        bench.control.sweeper.sweep()
    bench.dispatcher.down = False
    assert bench.control.sweeper.sweep().resent == 0


def test_a_delayed_attempt_is_not_overdue_before_its_time(bench: Bench) -> None:
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    bench.report(pointer, outcome="failed", error={"message": "x"}, retry_in=600.0)
    bench.advance(execution_id)
    bench.now[0] += 300
    assert bench.control.sweeper.sweep().resent == 0
    bench.now[0] += 400
    assert bench.control.sweeper.sweep().resent == 1


def test_a_claim_that_a_key_refuses_is_judged_again_by_a_fresh_view(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, pointer = begun(bench)
    assert bench.claim(pointer, worker="w1").granted
    views = _outdated_once(monkeypatch)
    answer = bench.claim(pointer, worker="w2")
    assert (answer.granted, answer.reason) == (False, "claimed by another worker")
    assert len(views) == 2


def _outdated_once(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The first look at attempts, from now on, does not show who claimed them."""
    fresh, views = MemoryTransaction.attempts, list[object]()

    def attempts(tx: MemoryTransaction, keys: Any) -> Any:
        found = fresh(tx, keys)
        views.append(found)
        if len(views) > 1:
            return found
        return {
            place: replace(state, started_by=None, started_key=None)
            for place, state in found.items()
        }

    monkeypatch.setattr(MemoryTransaction, "attempts", attempts)
    return views
