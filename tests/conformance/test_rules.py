"""The checklist of the language's rules and the cases name each other."""

from __future__ import annotations

from collections import Counter

import pytest
import yaml

from tests.conformance.case import RULES, Case, all_cases

CASES = all_cases()
SECTIONS: dict[str, dict[str, str]] = yaml.safe_load(RULES.read_text())
IDS = {rule: section for section, rules in SECTIONS.items() for rule in rules}


def test_no_rule_is_listed_twice() -> None:
    assert len(IDS) == sum(len(rules) for rules in SECTIONS.values())


@pytest.mark.parametrize("rule", IDS)
def test_every_rule_has_a_case(rule: str) -> None:
    assert any(rule in case.covers for case in CASES)


@pytest.mark.parametrize("one", CASES, ids=[case.name for case in CASES])
def test_every_case_names_a_listed_rule_of_its_section(one: Case) -> None:
    assert set(one.covers) <= set(IDS)
    assert IDS[one.covers[0]] == one.section


def test_no_two_cases_state_the_same_rule() -> None:
    assert [rule for rule, count in Counter(case.rule for case in CASES).items() if count > 1] == []
