"""Every call of the command line that the documentation shows is one that it takes."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from app.cli.root import cli
from tests.docs.blocks import PAGES, ROOT
from tests.docs.shown import Call, calls_of, wrong_with

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Other names of commands, and what explains itself.
ALIASES = {"exec", "list", "version"}
WITH_CALLS = [page for page in PAGES if calls_of(page)]


@pytest.mark.parametrize("page", WITH_CALLS, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_calls_are_taken(page: Path) -> None:
    told = {call.place: wrong for call in calls_of(page) if (wrong := wrong_with(call))}
    assert told == {}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("run a.yaml --set x=1", None),
        ("db upgrade", None),
        ("run", "Missing"),
        ("run a.yaml --sets x=1", "--sets"),
        ("run a.yaml b c", "too many words: c"),
        ("run a.yaml -r elsewhere", "elsewhere"),
        ("rum a.yaml", "no command is called 'rum'"),
        ("db upgrad", "no command is called 'upgrad'"),
    ],
)
def test_a_wrong_call_is_told(line: str, wrong: str | None) -> None:
    told = wrong_with(Call("here", tuple(line.split())))
    assert told is None if wrong is None else wrong in (told or "")


def test_calls_are_found_in_text_and_blocks() -> None:
    places = {call.place.partition(":")[0] for page in PAGES for call in calls_of(page)}
    assert places >= {"README.md", "docs/how-to/deploy.md", "docs/language/tutorial.md"}


def test_the_readme_lists_every_command() -> None:
    section = README.split("## With the command line")[1].split("\n## ")[0]
    cells = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| `")]
    named = {span.split()[0] for cell in cells for span in re.findall(r"`([^`]*)`", cell)}
    assert named == set(cli.list_commands(click.Context(cli))) - ALIASES
