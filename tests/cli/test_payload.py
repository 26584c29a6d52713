"""Payload options and what a playbook reference means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from app.cli.payload import payload_of
from app.cli.reference import CatalogPath, LocalFile, resolve
from app.errors import NotFoundError


@pytest.mark.parametrize(
    ("pairs", "text", "expected"),
    [
        pytest.param(["city=Oslo"], None, {"city": "Oslo"}, id="text"),
        pytest.param(["version=1.10"], None, {"version": "1.10"}, id="text stays text"),
        pytest.param(["n:=5", "on:=true"], None, {"n": 5, "on": True}, id="json"),
        pytest.param(['l:=[1,"a=b"]'], None, {"l": [1, "a=b"]}, id="json with ="),
        pytest.param(["url=http://x?a=b"], None, {"url": "http://x?a=b"}, id="value with ="),
        pytest.param(["workload.city=Oslo"], None, {"city": "Oslo"}, id="prefix workload"),
        pytest.param(["empty="], None, {"empty": ""}, id="empty"),
        pytest.param(["a=1"], '{"a": 2, "b": 3}', {"a": "1", "b": 3}, id="--set wins"),
    ],
)
def test_payload(pairs: list[str], text: str | None, expected: dict[str, Any]) -> None:
    assert payload_of(pairs, text, None) == expected


def test_the_file_is_the_weakest(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"a": 1, "b": 1, "c": 1}')
    assert payload_of(["a=3"], '{"a": 2, "b": 2}', file) == {"a": "3", "b": 2, "c": 1}


@pytest.mark.parametrize(
    ("pairs", "text", "message"),
    [
        (["city"], None, "KEY=TEXT or KEY:=JSON"),
        (["=x"], None, "KEY=TEXT or KEY:=JSON"),
        (["n:=five"], None, "--set n:=: not JSON"),
        ([], "[1]", "--payload: a JSON object is needed"),
        ([], "{a: 1}", "--payload: not JSON"),
    ],
)
def test_a_wrong_payload_says_where(pairs: list[str], text: str | None, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        payload_of(pairs, text, None)


def _files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize(
    ("files", "text", "expected"),
    [
        pytest.param(["a.yaml"], "a.yaml", LocalFile(Path("a.yaml")), id="a file"),
        pytest.param(["a.yaml"], "a", LocalFile(Path("a.yaml")), id="without suffix"),
        pytest.param(["x/a.yml"], "x/a", LocalFile(Path("x/a.yml")), id="other suffix"),
        pytest.param(
            ["automation/a.yaml"], "a", LocalFile(Path("automation/a.yaml")), id="automation"
        ),
        pytest.param(
            ["noetl.yaml"], "build", LocalFile(Path("noetl.yaml"), "build"), id="default's step"
        ),
        pytest.param([], "examples/flights", CatalogPath("examples/flights"), id="catalog"),
        pytest.param([], "catalog://a/b@3", CatalogPath("a/b", 3), id="catalog with version"),
    ],
)
def test_what_a_reference_means(
    tmp_path: Path, files: list[str], text: str, expected: LocalFile | CatalogPath
) -> None:
    _files(tmp_path, *files)
    if isinstance(expected, LocalFile):
        expected = LocalFile(tmp_path / expected.path, expected.target)
    assert resolve(text, tmp_path) == expected


@pytest.mark.parametrize("text", ["missing.yaml", "./missing", "/missing"])
def test_a_missing_file_is_not_taken_for_something_else(tmp_path: Path, text: str) -> None:
    _files(tmp_path, "noetl.yaml")
    with pytest.raises(NotFoundError, match="there is no file"):
        resolve(text, tmp_path)
