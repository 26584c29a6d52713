"""The CSV that rows travel in: what Postgres' COPY and DuckDB read and write by themselves.

UTF-8, commas, a newline after every row, no header. Null is nothing at all, the empty text is
``""``; quotes are doubled. Mappings and lists are JSON. Rows we make ourselves have all text in
quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import orjson

#: A piece of the stream ends at so many bytes, however few rows it has.
PIECE = 1 << 20

#: Complete rows, and how many.
Piece = tuple[bytes, int]

_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^,\n"]*))(,|\n|\Z)')


def lines(records: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Each record as a line."""
    for record in records:
        yield (",".join(map(_text, record)) + "\n").encode("utf-8", "surrogatepass")


def pieces(rows: Iterable[bytes | bytearray | memoryview], most: int) -> Iterator[Piece]:
    """Rows in pieces of *most*, or of about ``PIECE`` bytes."""
    waiting: list[bytes | bytearray | memoryview] = []
    size = 0
    for row in rows:
        waiting.append(row)
        size += len(row)
        if len(waiting) == most or size >= PIECE:
            yield b"".join(waiting), len(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting), len(waiting)


def counted(blocks: Iterable[bytes]) -> Iterator[Piece]:
    """Blocks cut anywhere, each with the number of rows that end in it."""
    is_quoted = False
    for block in blocks:
        count = 0
        for part in block.split(b'"'):
            if not is_quoted:
                count += part.count(b"\n")
            is_quoted = not is_quoted
        # One part more than there are quotes.
        is_quoted = not is_quoted
        yield block, count


def parsed(piece: bytes) -> Iterator[list[str | None]]:
    """The rows of a piece again: null, or text."""
    text = piece.decode("utf-8", "surrogatepass")
    position = 0
    row: list[str | None] = []
    while position < len(text):
        match = _FIELD.match(text, position)
        assert match is not None
        position = match.end()
        quoted, bare, end = match.groups()
        row.append(quoted.replace('""', '"') if quoted is not None else bare or None)
        if end != ",":
            yield row
            row = []


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return _quoted(value)
        case bool():
            return "true" if value else "false"
        case int() | float() | Decimal():
            return str(value)
        case dict() | list() | tuple():
            return _quoted(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode())
        case _:
            return _quoted(str(value))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if '"' in text else f'"{text}"'
