"""Each failure class names tests that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanation" / "failure-classes.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+)(?:\[(\w+)\])?)?`")
CASES = ROOT / "tests" / "conformance" / "cases"

ROWS = {
    int(cells[1]): cells[4]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if len(cells := line.split("|")) == 6 and cells[1].strip().isdigit()
}


@cache
def named_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_there_are_24_of_them_and_each_has_one() -> None:
    assert sorted(ROWS) == list(range(1, 25))
    assert all(NAMED.search(row) for row in ROWS.values())


@pytest.mark.parametrize("number", ROWS)
def test_its_tests_exist(number: int) -> None:
    # What the pattern does not take would not be looked for.
    assert ROWS[number].count("`") == 2 * len(NAMED.findall(ROWS[number]))
    for path, test, case in NAMED.findall(ROWS[number]):
        assert (ROOT / path).is_file(), path
        assert not test or test in named_in(ROOT / path), f"{path}::{test}"
        assert not case or (CASES / f"{case}.yaml").is_file(), case


def test_every_test_of_a_class_stands_in_its_row() -> None:
    for name in named_in(ROOT / "tests" / "failures" / "test_classes.py"):
        if name.startswith("test_"):
            assert name in ROWS[int(name[5:7])], name
