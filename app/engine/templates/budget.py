"""What one rendering may cost, counted in work and in bytes and never by a clock.

The same template with the same data stops at the same place on every machine, so a decision that is
made again ends as it did before.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sized
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from app.errors import TemplateError

#: Work of one rendering. One unit is about what reading a name or comparing two words takes.
MAX_WORK = 1_000_000
CALL_WORK = 8
#: Bytes of text and lists that one rendering makes on its way, and bytes of the text it gives.
MAX_MADE = 33_554_432
MAX_OUTPUT = 16_777_216
#: The longest text or list that repetition, padding or an unknown source may give.
MAX_OPERAND = 1_000_000
#: The largest whole number.
MAX_BITS = 4096

# What CPython takes, rounded up: an empty list or mapping, a mapping's table, a text's head.
LIST_BYTES = 72
MAPPING_BYTES = 250
TEXT_BYTES = 64
_SLICE = 65_536


class Meter:
    """Counts what was done and made so far. Raises ``TemplateError`` above the limits."""

    spent = 0
    made = 0

    def spend(self, work: int = 1) -> None:
        """Count *work* done: turns of loops, calls, items looked at."""
        self.spent += work
        if self.spent > MAX_WORK:
            raise TemplateError(
                "it does too much work: it loops or calls itself too often, or over too much data"
                " (do it in a python step)"
            )

    def make(self, size: int) -> None:
        """Count *size* bytes that are about to be made, or were."""
        self.made += size
        if self.made > MAX_MADE:
            raise TemplateError(
                f"it makes more than {MAX_MADE} bytes of text and lists on its way"
                " (do it in a python step)"
            )

    def text(self, text: str) -> str:
        """*text*, counted."""
        self.made += text.__sizeof__()
        if self.made > MAX_MADE:
            self.make(0)
        return text


class Weight(NamedTuple):
    """What walking over a value finds: its parts, and its bytes as JSON text and as a copy."""

    nodes: int
    characters: int
    copied: int


def weigh(value: Any, meter: Meter, *, text: bool = True) -> Weight:
    """Walk over *value*. A list in which one list stands a thousand times counts it a thousand times.

    Raises ``TemplateError`` where it would make more than ``MAX_OUTPUT`` characters (unless *text*
    does not matter) or where walking is too much work.
    """
    nodes = characters = copied = unpaid = 0
    todo = [value]
    while todo:
        part = todo.pop()
        nodes += 1
        kind = type(part)
        if kind is str:
            characters += (_escaped(part) if text else len(part) >> 6) + 2
        elif kind is int:
            characters += 5 + part.bit_length() // 3
        elif part is None or kind is float or kind is bool:
            characters += 24
        elif isinstance(part, Mapping):
            todo.extend(part)
            todo.extend(part.values())
            characters += 2 + 4 * len(part)
            copied += MAPPING_BYTES + 40 * len(part)
            unpaid += 8 + len(part)
        elif isinstance(part, list | tuple | set | frozenset):
            todo.extend(part)
            characters += 2 + 2 * len(part)
            copied += LIST_BYTES + 8 * len(part)
            unpaid += 6 + len(part)
        elif isinstance(part, bytes):
            characters += len(part)
        elif isinstance(part, int):
            characters += 5 + part.bit_length() // 3
        else:
            characters += 24
        if unpaid > 1000:
            meter.spend(unpaid)
            unpaid = 0
        if characters > MAX_OUTPUT:
            raise TemplateError(f"it produces more than {MAX_OUTPUT} characters")
    meter.spend(unpaid)
    return Weight(nodes, characters, copied)


def _escaped(text: str) -> int:
    """The characters of *text* as JSON, found without making more than a slice of it."""
    if len(text) <= _SLICE:
        return len(encode_basestring_ascii(text))
    return sum(
        len(encode_basestring_ascii(text[start : start + _SLICE]))
        for start in range(0, len(text), _SLICE)
    )


def width(text: str) -> int:
    """The bytes that each character of *text* takes: one wide character widens all of them."""
    if text.isascii():
        return 1
    highest = ord(max(text)) if len(text) <= 64 else 0
    if highest:
        return 1 if highest < 256 else 2 if highest < 65_536 else 4
    return min((text.__sizeof__() - 56) // (len(text) + 1), 4)


def compared(value: Any, meter: Meter) -> Any:
    """*value*, paid for as something that is compared, hashed or searched."""
    kind = type(value)
    if kind is str:
        if len(value) > 512:
            meter.spend(len(value) >> 9)
    elif kind is int or kind is bool or kind is float or value is None:
        pass
    elif isinstance(value, Mapping | list | tuple | set | frozenset):
        meter.spend(weigh(value, meter, text=False).nodes >> 2)
    elif isinstance(value, Sized):
        meter.spend(len(value) >> 2)
    elif isinstance(value, Iterator):
        return counted(value, meter)
    return value


def counted(values: Iterable[Any], meter: Meter) -> Iterator[Any]:
    """*values*, each of them paid for when it is taken."""
    for value in values:
        meter.spend()
        meter.make(16)
        yield value


def listed(values: Iterable[Any], meter: Meter) -> list[Any]:
    """*values* as a list, paid for before it is made."""
    if isinstance(values, str):
        meter.spend(len(values) >> 1)
        meter.make(len(values) * (16 if width(values) == 1 else 8 + TEXT_BYTES + 16))
        return list(values)
    if isinstance(values, Sized):
        meter.spend(len(values) >> 2)
        meter.make(8 * len(values))
        return list(values)
    return list(counted(values, meter))


def is_moment(value: Any) -> bool:
    """Whether *value* is a date, a time or a span of time."""
    return isinstance(value, dt.date | dt.time | dt.timedelta)


def moment(value: Any) -> Any:
    """A date or a time as ISO text; a span of time as seconds."""
    return value.total_seconds() if isinstance(value, dt.timedelta) else value.isoformat()
