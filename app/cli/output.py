"""How answers look: JSON for programs, text and tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

#: Cells and values wider than this are cut in tables; ``--json`` shows them whole.
WIDEST = 60


def print_json(data: Any) -> None:
    """*data* as indented JSON on stdout."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def print_line(data: Any) -> None:
    """*data* as one line of JSON: for streams."""
    click.echo(json.dumps(data, ensure_ascii=False, default=str))


def table(rows: Iterable[Sequence[Any]], header: Sequence[str], *, widest: int = WIDEST) -> str:
    """Aligned columns, two spaces apart; numbers to the right."""
    raw = [list(row) for row in rows]
    cells = [[_cell(value, widest) for value in row] for row in raw]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    right = [
        bool(raw) and all(isinstance(row[index], int | float | None) for row in raw)
        for index in range(len(header))
    ]
    lines = [header, ["-" * width for width in widths], *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if flush else text.ljust(width)
            for text, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def print_value(value: Any) -> None:
    """A result for people: lists of rows as tables, mappings key by key, text as it is."""
    if _is_rows(value):
        _print_rows(value)
    elif isinstance(value, Mapping) and value:
        plain = {key: item for key, item in value.items() if not _is_rows(item)}
        width = max((len(str(key)) for key in plain), default=0)
        for key, item in plain.items():
            click.echo(f"{key!s:<{width}}  {_cell(item)}")
        for key, rows in value.items():
            if _is_rows(rows):
                click.echo(f"\n{key}:" if plain else f"{key}:")
                _print_rows(rows)
    else:
        click.echo(value if isinstance(value, str) else json.dumps(value, default=str))


def seconds(value: float | None) -> str:
    """``12 ms``, ``1.25 s``, ``3 m 05 s``; empty for None."""
    if value is None:
        return ""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.2f} s"
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} m" if hours else f"{minutes} m {rest:02} s"


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    header = list(dict.fromkeys(key for row in rows for key in row))
    click.echo(table([[row.get(key) for key in header] for row in rows], header))


def _cell(value: Any, widest: int = WIDEST) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = " ".join(text.split())
    return text if len(text) <= widest else f"{text[: widest - 1]}…"
