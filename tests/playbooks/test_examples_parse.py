"""What holds of every example before it runs: it is valid, explained, small, and has an expectation."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from app.engine.language.parse import parse
from app.engine.playbook import Playbook
from app.tools import kinds, load_tool

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "playbooks").glob("*.yaml"))
EXPECTED = Path(__file__).parent / "expected"
DATA = ROOT / "playbooks" / "data"
#: What the project promises the examples to show together.
TOOLS = {"duckdb", "http", "noop", "postgres", "python", "shell"}


def read(path: Path) -> Playbook:
    return parse(path.read_bytes(), {kind: load_tool(kind) for kind in kinds()}, name=path.name)


def test_there_are_at_least_five() -> None:
    assert len(FILES) >= 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_valid_and_says_what_it_shows(path: Path) -> None:
    playbook = read(path)
    assert playbook.path.startswith("examples/")
    assert playbook.meta["description"]
    assert path.read_text().startswith("# Shows: ")
    assert (EXPECTED / f"{path.stem}.json").is_file()


def test_no_two_share_a_path() -> None:
    paths = [read(path).path for path in FILES]
    assert len(set(paths)) == len(paths)


def test_no_expectation_is_left_without_its_playbook() -> None:
    assert {file.stem for file in EXPECTED.glob("*.json")} == {path.stem for path in FILES}


def test_together_they_use_every_tool() -> None:
    used = {
        task.kind for path in FILES for step in read(path).steps.values() for task in step.tasks
    }
    assert used >= TOOLS


def test_together_they_show_a_cycle_a_loop_and_a_join() -> None:
    playbooks = [read(path) for path in FILES]
    assert any(playbook.graph.in_cycle for playbook in playbooks)
    assert any(step.loop for playbook in playbooks for step in playbook.steps.values())
    assert any(playbook.graph.is_join(name) for playbook in playbooks for name in playbook.steps)


@pytest.mark.parametrize(
    ("file", "rows"),
    [("flights.parquet", 6099), ("airlines.csv", 16), ("planes.csv", 1729), ("weather.csv", 498)],
)
def test_the_data_has_the_rows_its_readme_says(file: str, rows: int) -> None:
    with duckdb.connect() as connection:
        counted = connection.execute(f"SELECT count(*) FROM '{DATA / file}'").fetchone()
    assert counted == (rows,)
    line = next(
        line for line in (DATA / "README.md").read_text().splitlines() if f"`{file}`" in line
    )
    assert f"| {rows:,} |" in line


def test_the_data_is_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 1_000_000
