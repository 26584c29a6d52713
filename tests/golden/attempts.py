"""Scenarios of attempts: retried, expired, interrupted, late; and of large values."""

from __future__ import annotations

from tests.golden.scenarios import (
    ERROR,
    beat,
    claim,
    fall_silent,
    finish,
    only,
    play_on,
    report,
    scenario,
)
from tests.services.conftest import Bench

TWO = """
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop, message: "{{ start }}"}}
"""
LOOP = """
workflow:
- step: each
  loop: {in: [a, b, c], iterator: item, spec: {mode: parallel}}
  tool: {kind: noop, message: "{{ item }}"}
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop, message: "{{ each.results }}"}}
"""


@scenario("Two attempts fail and a policy asks for another one each time; the third ends well.")
def retry(bench: Bench) -> None:
    execution_id = bench.start(TWO)
    for number in (1, 2):
        pointer = only(bench, execution_id)
        claim(bench, pointer)
        report(bench, pointer, outcome="failed", error=ERROR, retry_in=4.0 * number)
    play_on(bench, execution_id)


@scenario("A worker falls silent: its attempt expires, another worker does it, the first is late.")
def expired_and_late(bench: Bench) -> None:
    execution_id = bench.start(TWO)
    first = only(bench, execution_id)
    beat(bench, "w1")
    claim(bench, first)
    fall_silent(bench)
    second = only(bench, execution_id)
    claim(bench, second, worker="w2")
    report(bench, first, {"from": "w1"}, accepted=False)
    report(bench, second, {"from": "w2"}, worker="w2")
    play_on(bench, execution_id)


@scenario("Workers are lost again and again, until the step has no attempt left.", max_attempts=2)
def expired_too_often(bench: Bench) -> None:
    execution_id = bench.start(TWO)
    for worker in ("w1", "w2"):
        beat(bench, worker)
        claim(bench, only(bench, execution_id), worker=worker)
        fall_silent(bench)
    assert bench.advance(execution_id) == []


@scenario("A worker that shuts down gives its attempt back; that costs nothing.")
def interrupted(bench: Bench) -> None:
    execution_id = bench.start(TWO)
    pointer = only(bench, execution_id)
    claim(bench, pointer)
    report(bench, pointer, outcome="interrupted")
    play_on(bench, execution_id)


@scenario("Of a loop's iterations one is retried, one expires, one is given back.")
def attempts_in_a_loop(bench: Bench) -> None:
    execution_id = bench.start(LOOP)
    retried, expired, given_back = bench.advance(execution_id)
    beat(bench, "w1", "w2")
    claim(bench, retried, worker="w2")
    claim(bench, given_back, worker="w2")
    report(bench, retried, worker="w2", outcome="failed", error=ERROR, retry_in=1.0)
    report(bench, given_back, worker="w2", outcome="interrupted")
    claim(bench, expired)
    fall_silent(bench)
    play_on(bench, execution_id)


@scenario("A report after the end of its execution is kept for the audit.")
def late_after_the_end(bench: Bench) -> None:
    execution_id = bench.start(TWO)
    pointer = only(bench, execution_id)
    claim(bench, pointer)
    bench.control.executions.cancel(execution_id, reason="enough")
    report(bench, pointer, {"too": "late"}, accepted=False)


@scenario("Results, items and ctx go by reference, and conditions read through.", inline_bytes=60)
def large_values(bench: Bench) -> None:
    workflow = """
workflow:
- step: start
  tool: {kind: noop}
  next: {arcs: [{step: each, when: "{{ start.rows | length == 3 }}"}]}
- step: each
  loop: {in: "{{ start.rows }}", iterator: row, spec: {mode: parallel}}
  tool: {kind: noop, message: "{{ row }}"}
  set: {ctx.all: "{{ start.rows }}"}
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop, message: "{{ each.results }} {{ all }}"}}
"""
    rows = [f"row {number} of many" * 3 for number in range(3)]
    large = {"rows": rows, "count": 3}
    play_on(bench, bench.start(workflow), {"start": large, "each": large, "end": large})


@scenario("A result is in the blob store.", inline_bytes=60, blob_bytes=100)
def value_in_the_blob_store(bench: Bench) -> None:
    play_on(bench, bench.start(TWO), {"start": {"text": "x" * 200}, "end": {"text": "y" * 80}})


@scenario("What policy rules of a step set is read by the next one.")
def ctx_of_rules(bench: Bench) -> None:
    workflow = TWO.replace("{{ start }}", "{{ seen }}")
    execution_id = bench.start(workflow)
    pointer = only(bench, execution_id)
    claim(bench, pointer)
    report(bench, pointer, {"n": 1}, ctx={"seen": [1, {"two": 2}]})
    finish(bench, only(bench, execution_id))
    play_on(bench, execution_id)
