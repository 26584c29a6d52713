"""A case: one rule of the language as a small playbook, and what must come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "cases"
RULES = Path(__file__).parent / "rules.yaml"
KEYS = {"rule", "section", "covers", "playbook", "payload", "children", "outcomes", "expect"}
EXPECTATIONS = {"status", "result", "results", "error", "ctx", "events", "findings"}


@dataclass(frozen=True, slots=True)
class Like:
    """``!like`` in an expectation: any text that this regular expression matches as a whole."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Case:
    """One file of ``cases/``.

    ``rule`` is the rule as a sentence, ``covers`` its ids in ``rules.yaml``. ``children`` are
    playbooks to register first. ``outcomes`` are what tools give where none is run. ``expect`` is
    ``{status, result, results, error, ctx, events}`` of a run, or the ``findings`` of a refusal.
    """

    name: str
    rule: str
    section: str
    covers: tuple[str, ...]
    playbook: str
    expect: Mapping[str, Any]
    payload: Mapping[str, Any] = field(default_factory=dict)
    children: tuple[str, ...] = ()
    outcomes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def refused(self) -> bool:
        return "findings" in self.expect

    def given(self, server: str) -> dict[str, Any]:
        """The payload, with the URL of the HTTP server for those that call one."""
        return {**self.payload, **({"server": server} if "{{ server" in self.playbook else {})}


class _Loader(yaml.SafeLoader):
    """YAML with ``!like``."""


_Loader.add_constructor("!like", lambda loader, node: Like(str(node.value)))


def load(path: Path) -> Case:
    """Read one case. Raises ``ValueError`` for what a case cannot have."""
    data = yaml.load(path.read_text(), _Loader)
    expect = data.get("expect") or {}
    unknown = {*(set(data) - KEYS), *(set(expect) - EXPECTATIONS)}
    if unknown or not expect:
        raise ValueError(f"{path.name}: unknown keys {sorted(unknown)}, or nothing expected")
    return Case(
        name=path.stem,
        rule=data["rule"],
        section=data["section"],
        covers=tuple(data["covers"]),
        playbook=_with_head(data["playbook"], path.stem),
        expect=expect,
        payload=data.get("payload") or {},
        children=tuple(_with_head(text, "child") for text in data.get("children") or ()),
        outcomes=data.get("outcomes") or {},
    )


@cache
def all_cases() -> tuple[Case, ...]:
    return tuple(load(path) for path in sorted(FOLDER.glob("*.yaml")))


def _with_head(text: str, name: str) -> str:
    """The playbook with its head at the end where it has none, so that its lines stay the same."""
    parts = {
        "apiVersion:": "apiVersion: noetl.io/v2",
        "kind:": "kind: Playbook",
        "metadata:": f"metadata: {{name: conformance/{name}}}",
    }
    lines = text.splitlines()
    missing = [
        part for key, part in parts.items() if not any(line.startswith(key) for line in lines)
    ]
    # A document that speaks of its head is meant as it stands.
    return text if len(missing) < len(parts) else "\n".join([*lines, *missing, ""])
