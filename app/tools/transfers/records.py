"""JSON records as rows of a table: which columns there are, and each one's value in a record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from app.errors import ToolError

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


def table_of(
    records: Sequence[Any], columns: Sequence[str] | None
) -> tuple[list[str], list[list[Any]]]:
    """The columns and rows of *records*, which are mappings or lists. Raises ``ToolError``."""
    names = list(columns) if columns else columns_of(records)
    return names, list(rows_of(records, names))


def columns_of(records: Iterable[Any]) -> list[str]:
    """Every key of the mappings among *records*, in the order in which they turn up."""
    return list(
        dict.fromkeys(
            str(key) for record in records if isinstance(record, Mapping) for key in record
        )
    )


def rows_of(records: Iterable[Any], names: Sequence[str], first: int = 0) -> Iterator[list[Any]]:
    """The values of *names* in each record; a mapping without one of them has null there.

    Raises ``ToolError`` for a record that has something *names* has no place for. *first* is the
    number of the first record, for the message.
    """
    known = set(names)
    for number, record in enumerate(records, first):
        if isinstance(record, Mapping):
            if not record.keys() <= known:
                odd = next(key for key in record if key not in known)
                raise ToolError(
                    f"record {number} has the field {odd!r}, which the first ones do not; "
                    "say which columns there are",
                    kind="schema",
                )
            yield [record.get(name) for name in names]
        elif isinstance(record, list | tuple) and len(record) == len(names):
            yield list(record)
        else:
            raise ToolError(
                f"record {number} is neither a mapping nor a list of {len(names)} values",
                kind="schema",
            )


def at(data: Any, path: str) -> Any:
    """What *path* (``a.b``, ``a[0].b``, with or without ``$`` in front) leads to; None where it
    leads nowhere."""
    for name, index in _STEP.findall(path.removeprefix("$")):
        if isinstance(data, Mapping) and name:
            data = data.get(name)
        elif isinstance(data, list) and (index or name).isdigit():
            place = int(index or name)
            data = data[place] if place < len(data) else None
        else:
            return None
    return data


def keys_of(path: str) -> list[str]:
    """The steps of *path* (see ``at``)."""
    return [name or index for name, index in _STEP.findall(path.removeprefix("$"))]
