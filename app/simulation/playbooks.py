"""The playbooks that are run: small ones, which together hold every construct of the engine.

They are compiled once; what varies between runs comes in as their workload. What a step does is
told by the beginning of its name (see ``fates``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from app.engine.ports import CatalogEntry
from app.errors import Complaint
from app.services.catalog import CatalogService
from app.simulation.agenda import BEGIN
from app.store.memory import MemoryCatalog

PLAYBOOK_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Kind:
    """A tool as the parser knows it; nothing here runs one."""

    queue: str = "io"
    verbatim: frozenset[str] = frozenset()

    def complaints(self, config: Mapping[str, Any]) -> Sequence[Complaint]:  # noqa: ARG002 (anything goes)
        """None."""
        return ()

    def schema(self) -> dict[str, Any]:
        """That of anything."""
        return {}


KINDS = {"noop": Kind(), "python": Kind("cpu"), "playbook": Kind(), "postgres": Kind()}


@dataclass(frozen=True, slots=True)
class Template:
    """A playbook, and the workloads it is run with. ``timed``: its outcome depends on the clock."""

    steps: tuple[Mapping[str, Any], ...]
    workloads: tuple[Mapping[str, Any], ...] = ({},)
    spec: Mapping[str, Any] = field(default_factory=dict)
    timed: bool = False


def step(name: str, *arcs: str | Mapping[str, Any], mode: str = "inclusive", **more: Any) -> Any:
    """A step that does nothing itself, and leads to the targets of *arcs*."""
    led = [{"step": arc} if isinstance(arc, str) else arc for arc in arcs]
    tool = more.pop("tool", {"kind": "noop"})
    following = {"next": {"spec": {"mode": mode}, "arcs": led}} if led else {}
    return {"step": name, "tool": tool, **following, **more}


def when(target: str, condition: str) -> dict[str, str]:
    """An arc with a condition."""
    return {"step": target, "when": "{{ " + condition + " }}"}


def loop(items: str, mode: str, width: int) -> dict[str, Any]:
    """The items of a loop, and how many are worked on at once."""
    spec = {"mode": mode, "max_in_flight": width}
    return {"in": "{{ " + items + " }}", "iterator": "item", "spec": spec}


def calling(path: str, **more: Any) -> dict[str, Any]:
    """A tool that runs a sub-playbook."""
    return {"kind": "playbook", "path": path, **more}


_FAILED = "output.status == 'error'"
_SIZES = ({"n": 0}, {"n": 1}, {"n": 3}, {"n": 5})
_CURSOR = {
    "cursor": {"kind": "postgres", "auth": "db", "claim": "SELECT {{ __frame_max_rows }}"},
    "iterator": "row",
    "spec": {"mode": "cursor", "max_in_flight": 2, "frame": {"max_rows": 2, "row_concurrency": 2}},
}

TEMPLATES: Mapping[str, Template] = {
    "chain": Template((step("a", "b"), step("b", "c", tool={"kind": "python"}), step("c"))),
    "diamond": Template((step("a", "b", "c"), step("b", "d"), step("c", "d"), step("d"))),
    "wide": Template(
        (
            step("a", "b", "c", "d", "e"),
            step("b", "f"),
            step("c", "f"),
            step("d", "g"),
            step("e", "g"),
            step("f", "h"),
            step("g", "h"),
            step("h"),
        )
    ),
    "choice": Template(
        (
            step("a", when("b", "output.flag"), "c", mode="exclusive"),
            step("b", "d"),
            step("c", "d"),
            step("d"),
        )
    ),
    "some": Template(
        (
            step("a", when("b", "output.flag"), when("c", "output.number > 4"), "d"),
            step("b", "e"),
            step("c", "e"),
            step("d", "e"),
            step("e"),
        )
    ),
    "skips": Template(
        (
            step("a", "b", "c"),
            step("b", "d", when("e", "false")),
            step("c", "d", when("f", "false")),
            step("d"),
            step("e"),
            step("f"),
        )
    ),
    "cycle": Template(
        (
            step("a", "b", set={"ctx.rounds": "{{ 0 }}"}),
            step(
                "b",
                when("a2", "ctx.rounds < turns"),
                when("c", "ctx.rounds >= turns"),
                set={"ctx.rounds": "{{ ctx.rounds + 1 }}"},
            ),
            step("a2", "b"),
            step("c"),
        ),
        ({"turns": 1}, {"turns": 2}, {"turns": 3}),
    ),
    "parallel": Template((step("a", "b", loop=loop("n", "parallel", 3)), step("b")), _SIZES),
    "sequential": Template((step("a", "b", loop=loop("n", "sequential", 1)), step("b")), _SIZES),
    "loops": Template(
        (
            step("a", "b", "c"),
            step("b", "d", loop=loop("n", "parallel", 2)),
            step("c", "d", loop=loop("n", "sequential", 1)),
            step("d"),
        ),
        _SIZES[:3],
    ),
    "flaky": Template((step("flaky_a", "b"), step("b", "flaky_c"), step("flaky_c"))),
    "flaky loop": Template(
        (step("flaky_a", "b", loop=loop("n", "parallel", 2)), step("b")), _SIZES[1:3]
    ),
    "broken loop": Template(
        (
            step("maybe_a", "b", when("c", _FAILED), loop=loop("n", "parallel", 2)),
            step("b"),
            step("c"),
        ),
        _SIZES[1:],
    ),
    "rescue": Template((step("bad_a", "b", when("c", _FAILED)), step("b"), step("c"))),
    "failure": Template(
        (step("a", "maybe_b", "c"), step("maybe_b", "d"), step("c", "d"), step("d"), step("z")),
        spec={"final_step": "z"},
    ),
    "call": Template(
        (step("a", "b"), step("b", "c", tool=calling("child", wait=True)), step("c")),
    ),
    "call in vain": Template(
        (
            step(
                "b", "c", when("d", _FAILED), tool=calling("broken", wait=True, on_failure="fail")
            ),
            step("c"),
            step("d"),
        ),
    ),
    "call for each": Template(
        (
            step("b", "c", tool=calling("child", wait=True), loop=loop("n", "parallel", 2)),
            step("c"),
        ),
        _SIZES[1:3],
    ),
    "call and forget": Template((step("b", "c", tool=calling("child")), step("c"))),
    "call deep": Template((step("b", "c", tool=calling("call", wait=True)), step("c"))),
    "call for a while": Template(
        (step("b", "c", tool=calling("slow", wait=True, timeout=6)), step("c")), timed=True
    ),
    "parked": Template(
        (step("park_a", "b", tool=[{"kind": "noop"}, calling("child", wait=True)]), step("b")),
    ),
    "put off": Template((step("wait_a", "b"), step("b"))),
    "rows": Template((step("a", "b", loop=_CURSOR), step("b"))),
    "deadline": Template(
        (step("a", "slow_b", "c"), step("slow_b", "d"), step("c"), step("d")),
        spec={"timeout": 12},
        timed=True,
    ),
    # Only called by others.
    "child": Template((step("x", "y"), step("y"))),
    "broken": Template((step("x", "bad_y"), step("bad_y"))),
    "slow": Template((step("slow_x", "y"), step("y"))),
}
#: Those that clients start, in a fixed order.
NAMES = tuple(sorted(TEMPLATES))


@dataclass(frozen=True, slots=True)
class Library:
    """Every template, registered and compiled; shared by all runs of a process."""

    catalog: MemoryCatalog
    service: CatalogService
    entries: Mapping[str, CatalogEntry]


@cache
def library() -> Library:
    """The library of this process."""
    catalog = MemoryCatalog(clock=lambda: BEGIN)
    service = CatalogService(catalog, KINDS, max_bytes=PLAYBOOK_BYTES)
    entries = {name: service.register(_text(name)) for name in TEMPLATES}
    return Library(catalog, service, entries)


def _text(name: str) -> str:
    """The playbook as it is registered: JSON is YAML."""
    template = TEMPLATES[name]
    head = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": name, "path": name},
    }
    workload = template.workloads[0]
    executor = {"executor": {"spec": template.spec}} if template.spec else {}
    return json.dumps({**head, **executor, "workload": workload, "workflow": template.steps})
