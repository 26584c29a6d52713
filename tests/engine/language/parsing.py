"""Reads playbooks written in a few lines, for the tests of the parser."""

from __future__ import annotations

import pytest

from app.engine.language.parse import parse
from app.engine.playbook import Playbook, Step
from app.errors import Finding, InvalidPlaybookError
from tests.engine.driver import KINDS

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: t}\n"


def playbook(workflow: str, head: str = HEAD) -> Playbook:
    return parse(f"{head}workflow:\n{workflow}", KINDS)


def step(text: str) -> Step:
    """The step whose keys *text* gives, in one line; it may lead to t and u."""
    return playbook(f"- {{step: s, {text}}}\n- step: t\n- step: u\n").steps["s"]


def step_of(text: str, head: str = "") -> Step:
    """The same for keys on lines of their own, which need no indentation."""
    keys = "\n".join(f"  {line}" for line in text.strip("\n").splitlines())
    return playbook(f"- step: s\n{keys}\n- step: t\n- step: u\n", HEAD + head).steps["s"]


def findings(text: str) -> list[Finding]:
    with pytest.raises(InvalidPlaybookError) as caught:
        parse(text, KINDS)
    return list(caught.value.findings)


def finding(text: str) -> Finding:
    """The only one."""
    found = findings(text)
    assert len(found) == 1, [str(each) for each in found]
    return found[0]


def line_of_here(text: str) -> int:
    """The line of *text*, from 1, of the value beside HERE; a block begins on the line after."""
    lines = enumerate(text.splitlines(), 1)
    number, line = next((number, line) for number, line in lines if "HERE" in line)
    return number + line.endswith(": # HERE")
