"""Copies of records with some fields changed, as ``dataclasses.replace`` makes them, but much faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # For type checkers it is the same: they look at the names and types of the fields.
    from dataclasses import replace as changed
else:

    def changed(record, /, **changes):
        """*record* with *changes*.

        Of a frozen dataclass without slots and without ``__post_init__`` only. A state is copied for
        every event; ``replace`` hands all its fields to ``__init__`` one by one: 6.7 µs for
        ``Execution`` in place of 0.7.
        """
        copy = object.__new__(type(record))
        copy.__dict__.update(record.__dict__, **changes)
        return copy


__all__ = ["changed"]
