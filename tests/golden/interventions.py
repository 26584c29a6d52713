"""Scenarios of what people do about an execution."""

from __future__ import annotations

from tests.golden.scenarios import only, play_on, scenario
from tests.services.conftest import Bench

CHAIN = """
workload: {city: Oslo}
workflow:
- {step: start, tool: {kind: noop}, set: {ctx.n: 5}, next: {arcs: [{step: each}]}}
- step: each
  loop: {in: [a, b, c], iterator: item, spec: {mode: parallel}}
  tool: {kind: noop}
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop, message: "{{ start }}"}}
"""


@scenario("An execution is paused while a pointer waits, and goes on later.")
def paused_and_resumed(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    pointer = only(bench, execution_id)
    bench.control.intervention.pause(execution_id, reason="the warehouse is down")
    assert not bench.claim(pointer).granted
    bench.now[0] += 60
    bench.control.intervention.resume(execution_id)
    bench.work(pointer, {"rows": 3})
    play_on(bench, execution_id)


@scenario("An execution is paused and cancelled before it goes on.")
def paused_and_cancelled(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    only(bench, execution_id)
    bench.control.intervention.pause(execution_id)
    bench.control.executions.cancel(execution_id, reason="not needed any more")


@scenario("An execution fails in a loop; its retry takes over what was done.")
def retry_of_a_failed_execution(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    play_on(bench, execution_id, {"each": Exception})
    retried = bench.control.intervention.retry(execution_id).started
    assert retried is not None
    play_on(bench, retried.execution_id)


@scenario("All of an execution from one of its steps on is done again.")
def retry_from_a_step(bench: Bench) -> None:
    execution_id = bench.start(CHAIN)
    play_on(bench, execution_id)
    retried = bench.control.intervention.retry(execution_id, step="each").started
    assert retried is not None
    play_on(bench, retried.execution_id)
