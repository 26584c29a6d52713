"""Every code of a finding is explained, used, and provoked at the line that is wrong."""

from __future__ import annotations

import ast
from pathlib import Path

import app.engine.language
from app.engine.language.codes import CODES

LANGUAGE = Path(app.engine.language.__file__).parent
#: Where the code stands among the arguments of what reports a finding.
REPORTS = {"problem": 1, "key_problem": 1, "word": 3}
#: The same in what reads YAML.
REPORTS |= {"_invalid": 1, "_finding": 0, "_problem": 0, "_warn": 0}
#: Made from the name of the key they are about.
BY_KEY = {"entry-step", "final-step"}


def _reported() -> dict[str, set[str]]:
    """The codes in the reader's own files, with the files that report them."""
    found: dict[str, set[str]] = {}
    for file in LANGUAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            place = REPORTS.get(name)
            if place is None or len(node.args) <= place:
                continue
            code = node.args[place]
            if isinstance(code, ast.Constant) and isinstance(code.value, str):
                found.setdefault(code.value, set()).add(file.name)
    return found


def test_every_code_that_is_reported_is_explained() -> None:
    assert {code: files for code, files in _reported().items() if code not in CODES} == {}


def test_every_code_that_is_explained_is_reported() -> None:
    assert CODES.keys() - _reported().keys() - BY_KEY == set()


def test_an_explanation_is_one_sentence() -> None:
    for code, sentence in CODES.items():
        assert sentence.endswith("."), code
        assert ". " not in sentence, code


def test_every_code_is_provoked_by_a_test() -> None:
    """The tables of the parser's tests name each code beside the line it is expected at."""
    here = Path(__file__).parent
    named = {
        line.removeprefix("=== ").split(" | ")[0]
        for file in (here / "mistakes").glob("*.txt")
        for line in file.read_text().splitlines()
    }
    for test in ("parse", "parse_workbook", "source", "hostile_yaml"):
        file = here / f"test_{test}.py"
        named |= {
            node.value
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
    assert CODES.keys() - named == set()
