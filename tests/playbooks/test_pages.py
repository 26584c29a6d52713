"""The pages say what is true: generated ones are current, links lead somewhere, the tutorial works."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from app.store.tables import SCHEMA

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("playbooks/**/*.md")])
TUTORIAL = ROOT / "docs" / "language" / "tutorial.md"
LINK = re.compile(r"\]\((?!https?:)([^)]+)\)")
LESSON = re.compile(r"```yaml\n(.*?)```\n+```json\n(.*?)```", re.DOTALL)


def generator() -> ModuleType:
    """``docs/make_reference.py``, which is a script and no module of a package."""
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in kept}


def lessons() -> list[Any]:
    """The playbooks of the tutorial, each with the result that is printed below it."""
    return [
        pytest.param(text, json.loads(result), id=yaml.safe_load(text)["metadata"]["name"])
        for text, result in LESSON.findall(TUTORIAL.read_text())
    ]


def test_the_reference_of_settings_is_current() -> None:
    page = generator()
    written = page.SETTINGS.read_text()
    assert written == page.settings_page(), "run: python docs/make_reference.py"


def test_the_reference_of_tools_is_current() -> None:
    page = generator()
    assert page.TOOLS.read_text() == page.tools_page(), "run: python docs/make_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} names no heading"


def test_the_tutorial_has_its_six_lessons() -> None:
    assert len(lessons()) == 6


@pytest.mark.parametrize(("text", "expected"), lessons())
def test_a_lesson_of_the_tutorial_gives_what_it_says(
    text: str,
    expected: Any,
    tmp_path: Path,
    run_local: Callable[[Path, dict[str, Any]], dict[str, Any]],
) -> None:
    path = tmp_path / "first.yaml"
    path.write_text(text)
    ended = run_local(path, {})
    assert (ended["status"], ended["result"]) == ("COMPLETED", expected)


def test_the_readme_names_every_example() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in ROOT.glob("playbooks/*.yaml"):
        assert f"(playbooks/{path.name})" in readme


def test_the_log_page_names_every_event_and_the_schema() -> None:
    from app.engine.events import TYPES

    page = (ROOT / "docs" / "explanation" / "log.md").read_text()
    assert [name for name in TYPES if f"`{name}`" not in page] == []
    assert f"`{SCHEMA}.event`" in page


def test_procfile_and_compose_start_the_same_processes() -> None:
    procfile = dict(
        line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines() if line
    )
    services = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]
    composed = {
        name: " ".join(service["command"]) for name, service in services.items() if name in procfile
    }
    assert composed == procfile


def test_the_composed_worker_is_not_given_the_log() -> None:
    services = yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text())["services"]
    assert "DATABASE_URL" in services["web"]["environment"]
    assert "DATABASE_URL" not in services["worker"]["environment"]
    assert "CALLBOARD_API_TOKEN" not in services["worker"]["environment"]
