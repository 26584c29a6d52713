"""Scenarios of arcs: chains, branches, joins, cycles, ends."""

from __future__ import annotations

from tests.golden.scenarios import ERROR, claim, finish, only, play_on, report, scenario
from tests.services.conftest import Bench

FORK = """
workload: {{nights: 3, wants_car: false}}
workflow:
- step: start
  next:
    spec: {{mode: {mode}}}
    arcs:
    - {{step: flight, when: "{{{{ workload.nights > 0 }}}}"}}
    - {{step: hotel}}
    - {{step: car, when: "{{{{ workload.wants_car }}}}"}}
- {{step: flight, tool: {{kind: noop}}, next: {{arcs: [{{step: offer}}]}}}}
- {{step: hotel, tool: {{kind: noop}}, next: {{arcs: [{{step: offer}}]}}}}
- {{step: car, tool: {{kind: noop}}, next: {{arcs: [{{step: offer}}]}}}}
- {{step: offer, tool: {{kind: noop, message: "{{{{ flight }}}} {{{{ hotel }}}}"}}}}
"""
CYCLE = """
workload: {turns: 3}
workflow:
- {step: start, set: {ctx.count: 0}, next: {arcs: [{step: turn}]}}
- step: turn
  tool: {kind: noop, message: "{{ count }}"}
  set: {ctx.count: "{{ count + 1 }}"}
  next:
    arcs:
    - {step: turn, when: "{{ count < workload.turns }}", set: {ctx.last: "{{ turn.of }}"}}
    - {step: end}
- {step: end, tool: {kind: noop, message: "{{ count }} {{ last }}"}}
"""


@scenario("Three steps in a row, each reading the one before, and a workload that was overridden.")
def chain(bench: Bench) -> None:
    workflow = """
workload: {city: Oslo, days: 2}
workflow:
- {step: start, tool: {kind: noop, message: "{{ workload.city }}"}, next: {arcs: [{step: rank}]}}
- {step: rank, tool: {kind: noop, message: "{{ start.of }}"}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop, message: "{{ rank.of }} {{ workload.days }}"}}
"""
    play_on(bench, bench.start(workflow, {"days": 5}))


@scenario("Of three arcs the first that holds is taken; what no path leads to is skipped.")
def exclusive_arcs(bench: Bench) -> None:
    play_on(bench, bench.start(FORK.format(mode="exclusive")))


@scenario("All arcs that hold are taken; the join waits for both, and not for what is skipped.")
def inclusive_arcs(bench: Bench) -> None:
    execution_id = bench.start(FORK.format(mode="inclusive"))
    finish(bench, only(bench, execution_id))
    flight, hotel = bench.advance(execution_id)
    finish(bench, hotel)
    assert bench.advance(execution_id) == [], "the join waits"
    finish(bench, flight)
    play_on(bench, execution_id)


@scenario("A step leads back to itself and counts its turns in ctx.")
def cycle_with_ctx(bench: Bench) -> None:
    play_on(bench, bench.start(CYCLE), {"start": None})


@scenario("A step fails, an arc for failures catches it, and the execution completes.")
def failure_arc(bench: Bench) -> None:
    workflow = """
workflow:
- step: start
  tool: {kind: noop}
  next:
    arcs:
    - {step: repair, when: "{{ event.name == 'call.error' }}"}
    - {step: end}
- {step: repair, tool: {kind: noop, message: "{{ start.error.message }}"}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}
"""
    play_on(bench, bench.start(workflow), {"start": Exception})


@scenario(
    "A step fails and nothing catches it: what runs beside it ends, then the execution fails."
)
def failure(bench: Bench) -> None:
    execution_id = bench.start(FORK.format(mode="inclusive"))
    finish(bench, only(bench, execution_id))
    flight, hotel = bench.advance(execution_id)
    claim(bench, flight)
    claim(bench, hotel)
    report(bench, flight, outcome="failed", error=ERROR, ctx={"seen": [1, 2]})
    bench.advance(execution_id)
    report(bench, hotel, {"price": 240})
    play_on(bench, execution_id)


@scenario("A condition cannot be evaluated: routing fails, and with it the execution.")
def condition_that_raises(bench: Bench) -> None:
    workflow = """
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: end, when: "{{ 1 // start.zero }}"}]}}
- {step: end, tool: {kind: noop}}
"""
    play_on(bench, bench.start(workflow), {"start": {"zero": 0}})


@scenario("The final step runs after a failure.")
def final_step(bench: Bench) -> None:
    workflow = """
executor: {spec: {final_step: clean_up}}
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: more}]}}
- {step: more, tool: {kind: noop}}
- {step: clean_up, tool: {kind: noop, message: "{{ start.status | default('ok') }}"}}
"""
    play_on(bench, bench.start(workflow), {"start": Exception})


@scenario("A step is not admitted, another one's older 'when' is false and its arcs are followed.")
def steps_not_admitted(bench: Bench) -> None:
    workflow = """
workload: {open: false}
workflow:
- {step: start, next: {arcs: [{step: passed}]}}
- {step: passed, when: "{{ workload.open }}", tool: {kind: noop}, next: {arcs: [{step: refused}]}}
- step: refused
  spec:
    policy:
      admit:
        rules: [{when: "{{ workload.open }}", then: {allow: true}}, {else: {then: {allow: false}}}]
  tool: {kind: noop}
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop}}
"""
    play_on(bench, bench.start(workflow))


@scenario("The time of the execution is over while a step runs.")
def deadline(bench: Bench) -> None:
    workflow = """
executor: {spec: {timeout: 60}}
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}
"""
    execution_id = bench.start(workflow)
    claim(bench, only(bench, execution_id))
    bench.now[0] += 60
    assert bench.advance(execution_id) == []
