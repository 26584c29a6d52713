"""Playbooks with one mistake each: it has its code, stands where it is written, and has a hint.

``mistakes/*.txt`` holds them: a line ``=== code | part of the hint``, then what follows the head.
HERE marks the line of the value that is wrong; a block begins on the line after its key.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.language.parsing import HEAD, finding, line_of_here

FILES = sorted((Path(__file__).parent / "mistakes").glob("*.txt"))


def _cases() -> Iterator[object]:
    for file in FILES:
        for number, case in enumerate(file.read_text().split("=== ")[1:], 1):
            title, text = case.split("\n", 1)
            code, _, hint = title.partition(" | ")
            yield pytest.param(code, HEAD + text, hint, id=f"{file.stem}-{number}-{code}")


@pytest.mark.parametrize(("code", "text", "hint"), list(_cases()))
def test_a_mistake_is_told_where_it_is_written(code: str, text: str, hint: str) -> None:
    found = finding(text)
    assert (found.code, found.line) == (code, line_of_here(text))
    assert found.column > 0
    assert hint in (found.suggestion or "")
