"""YAML written to harm, or that other readers misread: refused with its place, or read as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.engine.language.source import MAX_ALIASED, MAX_FINDINGS, MAX_KEY, MAX_NODES, Mark, read
from app.errors import InvalidPlaybookError
from tests.engine.contained import Ask, check, containment


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with containment() as ask:
        yield ask


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"a{number}: &a{number} {{<<: *{f'a{number - 1}' if number else 'a'}, k{number}: 1}}\n"
    for number in range(2_000)
)
#: What is refused, and the code that says so.
REFUSED = {
    "an alias bomb": (BOMB, "yaml-alias"),
    "merges of merges": (MERGES, "yaml-alias"),
    "a list merged into itself": ("a: &a [{<<: *a}]", "yaml-alias"),
    "an alias of itself": ("a: &a {b: *a}", "yaml-alias"),
    "a merge of a text": ("a: {<<: x}", "yaml-merge"),
    "a merge of texts": ("a: {<<: [x, y]}", "yaml-merge"),
    "a million brackets": ("[" * 1_000_000, "yaml-depth"),
    "a million braces": ("{" * 1_000_000, "yaml-key"),
    "a million dashes": ("- " * 1_000_000, "yaml-depth"),
    "a million question marks": ("? " * 1_000_000, "yaml-key"),
    "too many values": ("[" + "1," * MAX_NODES + "]", "yaml-depth"),
    "a key of a million letters": ("? " + "k" * 1_000_000 + "\n: 1", "yaml-key"),
    "a key of 2,000 letters in a line": ("k" * 2_000 + ": 1", "yaml-syntax"),
    "a mapping as key": ("{a: 1}: 2", "yaml-key"),
    "a list as key by alias": ("a: &a [1]\n*a : 2", "yaml-key"),
    "100,000 keys that are one": ("a: 1\n" * 100_000, "yaml-duplicate-key"),
    "a key twice, written differently": ("'a': 1\n\"a\": 2", "yaml-duplicate-key"),
    "an object": ("a: !!python/object/apply:os.system [id]", "yaml-value"),
    "a name": ("a: !!python/name:os.system", "yaml-value"),
    "an unknown tag": ("a: !Ref b", "yaml-value"),
    "an unknown tag on a list": ("a: !GetAtt [b]", "yaml-value"),
    "a set": ("a: !!set {b, c}", "yaml-value"),
    "a word tagged as number": ("a: !!int b", "yaml-value"),
    "100,000 tag directives": (
        "".join(f"%TAG !{n}! tag:x\n" for n in range(100_000)) + "---\na: 1",
        "yaml-syntax",
    ),
    "another version": ("%YAML 3.0\n---\na: 1", "yaml-syntax"),
    "two documents": ("a: 1\n---\nb: 1", "yaml-syntax"),
    "100,000 documents": ("---\n" * 100_000, "yaml-syntax"),
    "a tab for indentation": ("a:\n\tb: 1", "yaml-syntax"),
    "tabs and blanks": ("a:\n  b: 1\n\tc: 2", "yaml-syntax"),
    "the character NUL": ("a: \0", "yaml-syntax"),
    "the character NUL, escaped": ('a: "\\0"', "yaml-value"),
    "the character NUL in a key": ('"a\\0": 1', "yaml-key"),
    "half a character": ("a: \ud800", "yaml-encoding"),
    "half a character, escaped": ('a: "\\ud800"', "yaml-syntax"),
    "UTF-16": ("bytes:" + "a: 1".encode("utf-16").decode("latin-1"), "yaml-encoding"),
    "Latin-1": ("bytes:a: \xe4", "yaml-encoding"),
    "a number of a million digits": ("a: " + "9" * 1_000_000, "yaml-value"),
    "a number of a million hex digits": ("a: 0x" + "f" * 1_000_000, "yaml-value"),
    "a number beyond 64 bits": ("a: 18446744073709551616", "yaml-value"),
    "a number without digits": ("a: 0x_", "yaml-value"),
    "infinity": ("a: .inf", "yaml-value"),
    "less than infinity": ("a: -.INF", "yaml-value"),
    "not a number": ("workload:\n  a: .nan", "yaml-value"),
    "a float too large": ("a: 1.0e+999", "yaml-value"),
    "nothing": ("", "yaml-empty"),
    "an empty document": ("---\n", "yaml-empty"),
    "blanks": ("\n  \n", "yaml-empty"),
    "comments only": ("# a\n" * 100_000, "yaml-empty"),
    "an alias of nothing": ("a: *b", "yaml-syntax"),
    "nine million letters": ("a: " + "x" * 9_000_000, "yaml-size"),
    "a quote left open": ("a: '" + "x\n" * 100_000, "yaml-syntax"),
}


@pytest.mark.parametrize(("text", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_hostile_yaml_is_refused_soon_and_says_why(text: str, code: str, ask: Ask) -> None:
    outcome = ask("yaml", text)
    check(outcome)
    assert outcome.error == "InvalidPlaybookError", outcome
    assert f"[{code}]" in outcome.detail, outcome


#: What is read, and the JSON that it is.
READ = {
    "49,000 keys": ("".join(f"k{n}: {n}\n" for n in range(49_000)), '{"k0": 0, "k1": 1'),
    "a text of eight million letters": ("a: " + "x" * 8_000_000, '{"a": "xxx'),
    "a block of eight megabytes": ("a: |\n" + "  line\n" * 1_000_000, '{"a": "line\\nline'),
    "a million lines folded": ("a:\n" + "  x\n" * 1_000_000, '{"a": "x x'),
    "50,000 anchors": ("".join(f"- &a{n} x\n" for n in range(50_000)), '["x", "x"'),
    "keys that are no text": (
        "1: a\n1.5: b\nnull: c\ntrue: d\n~: e",
        '{"1": "a", "1.5": "b", "null": "c", "true": "d", "~": "e"}',
    ),
    "an empty key": ("? \n: a", '{"": "a"}'),
    "words as keys": ("on: 1\nyes: 2\ny: 3", '{"on": 1, "yes": 2, "y": 3}'),
    "words that are booleans": (
        "[yes, No, ON, off, true, FALSE]",
        "[true, false, true, false, true, false]",
    ),
    "words that are none": (
        "[y, n, Y, N, yEs, 'yes', \"no\"]",
        '["y", "n", "Y", "N", "yEs", "yes", "no"]',
    ),
    "nothing": ("[~, null, Null, NULL, , '']".replace(", ,", ","), '[null, null, null, null, ""]'),
    "a time of day": ("[22:22, 1:30:00, 12:00:00.5]", '["22:22", "1:30:00", "12:00:00.5"]'),
    "a ratio": ("[190:20:30, -1:30]", '["190:20:30", "-1:30"]'),
    "octal": ("[010, 0644, 08, 0o10, 007]", '[8, 420, "08", "0o10", 7]'),
    "numbers": (
        "[0x1F, 0b11, 1_000, +5, -3, 1.5e+3, .5, 1e5]",
        '[31, 3, 1000, 5, -3, 1500.0, 0.5, "1e5"]',
    ),
    "64 bits": (
        "[-9223372036854775808, 18446744073709551615]",
        "[-9223372036854775808, 18446744073709551615]",
    ),
    "dates": (
        "[2024-01-01, 2024-01-01T10:00:00Z, 2024-99-99]",
        '["2024-01-01", "2024-01-01T10:00:00Z", "2024-99-99"]',
    ),
    "bytes": ("a: !!binary aGk=", '{"a": "aGk="}'),
    "tags of the core": (
        "[!!str 1, !!int '1', !!float 1, !!bool yes, !!null '']",
        '["1", 1, 1.0, true, null]',
    ),
    "a version": ("%YAML 1.1\n---\na: 1", '{"a": 1}'),
    "a byte order mark": ("bytes:\xef\xbb\xbfa: 1", '{"a": 1}'),
    "a merge": ("a: &a {x: 1}\nb: {<<: *a, y: 2}", '{"a": {"x": 1}, "b": {"x": 1, "y": 2}}'),
    "a merge of a literal": ("a: {<<: {x: 1}, x: 2}", '{"a": {"x": 2}}'),
    "two arrows in quotes": ("{'<<': 1}", '{"<<": 1}'),
    "an equals sign": ("a: =", '{"a": "="}'),
    "templates": ("a: '{{ x }}'\nb: \"{% if y %}1{% endif %}\"", '{"a": "{{ x }}"'),
    "a document that ends": ("a: 1\n...\n", '{"a": 1}'),
}


@pytest.mark.parametrize(("text", "data"), READ.values(), ids=READ.keys())
def test_odd_yaml_is_read_as_it_is(text: str, data: str, ask: Ask) -> None:
    outcome = ask("yaml", text)
    check(outcome)
    assert not outcome.error, outcome
    assert outcome.detail.startswith(data), outcome


@pytest.mark.parametrize(
    ("text", "code", "place", "word"),
    [
        pytest.param("a: 1\nb: yes", "yaml-word", (2, 4), "true", id="yes"),
        pytest.param("a: [x, Off]", "yaml-word", (1, 8), "false", id="off in a list"),
        pytest.param("mode: 0644", "yaml-octal", (1, 7), "octal", id="a leading zero"),
    ],
)
def test_a_word_that_may_be_meant_otherwise_is_told(
    text: str, code: str, place: tuple[int, int], word: str
) -> None:
    (found,) = read(text).warnings
    assert (found.code, found.severity) == (code, "warning")
    assert (found.line, found.column) == place
    assert word in found.message


@pytest.mark.parametrize("text", ["yes: 1", "a: 'no'", "a: !!str on", "a: true", "a: y", "a: 0"])
def test_words_that_are_clear_need_no_warning(text: str) -> None:
    assert read(text).warnings == ()


def test_no_more_is_reported_than_anybody_reads() -> None:
    with pytest.raises(InvalidPlaybookError) as caught:
        read("a: 1\n" * 1000)
    assert len(caught.value.findings) == MAX_FINDINGS
    assert len(read("- yes\n" * 1000).warnings) == MAX_FINDINGS


def test_long_values_are_not_repeated_in_what_is_said_about_them() -> None:
    with pytest.raises(InvalidPlaybookError) as caught:
        read(f"a: {'9' * 100_000}\n? {'k' * (MAX_KEY + 1)}\n: !{'t' * 1000} x")
    assert len(caught.value.findings) == 3
    assert len(str(caught.value)) < 1000


def test_what_an_alias_stands_for_is_a_copy_with_the_place_of_the_original() -> None:
    source = read("a: &a {x: [1]}\nb: *a\n")
    data: Any = source.data
    assert data["a"] == data["b"]
    assert data["a"] is not data["b"]
    assert source.at(("b", "x", 0)) == Mark(1, 12)
    assert source.key_at(("b",)) == Mark(2, 1)


def test_a_merged_key_stands_where_it_was_written() -> None:
    source = read("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n")
    assert source.at(("b", "x")) == Mark(1, 11)
    assert source.at(("b", "y")) == Mark(4, 6)


def test_aliases_up_to_the_limit_are_read() -> None:
    text = "- &a x\n" + "- *a\n" * MAX_ALIASED
    assert len(read(text).data) == MAX_ALIASED + 1


def test_a_path_is_known_where_something_is_written() -> None:
    source = read("a: {b: [1]}")
    assert ("a", "b", 0) in source.marks
    assert ("a", "b", 1) not in source.marks
    assert ("a", 0) not in source.marks
