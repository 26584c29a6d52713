"""Every case through the servers; they are all started first."""

from __future__ import annotations

import pytest

from tests.conformance.case import Case
from tests.conformance.ended import check, found_wrong
from tests.conformance.real import Served

#: The first test waits until every case has been started, which a busy machine takes its time for.
pytestmark = pytest.mark.timeout(300)


def test_it_does_what_the_rule_says(case: Case, served: Served) -> None:
    check(case, served.run(case), ordered=False)


def test_it_is_refused(refused: Case, served: Served) -> None:
    assert found_wrong(served.findings(refused)) == refused.expect["findings"]
