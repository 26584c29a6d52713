"""Scenarios of sub-playbooks, parked steps and cancellation."""

from __future__ import annotations

from tests.golden.scenarios import claim, only, play_on, report, scenario
from tests.services.conftest import Bench

CHILD = """
workload: {n: 1}
workflow:
- {step: start, tool: {kind: noop, message: "{{ n }}"}, next: {arcs: [{step: last}]}}
- {step: last, tool: {kind: noop}}
"""
PARENT = """
workflow:
- step: start
  tool: {kind: playbook, path: child, input: {n: 7}, return_step: start, timeout: 5m}
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop, message: "{{ start }}"}}
"""
MANY = """
workflow:
- step: each
  loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel}}
  tool: {kind: playbook, path: child, input: {n: "{{ n }}"}, wait: true}
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop, message: "{{ each.results }}"}}
"""


def begun(bench: Bench, workflow: str) -> tuple[int, list[int]]:
    """A parent that has started its children."""
    bench.register(CHILD, "child")
    parent = bench.start(workflow)
    bench.advance(parent)
    return parent, bench.children(parent)


@scenario("A step waits for a sub-playbook; the end of that is the end of the step.")
def child_waited_for(bench: Bench) -> None:
    parent, (child,) = begun(bench, PARENT)
    play_on(bench, child)
    play_on(bench, parent)


@scenario("A step only starts a sub-playbook and goes on at once.")
def child_not_waited_for(bench: Bench) -> None:
    bench.register(CHILD, "child")
    parent = bench.start(PARENT.replace("return_step: start, timeout: 5m", "wait: false"))
    play_on(bench, parent)
    (child,) = bench.children(parent)
    play_on(bench, child)


@scenario("A sub-playbook fails and the step that asked for it is told so.")
def child_that_fails(bench: Bench) -> None:
    parent, (child,) = begun(bench, PARENT)
    play_on(bench, child, {"start": Exception})
    play_on(bench, parent)


@scenario("A step waits no longer for its sub-playbook than it may.")
def child_that_is_late(bench: Bench) -> None:
    parent, (child,) = begun(bench, PARENT)
    bench.now[0] += 300
    play_on(bench, parent)
    play_on(bench, child)


@scenario("Each iteration of a loop is a sub-playbook.")
def children_of_a_loop(bench: Bench) -> None:
    parent, children = begun(bench, MANY)
    for child in reversed(children):
        play_on(bench, child)
    play_on(bench, parent)


@scenario("In the middle of its tasks a step calls a sub-playbook, is parked, and goes on.")
def parked_for_a_child(bench: Bench) -> None:
    bench.register(CHILD, "child")
    parent = bench.start(
        "workflow: [{step: start, tool: {kind: noop}, next: {arcs: [{step: end}]}},"
        " {step: end, tool: {kind: noop, message: '{{ start }}'}}]"
    )
    pointer = only(bench, parent)
    claim(bench, pointer)
    call = {"path": "child", "payload": {"n": 5}, "waits": True}
    progress = {"index": 1, "results": {"load": {"rows": 3}}}
    report(bench, pointer, outcome="parked", progress=progress, call=call)
    bench.advance(parent)
    (child,) = bench.children(parent)
    play_on(bench, child)
    play_on(bench, parent, {"start": {"n": 5}})


@scenario("A step that waits some time is parked meanwhile.")
def parked_for_a_time(bench: Bench) -> None:
    execution_id = bench.start("workflow: [{step: start, tool: {kind: noop}}]")
    pointer = only(bench, execution_id)
    claim(bench, pointer)
    report(bench, pointer, outcome="parked", progress={"index": 1, "tries": 2}, retry_in=30.0)
    resumed = only(bench, execution_id)
    bench.now[0] += 30
    claim(bench, resumed)
    report(bench, resumed, {"tries": 3})
    play_on(bench, execution_id)


@scenario("An execution is cancelled, and with it the sub-playbook that it waits for.")
def cancel_with_cascade(bench: Bench) -> None:
    parent, (child,) = begun(bench, PARENT)
    claim(bench, only(bench, child))
    bench.control.executions.cancel(parent, reason="not needed any more")


@scenario("An execution is cancelled alone; its sub-playbook goes on and tells nobody.")
def cancel_without_cascade(bench: Bench) -> None:
    parent, (child,) = begun(bench, PARENT)
    bench.control.executions.cancel(parent, cascade=False)
    play_on(bench, child)


@scenario("A sub-playbook is cancelled while a parent waits for it.")
def cancelled_child(bench: Bench) -> None:
    parent, (child,) = begun(bench, PARENT)
    bench.control.executions.cancel(child, reason="this one only")
    play_on(bench, parent)
