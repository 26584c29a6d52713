"""Random playbooks, read off a tape of bytes.

A tape is drawn in one piece, which makes ten thousand examples affordable, and shrinks to zeros:
every choice has its plainest answer at zero.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

#: A number that a back edge counts down with; what has none ends its turns.
TURN = {
    "plain": "(output.turn | default(9))",
    "loop": "((output.results | first).turn | default(9))",
}
CHILD, NOWHERE = "sub/child", "sub/none"


class Tape:
    """Choices one after the other; at its end the tape starts again."""

    def __init__(self, data: bytes) -> None:
        self.data = data or b"\0"
        self.place = 0

    def below(self, count: int) -> int:
        """A number from 0 to *count* - 1."""
        byte = self.data[self.place % len(self.data)]
        self.place += 1
        return byte % count

    def pick(self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]

    def once_in(self, count: int) -> bool:
        """True once in *count* times; never on a tape of zeros."""
        return self.below(count) == count - 1


@dataclass(frozen=True)
class Shape:
    """What a playbook may contain.

    ``cycles``: arcs back. ``timed``: what depends on the order of things by nature, such as
    timeouts, conditions on ctx, and frames that are worked on as one. ``branches``: more than one
    arc may be taken. ``limits``: ways to break off early.
    """

    cycles: bool = True
    timed: bool = True
    branches: bool = True
    limits: bool = True


ANYTHING = Shape()


def workflow(tape: Tape, shape: Shape = ANYTHING) -> str:
    """The text of a playbook in which every step is named ``s<number>``."""
    count = tape.pick([1, 2, 3, 4, 5, 6, 7, 8, 9, 6, 7, 8])
    steps = [_step(tape, shape, number) for number in range(count)]
    # A way to every step, and then some.
    for number in range(1, count):
        _lead(tape, shape, steps, (number - 1 - tape.below(min(number, 4)), number))
    for _ in range(tape.below(count)):
        source = tape.below(count)
        _lead(tape, shape, steps, (source, source + 1 + tape.below(count - source)))
    if shape.cycles and tape.once_in(2):
        for _ in range(1 + tape.below(2)):
            _lead_back(tape, steps, count)
    head = {"apiVersion": "noetl.io/v2", "kind": "Playbook", "metadata": {"name": "t"}}
    executor = {"spec": _spec(tape, shape, count)}
    # JSON is YAML.
    return json.dumps({**head, "executor": executor, "workflow": steps})


def _spec(tape: Tape, shape: Shape, count: int) -> dict[str, Any]:
    spec: dict[str, Any] = {}
    if tape.once_in(4):
        spec["final_step"] = f"s{tape.below(count)}"
    if tape.once_in(10):
        spec["no_next_is_error"] = True
    if shape.limits and tape.once_in(10):
        spec["policy"] = {"limits": {"max_visits": 1 + tape.below(3)}}
    return spec


def _step(tape: Tape, shape: Shape, number: int) -> dict[str, Any]:
    step: dict[str, Any] = {"step": f"s{number}", "tool": _tool(tape, shape)}
    if tape.once_in(5):
        step["loop"] = _loop(tape)
    elif tape.once_in(7):
        step["loop"] = _cursor(tape, shape)
    if number and tape.once_in(10):
        step["when"] = _entry_condition(tape, shape)
    if number and tape.once_in(10):
        allow = {"when": _entry_condition(tape, shape), "then": {"allow": True}}
        rules = [allow, {"else": {"then": {"allow": False}}}]
        step["spec"] = {"policy": {"admit": {"rules": rules}}}
    if tape.once_in(3):
        step["set"] = {"ctx.last": "{{ output.flag }}"}
    spec = {"mode": "inclusive" if shape.branches and tape.below(4) else "exclusive"}
    if tape.once_in(8):
        spec["on_no_match"] = "quiet"
    step["next"] = {"spec": spec, "arcs": []}
    return step


def _turn(step: dict[str, Any]) -> str:
    return TURN["loop" if "loop" in step else "plain"]


def _lead(tape: Tape, shape: Shape, steps: list[dict[str, Any]], ends: tuple[int, int]) -> None:
    """An arc forward, between the steps of these numbers; the number after the last is ``end``."""
    source, target = steps[ends[0]], ends[1]
    arc = {"step": "end" if target == len(steps) else f"s{target}"}
    conditions = [None] * 16 + ["output.flag", "output.flag", "false", "event.name", _FAILURE]
    conditions += [f"{_turn(source)} < 2", f"{_turn(source)} > 1"]
    if shape.timed:
        conditions += ["ctx.last", "1 / 0" if tape.once_in(4) else "true"]
    when = tape.pick(conditions)
    _add(tape, source, arc if when is None else {**arc, "when": "{{ " + when + " }}"})


def _lead_back(tape: Tape, steps: list[dict[str, Any]], count: int) -> None:
    """An arc back, or to the step itself, which mostly ends its turns."""
    number = tape.below(count)
    source, target = steps[number], number - tape.below(number + 1)
    when = f"{_turn(source)} < {2 + tape.below(2)}"
    # Without a condition only the visit limit ends it.
    bare = {"step": f"s{target}"}
    _add(tape, source, bare if tape.once_in(8) else {**bare, "when": "{{ " + when + " }}"})


def _add(tape: Tape, source: dict[str, Any], arc: dict[str, Any]) -> None:
    arcs = source["next"]["arcs"]
    arcs.insert(tape.below(len(arcs) + 1), arc)


_FAILURE = "output.status == 'error'"


def _entry_condition(tape: Tape, shape: Shape) -> str:
    conditions = ["s0.flag", "false", "true"]
    if shape.timed:
        conditions += ["result.flag", "ctx.last", "1 / 0" if tape.once_in(3) else "true"]
    return "{{ " + tape.pick(conditions) + " }}"


def _tool(tape: Tape, shape: Shape) -> Any:
    form = tape.pick(["noop", "noop", "noop", "noop", "noop", "sequence", "sequence", "call"])
    if form == "noop":
        return {"kind": "noop"}
    call: dict[str, Any] = {"kind": "playbook", "path": NOWHERE if tape.once_in(15) else CHILD}
    if tape.below(3) < 2:
        call["wait"] = True
    if shape.timed and tape.once_in(3):
        call["timeout"] = 5 * (1 + tape.below(3))
    if tape.once_in(4):
        call["on_failure"] = "fail"
    return call if form == "call" else [{"kind": "noop"}, call]


def _loop(tape: Tape) -> dict[str, Any]:
    items: Any = tape.pick([2, 0, 1, 3, 5])
    items = "{{ none }}" if tape.once_in(30) else "{{ " + str(items) + " }}"
    spec = {"mode": tape.pick(["sequential", "parallel"]), "max_in_flight": 1 + tape.below(3)}
    return {"in": items, "iterator": "i", "spec": spec}


def _cursor(tape: Tape, shape: Shape) -> dict[str, Any]:
    frame: dict[str, Any] = {"max_rows": 1 + tape.below(3)}
    if tape.once_in(2):
        frame["row_concurrency"] = 1 + tape.below(2)
    if shape.timed and tape.once_in(3):
        frame["process"] = "frame"
    return {
        "cursor": {"kind": "postgres", "auth": "db", "claim": "SELECT {{ __frame_max_rows }}"},
        "iterator": "i",
        "spec": {"mode": "cursor", "max_in_flight": 1 + tape.below(3), "frame": frame},
    }
