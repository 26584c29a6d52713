"""Every YAML block of the documentation is valid, or has just the mistake it is shown for."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from app.cli.findings import finding_text, summary
from app.engine.language.examine import Examined, examine
from app.engine.language.source import read
from app.services.schema import schema_of
from app.wiring import ToolKinds
from tests.docs.blocks import PAGES, Block, all_blocks
from tests.docs.wrap import whole

YAML = [block for block in all_blocks("yaml") if not block.is_empty]


def looked_at(text: str, block: Block) -> Examined:
    return examine(text, ToolKinds(), name=block.place)


def told(examined: Examined, *severities: str) -> list[str]:
    return [
        f"{finding.line}:{finding.column} {finding.message} [{finding.code}]"
        for finding in examined.findings
        if finding.severity in severities
    ]


def only(word: str) -> list[Block]:
    return [block for block in YAML if word in block.marks]


@pytest.fixture
def validator() -> Draft202012Validator:
    """What ``callboard schema`` prints, at work."""
    return Draft202012Validator(schema_of(ToolKinds()))


def test_the_documentation_is_found() -> None:
    names = {page.name for page in PAGES}
    assert names >= {"README.md", "tutorial.md", "reference.md"}
    assert len(YAML) > 30


@pytest.mark.parametrize(
    "block", [block for block in YAML if block.is_playbook], ids=lambda block: block.place
)
def test_a_playbook_is_valid(block: Block) -> None:
    assert told(looked_at(block.text, block), "error", "warning") == []


def test_the_schema_for_editors_takes_every_playbook(validator: Draft202012Validator) -> None:
    told = {
        block.place: [error.json_path for error in validator.iter_errors(data)]
        for block in YAML
        if block.is_playbook and (data := read(block.text, name=block.place).data)
    }
    assert {place: paths for place, paths in told.items() if paths} == {}


@pytest.mark.parametrize("block", only("fragment"), ids=lambda block: block.place)
def test_a_part_fits_into_a_playbook(block: Block) -> None:
    # Warnings are about the whole, such as names that another part gives.
    assert told(looked_at(json.dumps(whole(block)), block), "error") == []


@pytest.mark.parametrize("block", only("invalid"), ids=lambda block: block.place)
def test_a_mistake_is_found(block: Block) -> None:
    examined = looked_at(block.text, block)
    found = [item.code for item in examined.findings if item.severity != "info"]
    assert found == block.marks["invalid"].split(", ")
    if block.shown is not None:
        rows = [finding.to_dict() for finding in examined.findings]
        lines = [finding_text("playbook.yaml", row) for row in rows]
        assert block.shown == "\n".join([*lines, summary(rows, 1, 0)])


@pytest.mark.parametrize("block", only("other"), ids=lambda block: block.place)
def test_what_is_no_playbook_is_yaml(block: Block) -> None:
    assert read(block.text, name=block.place).data


@pytest.mark.parametrize("block", all_blocks("json"), ids=lambda block: block.place)
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)
