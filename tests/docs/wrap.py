"""Puts a part of a playbook, as the documentation shows it, into a whole one."""

from __future__ import annotations

from typing import Any

from app.engine.language.source import read
from tests.docs.blocks import Block

_NOOP = {"kind": "noop"}
#: Keys of a step that need no tool.
_ROUTER = ("next", "set", "when", "case")


def whole(block: Block) -> dict[str, Any]:
    """The playbook around *block*; steps it leads to are added. Raises ``ValueError``."""
    data = read(block.text, name=block.place).data
    match block.marks["fragment"]:
        case "playbook":
            return _playbook([{"step": "start"}], **data)
        case "steps":
            return _playbook(data)
        case "step":
            return _playbook([_step(data)])
        case "tool":
            return _playbook([_step(data if "tool" in data else {"tool": data})])
        case "policy":
            return _playbook([_step({"tool": {**_NOOP, **data}})])
        case other:
            raise ValueError(f"{block.place}: no part is called {other!r}")


def _step(data: dict[str, Any]) -> dict[str, Any]:
    tool = {} if "tool" in data or not data.keys() - _ROUTER else {"tool": _NOOP}
    return {"step": "start", **tool, **data}


def _playbook(steps: list[dict[str, Any]], **data: Any) -> dict[str, Any]:
    head = {"apiVersion": "noetl.io/v2", "kind": "Playbook", "metadata": {"name": "part"}}
    steps = data.pop("workflow", steps)
    known = {step["step"] for step in steps}
    named = {*_targets(steps), *_of_executor(data)}
    added = [{"step": name} for name in sorted(named - known)]
    return {**head, **data, "workflow": [*steps, *added]}


def _of_executor(data: dict[str, Any]) -> set[str]:
    spec = (data.get("executor") or {}).get("spec") or {}
    return {spec[key] for key in ("entry_step", "final_step") if key in spec}


def _targets(data: Any) -> set[str]:
    """Every step that something in *data* leads to."""
    found: set[str] = set()
    if isinstance(data, list):
        for item in data:
            found |= _targets(item)
    if isinstance(data, dict):
        for key, value in data.items():
            found |= _led_to(value) if key == "next" else _targets(value)
    return found


def _led_to(leads: Any) -> set[str]:
    if isinstance(leads, str):
        return {leads}
    if isinstance(leads, list):
        return {name for item in leads for name in _led_to(item)}
    if isinstance(leads, dict):
        return {str(leads["step"])} if "step" in leads else _led_to(leads.get("arcs") or [])
    return set()
