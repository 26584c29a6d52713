"""What the pages of the language list is what the code has: filters, limits, kinds, settings."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from app.engine.templates import budget, sandbox
from app.engine.templates.filters import all_filters
from app.engine.templates.sandbox import Result
from app.settings import PASSTHROUGH, Settings
from app.tools import kinds
from tests.docs.blocks import PAGES, ROOT

LANGUAGE = ROOT / "docs" / "language"
TEMPLATES = (LANGUAGE / "templates.md").read_text(encoding="utf-8")
REFERENCE = (LANGUAGE / "reference.md").read_text(encoding="utf-8")
SETTING = re.compile(r"`(CALLBOARD_[A-Z_]+)")
KNOWN = {name for setting in fields(Settings) for name in setting.metadata["env"]}


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n")[1].partition("\n## ")[0]


def test_the_filters_listed_are_those_there_are() -> None:
    rows = [row for row in section(TEMPLATES, "Filters").splitlines() if row.startswith("| ")]
    cells = [row.split(" | ")[1] for row in rows if "`" in row]
    listed = re.findall(r"`(\w+)`", " ".join(cells))
    assert sorted(listed) == sorted(name for name in all_filters() if not name.startswith("<"))


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("work of one rendering", budget.MAX_WORK),
        ("bytes of text and lists made", budget.MAX_MADE),
        ("bytes of text it gives", budget.MAX_OUTPUT),
        ("repetition or padding", budget.MAX_OPERAND),
        ("bits of a whole number", budget.MAX_BITS),
        ("words and signs", sandbox.MAX_TOKENS),
        ("characters of a text with templates", sandbox.MAX_TEMPLATE),
    ],
)
def test_a_limit_is_what_the_page_says(words: str, limit: int) -> None:
    row = next(row for row in section(TEMPLATES, "Limits").splitlines() if words in row)
    assert f"| {limit:,}" in row


def test_the_kinds_of_tools_are_named() -> None:
    line = next(line for line in section(REFERENCE, "Tools").splitlines() if "Kinds:" in line)
    listed = re.findall(r"`(\w+)`", line.split("Kinds:")[1].split(";")[0])
    assert set(listed) == {*kinds(), "workbook"}


def test_what_a_result_answers_to_is_named() -> None:
    line = next(line for line in REFERENCE.splitlines() if "also answers to" in line)
    names = re.findall(r"`\.(\w+)`", line)
    assert set(names) == Result.ALIASES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_it_names_exist(page: Path) -> None:
    named = set(SETTING.findall(page.read_text(encoding="utf-8")))
    odd = {name for name in named - KNOWN if not name.startswith(PASSTHROUGH)}
    # A beginning of names, and what a script finds in its own environment.
    assert odd <= {"CALLBOARD_", "CALLBOARD_RESULT"}


def test_the_index_leads_to_every_page_of_the_language() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs") for page in LANGUAGE.rglob("*.md")]
    assert [str(page) for page in pages if f"({page})" not in index] == []
