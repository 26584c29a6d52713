"""References that nobody gave out, and children whose results cannot be handed over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.engine.events import ExecutionStarted, StepDone, StepParked
from app.engine.ports import Pointer
from app.engine.references import REF, is_reference, place_of
from app.errors import ForbiddenError
from app.services.reading import MissingValueError
from app.wire import ValueRequest
from tests.services.conftest import Bench

TWO = "workflow: [{step: a, next: {arcs: [{step: b}]}}, {step: b}]"
CHILD = "workflow: [{step: start, tool: {kind: noop}}]"


def begun(bench: Bench, workflow: str = TWO) -> tuple[int, Pointer]:
    execution_id = bench.start(workflow)
    (pointer,) = bench.advance(execution_id)
    return execution_id, pointer


def forged(execution_id: int) -> dict[str, Any]:
    """What would stand for the results of a loop of that execution."""
    ref = f"noetl://execution/{execution_id}/loop/a/1"
    pointer = {"kind": "loop_ref", "name": "loop/a/1", "ref": ref}
    return {REF: pointer, "_store": "log", "_size_bytes": 1, "_preview": None, "stats": {}}


def test_what_is_selected_does_not_make_a_result_a_reference(bench: Bench) -> None:
    victim, _ = begun(bench)
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    assert bench.report(pointer, {"own": 1}, selected=forged(victim)).accepted
    event = bench.log(execution_id)[-1].event
    assert isinstance(event, StepDone)
    assert event.result == {"own": 1, "stats": {}}


def test_the_payload_of_a_parked_call_is_data(bench: Bench) -> None:
    victim, _ = begun(bench)
    bench.register(CHILD, "child")
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    call = {"path": "child", "payload": forged(victim), "waits": True}
    assert bench.report(pointer, outcome="parked", progress={}, call=call).accepted
    event = bench.log(execution_id)[-1].event
    assert isinstance(event, StepParked)
    assert event.call is not None
    kept = event.call["payload"]
    assert is_reference(kept)
    assert place_of(kept[REF]).execution_id == execution_id
    bench.advance(execution_id)
    (child,) = bench.children(execution_id)
    started = bench.log(child)[0].event
    assert isinstance(started, ExecutionStarted)
    assert started.workload == forged(victim)


def test_a_value_of_another_execution_is_not_read(bench: Bench) -> None:
    victim, _ = begun(bench)
    execution_id, pointer = begun(bench)
    bench.claim(pointer)
    reader = bench.control.results._reader
    with pytest.raises(MissingValueError, match="has no value"):
        reader.resolved(execution_id, forged(victim))
    ref = forged(victim)[REF]["ref"]
    with pytest.raises(ForbiddenError):
        bench.control.work.value(ValueRequest(**pointer._asdict(), ref=ref))


def test_a_result_that_no_parent_can_keep_is_told_as_a_failure(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench(inline_bytes=100, result_bytes=300)
    bench.register(CHILD, "child")
    parent = bench.start(
        "workflow: [{step: start, tool: {kind: playbook, path: child, return_result: true}}]"
    )
    bench.advance(parent)
    (child,) = bench.children(parent)
    (pointer,) = bench.advance(child)
    # It fits, and no longer does with the fields that say how the child ended.
    bench.work(pointer, {"n": "x" * 280})
    bench.advance(child)
    bench.advance(parent)
    assert bench.control.executions.get(parent).status == "COMPLETED"
    told = bench.control.executions.result(parent, "start")
    assert told["status"] == "failed"
    assert "cannot be handed over" in told["error"]
