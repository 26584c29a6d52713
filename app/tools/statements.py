"""Splits SQL into statements as Postgres reads it: quotes, dollar quotes and comments kept whole."""

from __future__ import annotations

import re
from collections.abc import Iterator

# One alternative per thing inside which a semicolon means nothing. E'' strings know the backslash,
# plain ones do not. A dollar quote does not begin inside a name (a$b$).
_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\* )
    | (?P<escape> (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z) )
    | (?P<string> '(?:[^']|'')*(?:'|\Z) )
    | (?P<name> "(?:[^"]|"")*(?:"|\Z) )
    | (?P<dollar> (?<![\w$])\$(?:[^\W\d]\w*)?\$ )
    | (?P<begin> \bBEGIN\s+ATOMIC\b )
    | (?P<case> \bCASE\b )
    | (?P<end> \bEND\b )
    | (?P<stop> ; )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_BLOCK = re.compile(r"/\*|\*/")
_PLACEHOLDER = re.compile(r"\$\d")
# Not the second colon of a cast, nor the bound of a slice (a[1:n] has a digit or name before).
_NAMED = re.compile(r"(?<![:\w\])]):([A-Za-z_]\w*)")


def split(sql: str) -> list[str]:
    """The statements of *sql*, in order, without their semicolons; empty ones are left out."""
    parts: list[str] = []
    start = position = depth = 0
    has_code = False
    while match := _TOKEN.search(sql, position):
        kind = match.lastgroup
        between = sql[position : match.start()].strip()
        has_code = has_code or bool(between) or kind not in {"comment", "stop"}
        position = _end_of(sql, match)
        # A function's body in standard SQL is BEGIN ATOMIC … END with semicolons of its own.
        depth += kind == "begin" or (kind == "case" and depth > 0)
        depth -= kind == "end" and depth > 0
        if kind == "stop" and not depth:
            if has_code:
                parts.append(sql[start : match.start()].strip())
            start, has_code = position, False
    if has_code or sql[position:].strip():
        parts.append(sql[start:].strip())
    return parts


def takes_parameters(statement: str) -> bool:
    """Whether *statement* names ``$1`` and the like outside of strings and comments."""
    return any(is_code and _PLACEHOLDER.search(text) for text, is_code in _pieces(statement))


def outline(statement: str) -> str:
    """*statement* with a blank for every comment, string and quoted name in it."""
    return "".join(text if is_code else " " for text, is_code in _pieces(statement))


def named_parameters(statement: str, names: frozenset[str]) -> tuple[str, list[str]]:
    """*statement* with ``$1``, ``$2``… for each ``:name`` of *names*, and the names in that order."""
    order: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        if match[1] not in names:
            return match[0]
        return f"${order.setdefault(match[1], len(order) + 1)}"

    text = "".join(
        _NAMED.sub(numbered, text) if is_code else text for text, is_code in _pieces(statement)
    )
    return text, list(order)


def _pieces(sql: str) -> Iterator[tuple[str, bool]]:
    """*sql* in pieces, each with whether it is code, and not a comment, string or quoted name."""
    position = 0
    while match := _TOKEN.search(sql, position):
        yield sql[position : match.start()], True
        position = _end_of(sql, match)
        yield sql[match.start() : position], match.lastgroup in {"begin", "case", "end", "stop"}
    yield sql[position:], True


def _end_of(sql: str, match: re.Match[str]) -> int:
    if match["dollar"]:
        end = sql.find(match["dollar"], match.end())
        return len(sql) if end < 0 else end + len(match["dollar"])
    if match["comment"] == "/*":
        return _end_of_block(sql, match.end())
    return match.end()


def _end_of_block(sql: str, position: int) -> int:
    depth = 1  # block comments nest in Postgres
    while depth:
        mark = _BLOCK.search(sql, position)
        if mark is None:
            return len(sql)
        depth += 1 if mark[0] == "/*" else -1
        position = mark.end()
    return position
