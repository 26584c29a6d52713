"""Values on their way from Postgres that Python has no type for: they come as Postgres' own text."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.abc import Buffer, Loader
from psycopg.types import datetime as times


def _lenient(base: type[Any]) -> type[Loader]:
    class Lenient(base):  # type: ignore[misc] # the loaders of one family, subclassed alike
        def load(self, data: Buffer) -> Any:
            try:
                return super().load(data)
            except (psycopg.DataError, ValueError, OverflowError):
                # infinity, years before 1 and after 9999, 24:00
                return bytes(data).decode()

    Lenient.__name__ = f"Lenient{base.__name__}"
    return Lenient


LOADERS = {
    "date": _lenient(times.DateLoader),
    "time": _lenient(times.TimeLoader),
    "timetz": _lenient(times.TimetzLoader),
    "timestamp": _lenient(times.TimestampLoader),
    "timestamptz": _lenient(times.TimestamptzLoader),
    "interval": _lenient(times.IntervalLoader),
}


def load_leniently(connection: psycopg.Connection[Any]) -> None:
    """Let *connection* give dates that Python cannot hold as text instead of failing."""
    for name, loader in LOADERS.items():
        connection.adapters.register_loader(name, loader)
