"""Every playbook of the documentation runs, and ends as the page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.local import LocalRun, run_playbook
from app.settings import load
from tests.docs.blocks import ROOT, Block, all_blocks, blocks_of

RUNS = [block for block in all_blocks("yaml") if block.runs]


def placed(block: Block, folder: Path) -> Path:
    """The file of *block*; the other playbooks of its page lie beside it, for it to call."""
    for each in blocks_of(block.page):
        if each.is_playbook:
            (folder / f"{each.line}.yaml").write_text(each.text, encoding="utf-8")
    return folder / f"{block.line}.yaml"


def checkout(folder: Path) -> Path:
    """Where the pages say that examples are run; whatever one writes there goes with *folder*."""
    place = folder / "checkout"
    place.mkdir()
    (place / "playbooks").symlink_to(ROOT / "playbooks")
    return place


def given(payload: dict[str, Any], api: str) -> dict[str, Any]:
    """*payload*, which says SERVER where the address of the test's own server belongs."""
    return {key: api if value == "SERVER" else value for key, value in payload.items()}


def run(block: Block, folder: Path, payload: dict[str, Any]) -> LocalRun:
    path = placed(block, folder)
    settings = load({}, home=folder / "home").settings
    return run_playbook(path.read_text(encoding="utf-8"), settings, payload, source=str(path))


@pytest.mark.parametrize("block", RUNS, ids=lambda block: block.place)
def test_a_playbook_ends_as_it_says(
    block: Block,
    tmp_path: Path,
    api: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(checkout(tmp_path))
    options = block.options()
    if options.pop("warehouse", False):
        server = request.getfixturevalue("postgres_server")
        monkeypatch.setenv("NOETL_SECRET_WAREHOUSE", server.warehouse_url)
    ended = run(block, tmp_path, given(options.pop("payload", {}), api))
    assert (ended.status, ended.error or "") == _expected(ended, options)
    if "result" in options:
        assert ended.result == options.pop("result")
    assert not options, "a mark says what no test looks at"


def _expected(ended: LocalRun, options: dict[str, Any]) -> tuple[str, str]:
    """Status and error as the page says; of an error it may show a part."""
    part = options.pop("error", "")
    error = ended.error or ""
    return options.pop("status", "COMPLETED"), error if part and part in error else part


def test_most_playbooks_show_their_result() -> None:
    shown = [block for block in RUNS if "result" in block.options()]
    assert len(shown) > len(RUNS) * 0.8
