"""What every case runs, and what must be true of it however a process failed meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.system.plane import System

#: Each run of a step leaves a line in the witness file: one write, so lines never mix.
_WITNESS = """
import os
def leave(where, line):
    os.umask(0)  # each step may run as a user of its own
    out = os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(out, (line + chr(10)).encode())
    os.close(out)
"""
_SEEN = _WITNESS + "leave(witness, idempotency_key)\n"
#: Fails the first time: a folder can be made once.
_FLAKY = """
import os
try:
    os.mkdir(f"{witness}.{execution_id}")
except FileExistsError:
    pass
else:
    raise ValueError("not yet")
"""
_RETRY = {
    "policy": {
        "rules": [
            {
                "when": "{{ output.status == 'error' }}",
                "then": {"do": "retry", "attempts": 5, "delay": 0.05},
            }
        ]
    }
}


def _python(code: str, **inputs: str) -> dict[str, Any]:
    return {"kind": "python", "input": {"witness": "{{ witness }}", **inputs}, "code": code}


def _step(name: str, tool: dict[str, Any], *following: str, **more: Any) -> dict[str, Any]:
    arcs = {"next": {"arcs": [{"step": each} for each in following]}} if following else {}
    return {"step": name, "tool": tool, **arcs, **more}


def _playbook(name: str, workload: dict[str, Any], *steps: dict[str, Any]) -> str:
    head = {"apiVersion": "noetl.io/v2", "kind": "Playbook"}
    named = {"metadata": {"name": name}, "workload": workload}
    return json.dumps({**head, **named, "workflow": list(steps)})


CHILD = _playbook(
    "child",
    {"witness": "", "n": 0},
    _step("start", _python(_SEEN + 'result = {"n": n + 1}', n="{{ n }}")),
)
_FORK = {"spec": {"mode": "inclusive"}, "arcs": [{"step": "left"}, {"step": "right"}]}
_CALL = {
    "kind": "playbook",
    "path": "child",
    "input": {"n": "{{ flaky.n }}", "witness": "{{ witness }}"},
    "return_step": "start",
}


def parent(name: str) -> str:
    """Two branches and their join, a loop, a step that fails once, a sub-playbook."""
    return _playbook(
        name,
        {"witness": "", "hold": 0},
        {"step": "start", "tool": {"kind": "noop"}, "next": _FORK},
        _step(
            "left",
            _python(_SEEN + 'import time; time.sleep(hold); result = {"n": 1}', hold="{{ hold }}"),
            "join",
        ),
        _step("right", _python(_SEEN + 'result = {"n": 2}'), "join"),
        _step(
            "join",
            _python(_SEEN + 'result = {"n": a + b}', a="{{ left.n }}", b="{{ right.n }}"),
            "fan",
        ),
        _step(
            "fan",
            _python(_SEEN + "result = i * 10", i="{{ iter.i }}"),
            "flaky",
            loop={"in": [1, 2, 3], "iterator": "i", "spec": {"mode": "parallel"}},
        ),
        _step(
            "flaky",
            _python(_FLAKY + _SEEN + 'result = {"n": sum(all)}', all="{{ fan.results }}")
            | {"spec": _RETRY},
            "child",
        ),
        _step("child", _CALL, "end"),
        _step("end", {"kind": "noop", "result": {"n": "{{ child.n }}", "join": "{{ join.n }}"}}),
    )


#: It fails, and will try again in ten minutes.
IDLE = _playbook(
    "idle",
    {},
    _step(
        "start",
        {
            "kind": "python",
            "code": "raise ValueError('later')",
            "spec": {"policy": {"rules": [{"then": {"do": "retry", "attempts": 2, "delay": 600}}]}},
        },
    ),
)
#: A parent whose child does not end by itself.
SLEEPER = _playbook(
    "sleeper", {}, _step("start", {"kind": "python", "code": "import time; time.sleep(300)"})
)


def waiting(name: str) -> str:
    call = {"kind": "playbook", "path": "sleeper", "return_step": "start"}
    return _playbook(name, {}, _step("start", call, "end"), _step("end", {"kind": "noop"}))


#: The keys that leave a line in a run without faults: step and iteration.
WITNESSED = {"left:-1", "right:-1", "join:-1", "fan:0", "fan:1", "fan:2", "flaky:-1", "start:-1"}
_ENDS = {"step.done", "step.failed", "step.skipped", "step.cancelled", "loop.done"}


@dataclass(frozen=True, slots=True)
class Told:
    """An execution with its children as the API tells it after the end, and what was witnessed."""

    status: str
    results: dict[str, Any]
    events: list[dict[str, Any]]
    findings: list[dict[str, Any]]
    #: How often each step key left a line.
    seen: Counter[str]

    @property
    def started(self) -> Counter[str]:
        """How often each step key was claimed."""
        return Counter(_key(each) for each in self.events if each["type"] == "step.started")

    @property
    def ended_twice(self) -> list[str]:
        """Step keys with two ends; there must be none."""
        ends = Counter(_key(event) for event in self.events if event["type"] in _ENDS)
        return [key for key, count in ends.items() if count > 1]

    @property
    def witnessed(self) -> set[str]:
        """The keys that left a line, as ``WITNESSED`` has them."""
        parts = (key.split(":") for key in self.seen)
        return {f"{step}:{iteration}" for _, step, _, iteration in parts}


def told(system: System, execution_id: str, witness: Path, results: Sequence[str] = ()) -> Told:
    """Everything there is to know of the execution, with the *results* of these steps."""
    client = system.client
    children = [row["execution_id"] for row in client.executions(parent_execution_id=execution_id)]
    events: list[dict[str, Any]] = []
    findings: list[dict[str, Any]] = []
    for each in (execution_id, *children):
        page = client.events(each, page_size=500)
        events += [{**event, "execution_id": each} for event in page]
        findings += client.verify(each)["findings"]
    return Told(
        client.status(execution_id)["status"],
        {name: client.result(execution_id, name) for name in results},
        events,
        findings,
        Counter(witness.read_text().split() if witness.exists() else ()),
    )


def _key(event: dict[str, Any]) -> str:
    return ":".join(str(event[part]) for part in ("execution_id", "step", "visit", "iteration"))
