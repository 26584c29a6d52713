"""Reading YAML: what comes through as data, and what is refused, with its place."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from app.engine.language.source import MAX_ALIASED, MAX_DEPTH, MAX_NODES, Mark, read, texts
from app.errors import Finding, InvalidPlaybookError

#: 324 bytes that stand for nine to the ninth values.
ALIAS_BOMB = 'a: &a ["x", "x", "x", "x", "x", "x", "x", "x", "x"]\n' + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def findings(text: str | bytes, **options: Any) -> list[Finding]:
    with pytest.raises(InvalidPlaybookError) as caught:
        read(text, **options)
    return list(caught.value.findings)


@pytest.mark.parametrize(
    ("text", "data"),
    [
        pytest.param("a: 1\nb: [x, 2.5, null]", {"a": 1, "b": ["x", 2.5, None]}, id="plain data"),
        pytest.param("on: 1\nno: 2\n3: x", {"on": 1, "no": 2, "3": "x"}, id="keys stay text"),
        pytest.param("a: 2024-01-01", {"a": "2024-01-01"}, id="a date stays what was written"),
        pytest.param("a: !!binary aGk=", {"a": "aGk="}, id="bytes stay what was written"),
        pytest.param("a: 2024-13-45", {"a": "2024-13-45"}, id="a date that never was does too"),
        pytest.param("a: !!map {b: !!seq [1]}", {"a": {"b": [1]}}, id="tags that say what it is"),
        pytest.param("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}, id="an alias"),
        pytest.param(
            "a: &x {b: 1, d: 2}\nc: {<<: *x, b: 3}",
            {"a": {"b": 1, "d": 2}, "c": {"b": 3, "d": 2}},
            id="own keys win over merged ones",
        ),
        pytest.param(
            "a: &x {k: 1}\nb: &y {k: 2}\nc: {<<: [*x, *y]}",
            {"a": {"k": 1}, "b": {"k": 2}, "c": {"k": 1}},
            id="the first of several merged mappings wins",
        ),
        pytest.param("\ufeffa: 1", {"a": 1}, id="a byte order mark is skipped"),
        pytest.param("a: ä€𝄞".encode(), {"a": "ä€𝄞"}, id="bytes are UTF-8"),
        pytest.param("- a\n- b", ["a", "b"], id="a list at the top is still data"),
    ],
)
def test_what_is_written_is_what_is_read(text: str | bytes, data: Any) -> None:
    assert read(text).data == data


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        pytest.param("", "yaml-empty", 0, 0, id="nothing"),
        pytest.param("# only a comment\n", "yaml-empty", 0, 0, id="only a comment"),
        pytest.param("a:\n\tb: 1", "yaml-syntax", 2, 1, id="a tab as indentation"),
        pytest.param("a: 1\nb: [1, 2\nc: 3", "yaml-syntax", 3, 2, id="a bracket left open"),
        pytest.param("a: *nobody", "yaml-syntax", 1, 4, id="an alias of nothing"),
        pytest.param("a: 1\n---\nb: 2", "yaml-syntax", 2, 1, id="two documents"),
        pytest.param("a: \x00", "yaml-syntax", 0, 0, id="a control character"),
        pytest.param("a: \ud800", "yaml-encoding", 0, 0, id="half a character"),
        pytest.param(b"a: \xff\xfe", "yaml-encoding", 0, 0, id="not UTF-8"),
        pytest.param("a:\n  ? [1, 2]\n  : 3", "yaml-key", 2, 5, id="a list as key"),
        pytest.param("a: 1\n<<: 3", "yaml-merge", 2, 5, id="merging a number"),
        pytest.param("a:\n  b: 1\n  b: 2", "yaml-duplicate-key", 3, 3, id="a key twice"),
        pytest.param('1: a\n"1": b', "yaml-duplicate-key", 2, 1, id="a key twice, quoted once"),
        pytest.param("a: !!int many", "yaml-value", 1, 4, id="a word said to be a number"),
        pytest.param("a: !!python/object:os.system {b: 1}", "yaml-value", 1, 4, id="an object"),
        pytest.param("a: !odd x", "yaml-value", 1, 4, id="an unknown tag"),
        pytest.param("a: " + "9" * 5000, "yaml-value", 1, 4, id="a number of 5,000 digits"),
        pytest.param("a: &a [*a]", "yaml-alias", 1, 4, id="an alias inside itself"),
        pytest.param("a: &a\n  <<: *a", "yaml-alias", 1, 4, id="a mapping merged into itself"),
        pytest.param("[" * 20_000, "yaml-depth", 1, MAX_DEPTH + 1, id="20,000 brackets"),
        pytest.param("- " * 20_000, "yaml-depth", 1, 2 * MAX_DEPTH + 1, id="20,000 dashes"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    text: str | bytes, code: str, line: int, column: int
) -> None:
    (finding,) = findings(text)
    assert (finding.code, finding.line, finding.column) == (code, line, column)


def test_all_repeated_keys_and_unreadable_values_are_reported_together() -> None:
    found = findings("a: 1\na: 2\nb: !!int x\nc: {d: 1, d: 2}")
    assert [(finding.code, finding.line) for finding in found] == [
        ("yaml-duplicate-key", 2),
        ("yaml-value", 3),
        ("yaml-duplicate-key", 4),
    ]


def test_nesting_up_to_the_limit_is_read() -> None:
    data = read("[" * MAX_DEPTH + "]" * MAX_DEPTH).data
    for _ in range(MAX_DEPTH - 1):
        (data,) = data
    assert data == []


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    tracemalloc.start()
    try:
        (finding,) = findings(ALIAS_BOMB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert finding.code == "yaml-alias"
    assert str(MAX_ALIASED) in finding.message
    assert peak < 20_000_000


def test_too_many_nodes_are_refused_on_the_way() -> None:
    (finding,) = findings("[" + "1," * MAX_NODES + "1]")
    assert finding.code == "yaml-depth"


def test_a_document_above_the_limit_is_refused_with_the_setting_to_change() -> None:
    (finding,) = findings("a: ä" + "x" * 95, max_bytes=99)
    assert finding.code == "yaml-size"
    assert "100 bytes" in finding.message
    assert finding.suggestion is not None
    assert "CALLBOARD_PLAYBOOK_BYTES" in finding.suggestion


def test_the_name_of_the_source_is_in_the_error() -> None:
    with pytest.raises(InvalidPlaybookError, match=r"^load\.yaml is not valid"):
        read("a: [", name="load.yaml")


def test_two_megabytes_are_read_in_reasonable_memory() -> None:
    text = "workflow:\n" + "".join(
        f"- step: s{number}\n  tool:\n    kind: python\n    code: |\n      {'x' * 170}\n"
        for number in range(9_000)
    )
    assert len(text) > 1_900_000
    tracemalloc.start()
    try:
        data = read(text).data
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data["workflow"]) == 9_000
    assert peak < 100_000_000


def test_every_value_and_key_knows_its_place() -> None:
    source = read("a: 1\nb:\n  - x\n  - c: {d: 2}\n")
    assert source.at(("b", 1, "c", "d")) == Mark(4, 12)
    assert source.key_at(("b", 1, "c", "d")) == Mark(4, 9)
    assert source.key_at(("b",)) == Mark(2, 1)
    assert source.at(("b", 1, "c", "gone", 7)) == Mark(4, 8), "else the nearest parent's place"
    assert source.at(("gone",)) == Mark(1, 1)


def test_texts_are_found_with_their_paths() -> None:
    data = {"a": "x", "b": ["y", {"c": "z", "n": 1}], "t": None}
    assert list(texts(data)) == [(("a",), "x"), (("b", 0), "y"), (("b", 1, "c"), "z")]
