"""The pages say what is true: generated ones are current, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from app.store.tables import SCHEMA

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("playbooks/**/*.md")])
LINK = re.compile(r"\]\((?!https?:)([^)]+)\)")


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


def test_the_reference_of_settings_is_current() -> None:
    page = generator()
    written = page.SETTINGS.read_text()
    assert written == page.settings_page(), "run: python docs/make_reference.py"


def test_the_reference_of_failpoints_is_current() -> None:
    page = generator()
    written = page.FAILPOINTS.read_text()
    assert written == page.failpoints_page(), "run: python docs/make_reference.py"


def test_the_reference_of_tools_is_current() -> None:
    page = generator()
    assert page.TOOLS.read_text() == page.tools_page(), "run: python docs/make_reference.py"


def test_the_reference_of_keys_and_findings_is_current() -> None:
    page = generator()
    for file, text in ((page.KEYS, page.keys_page()), (page.FINDINGS, page.findings_page())):
        assert file.read_text() == text, "run: python docs/make_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_its_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link} names no heading"


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
