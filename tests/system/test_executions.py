"""Whole executions through API, JetStream, orchestrator and worker, and the states they end in."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.system.plane import System

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {{name: {name}, path: tests/{name}}}\n"


def chain(length: int) -> str:
    steps = [
        f"- {{step: s{number}, tool: {{kind: python, input: {{n: '{{{{ s{number - 1}.n | default(0) }}}}'}}, "
        f"code: 'result = {{\"n\": n + 1}}'}}, next: {{arcs: [{{step: s{number + 1}}}]}}}}"
        for number in range(1, length)
    ]
    last = f"- {{step: s{length}, tool: {{kind: noop, result: '{{{{ s{length - 1}.n + 1 }}}}'}}}}"
    return HEAD.format(name="chain") + "workflow:\n" + "\n".join([*steps, last])


WIDE = (
    HEAD.format(name="wide")
    + """
workload: {n: 1000}
workflow:
- step: start
  tool: {kind: noop}
  next: {arcs: [{step: fan}]}
- step: fan
  loop: {in: "{{ n }}", iterator: i, spec: {mode: parallel}}
  tool: {kind: noop, result: "{{ iter.i }}"}
  next: {arcs: [{step: join}]}
- step: join
  tool:
    kind: python
    input: {all: "{{ fan.results }}", stats: "{{ fan.stats }}"}
    code: |
      result = {"ordered": all == list(range(len(all))), "sum": sum(all), **stats}
"""
)

#: Iterations that travel together, and one among them that takes longer than all others.
UNEVEN = (
    HEAD.format(name="uneven")
    + """
workload: {n: 300, slow: 137}
workflow:
- step: each
  loop: {in: "{{ range(n) }}", iterator: i, spec: {mode: parallel, max_in_flight: 300}}
  tool:
    kind: python
    input: {i: "{{ iter.i }}", slow: "{{ slow }}", gate: "{{ gate }}"}
    code: |
      import os, time
      while i == slow and not os.path.exists(gate):
          time.sleep(0.05)
      return i * 10
  next: {arcs: [{step: join}]}
- {step: join, tool: {kind: noop, result: "{{ each.results | sum }}"}}
"""
)

CYCLE = (
    HEAD.format(name="cycle")
    + """
workload: {turns: 50}
workflow:
- {step: start, tool: {kind: noop}, set: {ctx.n: 0}, next: {arcs: [{step: work}]}}
- step: work
  tool: {kind: python, input: {n: "{{ ctx.n }}"}, code: "result = {'n': n + 1}"}
  set: {ctx.n: "{{ output.n }}"}
  next: {arcs: [{step: work, when: "{{ ctx.n < turns }}"}, {step: end}]}
- {step: end, tool: {kind: noop, result: "{{ ctx.n }}"}}
"""
)

FAILING = (
    HEAD.format(name="failing")
    + """
workflow:
- {step: start, tool: {kind: python, code: "raise ValueError('no such luck')"}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop}}
"""
)


def test_a_chain_of_twenty_steps(system: System) -> None:
    status = system.run(chain(20))
    assert status["status"] == "COMPLETED"
    assert system.client.result(status["execution_id"]) == 20


def test_a_loop_a_thousand_wide_with_a_join(system: System) -> None:
    status = system.run(WIDE, seconds=100)
    assert status["status"] == "COMPLETED"
    result = system.client.result(status["execution_id"])
    assert result == {"ordered": True, "sum": 499_500, "total": 1000, "success": 1000, "failed": 0}


def test_a_cycle_of_fifty_turns(system: System) -> None:
    status = system.run(CYCLE)
    assert status["status"] == "COMPLETED"
    assert system.client.result(status["execution_id"]) == 50


def test_a_failing_playbook_says_which_step_and_why(system: System) -> None:
    status = system.run(FAILING)
    assert status["status"] == "FAILED"
    assert status["error"].startswith("Failed steps: start")
    assert "ValueError: no such luck" in status["error"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os._exit(3)", "exited with code 3"),
        ("import sys; sys.exit(4)", "exited with code 4"),
        ("while True: pass", "ran longer than 2 seconds"),
        ("print('x' * 100_000_000); result = 1", None),
        ("result = float('nan')", "NaN"),
    ],
)
def test_steps_that_misbehave_do_not_harm_the_next(
    system: System, code: str, said: str | None
) -> None:
    playbook = (
        HEAD.format(name="rude")
        + f"""
workflow:
- step: start
  tool: {{kind: python, timeout: {2 if "while" in code else 60}, code: "{code}"}}
"""
    )
    status = system.run(playbook)
    if said is None:
        assert status["status"] == "COMPLETED"
    else:
        assert status["status"] == "FAILED"
        assert said in status["error"]
    assert system.run(CYCLE, {"turns": 2})["status"] == "COMPLETED"


def test_a_raising_condition_ends_one_execution_and_no_other(system: System) -> None:
    broken = (
        HEAD.format(name="broken")
        + """
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: end, when: "{{ 1 / 0 }}"}]}}
- {step: end, tool: {kind: noop}}
"""
    )
    other = system.begin(CYCLE)
    status = system.run(broken)
    assert status["status"] == "FAILED"
    assert "{{ 1 / 0 }}" in status["error"]
    assert system.wait(other)["status"] == "COMPLETED"


def test_cancelling_stops_a_running_step(system: System) -> None:
    sleeping = (
        HEAD.format(name="sleeping")
        + """
workflow:
- {step: start, tool: {kind: python, code: "import time; time.sleep(600)"}}
"""
    )
    execution_id = system.begin(sleeping)

    def running() -> bool:
        return any(event["type"] == "step.started" for event in system.client.events(execution_id))

    system.until(running, "the step to start")
    assert system.client.cancel(execution_id)["status"] == "cancelled"
    assert system.client.status(execution_id)["status"] == "CANCELLED"

    def stopped() -> bool:
        told = [line for line in system.log("worker") if line["event"] == "attempt.fenced"]
        return any(str(line["execution_id"]) == execution_id for line in told)

    system.until(stopped, "the worker to stop the step")
    assert system.client.cancel(execution_id)["status"] == "already_completed"


def test_results_of_many_sizes_arrive_whole(system: System) -> None:
    sizes: list[int] = [0, 1, 65_000, 70_000, 3_000_000]
    playbook = (
        HEAD.format(name="sizes")
        + """
workload: {size: 0}
workflow:
- step: start
  tool: {kind: python, input: {size: "{{ size }}"}, code: "result = {'text': 'x' * size}"}
  next: {arcs: [{step: end, when: "{{ start.text | length == size }}"}]}
- step: end
  tool: {kind: python, input: {text: "{{ start.text }}"}, code: "result = len(text)"}
"""
    )
    for size in sizes:
        status: dict[str, Any] = system.run(playbook, {"size": size})
        assert system.client.result(status["execution_id"], "end") == size


def test_a_slow_iteration_keeps_none_that_travelled_with_it(system: System) -> None:
    folder = Path(tempfile.mkdtemp(prefix="gate-"))
    folder.chmod(0o755)  # steps that are users of their own look into it

    def ended(execution_id: str) -> list[int]:
        events = system.client.events(execution_id, event_type="step.done", page_size=500)
        return sorted(event["iteration"] for event in events if event["step"] == "each")

    try:
        execution_id = system.begin(UNEVEN, {"gate": str(folder / "open")})
        others = [number for number in range(300) if number != 137]
        system.until(lambda: ended(execution_id) == others, "all others to end", seconds=100)
        (folder / "open").touch()
        assert system.wait(execution_id)["status"] == "COMPLETED"
        assert ended(execution_id) == list(range(300))
        assert system.client.result(execution_id) == sum(range(300)) * 10
    finally:
        shutil.rmtree(folder)
