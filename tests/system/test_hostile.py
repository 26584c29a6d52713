"""Hostile playbooks through the servers: each is refused or contained, and all processes live on.

What each costs in time and memory is measured where it can be told apart, in the engine's tests.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.errors import BadRequestError, InvalidPlaybookError
from tests.engine.language.test_hostile_yaml import REFUSED as YAML
from tests.engine.templates.test_hostile_templates import REFUSED as TEMPLATES
from tests.system.plane import MODULES, System

PEACEFUL = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: peaceful}
workflow: [{step: start, tool: {kind: noop, result: well}}]
"""
#: One or two of every kind: escapes, growth, loops, macros, recursion, comparisons, times.
CHOSEN = [name for number, name in enumerate(TEMPLATES) if number % 3 == 0]


def unharmed(system: System) -> bool:
    """The same processes still run, and do what they are there for."""
    alive = all(system.processes[module].poll() is None for module in MODULES)
    status = system.run(PEACEFUL)
    return alive and system.client.result(status["execution_id"]) == "well"


def playbook(name: str, start: dict[str, Any]) -> str:
    """A playbook with one step; JSON is YAML that needs no quoting."""
    head = {"apiVersion": "noetl.io/v2", "kind": "Playbook", "metadata": {"name": name}}
    return json.dumps({**head, "workflow": [{"step": "start", **start}, {"step": "end"}]})


def test_hostile_yaml_is_refused_by_the_api(system: System) -> None:
    unread: list[str] = []
    for text, code in YAML.values():
        if text.startswith("bytes:") or text.encode(errors="ignore").decode() != text:
            continue  # no text: no client can send it
        try:
            said = system.client.validate(text)
        except InvalidPlaybookError as refused:
            said = {"findings": [{"code": finding.code} for finding in refused.findings]}
        except BadRequestError as refused:
            unread.append(refused.message)
            continue
        assert any(code in finding["code"] for finding in said["findings"]), (text[:80], said)
    assert all("larger than" in message for message in unread)
    assert unharmed(system)


@pytest.mark.parametrize("place", ["worker", "orchestrator"])
def test_hostile_templates_end_their_own_execution_and_nothing_else(
    system: System, place: str
) -> None:
    begun: dict[str, str] = {}
    for number, name in enumerate(CHOSEN):
        text = TEMPLATES[name][0]
        tool = {"kind": "noop", "result": text if place == "worker" else None}
        arcs = [{"step": "end", "when": text}] if place == "orchestrator" else []
        start = {"tool": tool, "next": {"arcs": arcs}}
        try:
            begun[name] = system.begin(playbook(f"hostile-{place}-{number}", start))
        except InvalidPlaybookError:
            continue  # as it should be, where the text alone tells
    assert len(begun) > len(CHOSEN) // 2
    ended = {name: system.wait(execution_id)["status"] for name, execution_id in begun.items()}
    assert set(ended.values()) <= {"FAILED", "COMPLETED"}
    # Some do harm with much data only, which is not there.
    failed = [name for name, status in ended.items() if status == "FAILED"]
    assert len(failed) > len(ended) * 0.8
    assert unharmed(system)
