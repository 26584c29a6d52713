"""Every case by the engine alone, its events in exactly the order expected."""

from __future__ import annotations

import pytest

from app.actors import sequence
from app.engine.language.parse import parse
from app.errors import InvalidPlaybookError
from app.wiring import ToolKinds
from tests.conformance.alone import run
from tests.conformance.case import Case
from tests.conformance.ended import check, found_wrong
from tests.conformance.script import Script


def test_it_does_what_the_rule_says(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(case.outcomes)
    monkeypatch.setattr(sequence, "load_tool", script.load_tool)
    check(case, run(case, script), ordered=True)


def test_it_is_refused(refused: Case) -> None:
    with pytest.raises(InvalidPlaybookError) as caught:
        parse(refused.playbook, ToolKinds())
    assert found_wrong(caught.value.findings) == refused.expect["findings"]
