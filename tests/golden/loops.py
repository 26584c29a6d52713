"""Scenarios of loops over lists and of cursors."""

from __future__ import annotations

from typing import Any

from tests.golden.scenarios import claim, finish, only, play_on, report, scenario
from tests.services.conftest import Bench

LOOP = """
workload: {{cities: [Oslo, Rome, Lima, Cork, Bern]}}
workflow:
- step: each
  loop: {{in: "{{{{ workload.cities }}}}", iterator: city, spec: {{{spec}}}}}
  tool: {{kind: noop, message: "{{{{ city }}}} {{{{ iter.index }}}}"}}
  next: {{arcs: [{{step: end, when: "{{{{ event.name == 'loop.done' }}}}"}}]}}
- {{step: end, tool: {{kind: noop, message: "{{{{ each.stats }}}} {{{{ each.results }}}}"}}}}
"""
CURSOR = """
workflow:
- step: treat
  loop:
    cursor: {{kind: postgres, auth: {{source: secret, name: w}}, claim: "UPDATE … RETURNING id"}}
    iterator: row
    spec: {{mode: cursor, max_in_flight: 2, frame: {{max_rows: 2{frame}}}}}
  tool: {{kind: noop, message: "{{{{ iter }}}}"}}
  next: {{arcs: [{{step: end, when: "{{{{ event.name == 'loop.done' }}}}"}}]}}
- {{step: end, tool: {{kind: noop, message: "{{{{ treat.stats }}}}"}}}}
"""
ROWS: dict[str, Any] = {
    "treat(claim 0)": {"rows": [{"id": 1}, {"id": 2}]},
    "treat(claim 1)": {"rows": [{"id": 3}]},
}


@scenario("Five items one after the other.")
def sequential_loop(bench: Bench) -> None:
    play_on(bench, bench.start(LOOP.format(spec="mode: sequential")))


@scenario("Five items, three at a time, ending in another order than they began.")
def parallel_loop(bench: Bench) -> None:
    execution_id = bench.start(LOOP.format(spec="mode: parallel, max_in_flight: 3"))
    pointers = bench.advance(execution_id)
    while pointers:
        finish(bench, pointers.pop())
        pointers += bench.advance(execution_id)


@scenario("A loop over nothing.")
def empty_loop(bench: Bench) -> None:
    play_on(bench, bench.start(LOOP.format(spec="mode: parallel"), {"cities": []}))


@scenario("Two of five iterations fail; they are counted, and the execution goes on.")
def loop_with_failures(bench: Bench) -> None:
    results = {"each[1]": Exception, "each[3]": Exception, "each[4]": None}
    play_on(bench, bench.start(LOOP.format(spec="mode: parallel")), results)


@scenario("A loop inside a cycle: each visit has iterations of its own.")
def loop_in_a_cycle(bench: Bench) -> None:
    workflow = """
workflow:
- {step: start, set: {ctx.page: 0}, next: {arcs: [{step: each}]}}
- step: each
  loop: {in: "{{ [page, page + 1] }}", iterator: n, spec: {mode: parallel}}
  tool: {kind: noop, message: "{{ n }}"}
  next: {arcs: [{step: check, set: {ctx.page: "{{ page + 1 }}"}}]}
- {step: check, next: {arcs: [{step: each, when: "{{ page < 2 }}"}, {step: end}]}}
- {step: end, tool: {kind: noop, message: "{{ each.results }}"}}
"""
    play_on(bench, bench.start(workflow), {"check": None})


@scenario("A cursor claims two frames; rows are added while the last one is worked on.")
def cursor_loop(bench: Bench) -> None:
    results: dict[str, Any] = {**ROWS, "treat[1]": Exception, "treat": {"rows": []}, "end": None}
    results |= {f"treat[{index}]": {"done": index} for index in (0, 2)}
    play_on(bench, bench.start(CURSOR.format(frame="")), results)


@scenario("A cursor whose frames are worked on as a whole.")
def cursor_by_frame(bench: Bench) -> None:
    workflow = CURSOR.format(frame=", process: frame")
    results: dict[str, Any] = {
        **ROWS,
        "treat": {"rows": []},
        "treat[0]": {"done": 2},
        "treat[1]": {"done": 1},
    }
    play_on(bench, bench.start(workflow), results)


@scenario("A claim of a cursor gives what are no rows.")
def cursor_without_rows(bench: Bench) -> None:
    execution_id = bench.start(CURSOR.format(frame=""))
    pointer = only(bench, execution_id)
    claim(bench, pointer)
    report(bench, pointer, {"rows": "none"})
    play_on(bench, execution_id)
