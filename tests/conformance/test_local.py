"""Every case in one process, as ``callboard run`` runs it."""

from __future__ import annotations

from tests.conformance.case import Case
from tests.conformance.ended import check, found_wrong
from tests.conformance.real import Local


def test_it_does_what_the_rule_says(case: Case, local: Local) -> None:
    check(case, local.run(case), ordered=False)


def test_it_is_refused(refused: Case, local: Local) -> None:
    assert found_wrong(local.findings(refused)) == refused.expect["findings"]
