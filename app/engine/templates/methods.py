"""The methods that templates may call on data, and what each of them is charged for.

Whatever is not listed does not exist for a template: new methods of new Python versions, codecs,
``translate`` and everything that changes data stay out by themselves.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sized
from typing import Any

from jinja2 import Undefined
from jinja2.runtime import LoopContext, Macro
from jinja2.utils import Namespace

from app.engine.templates.budget import MAX_OPERAND, TEXT_BYTES, Meter, compared
from app.engine.templates.formats import date_format, replaced
from app.errors import TemplateError

_TEXT = frozenset(
    {
        "capitalize",
        "casefold",
        "center",
        "count",
        "encode",
        "endswith",
        "expandtabs",
        "find",
        "format",
        "format_map",
        "index",
        "isalnum",
        "isalpha",
        "isascii",
        "isdecimal",
        "isdigit",
        "isidentifier",
        "islower",
        "isnumeric",
        "isprintable",
        "isspace",
        "istitle",
        "isupper",
        "join",
        "ljust",
        "lower",
        "lstrip",
        "partition",
        "removeprefix",
        "removesuffix",
        "replace",
        "rfind",
        "rindex",
        "rjust",
        "rpartition",
        "rsplit",
        "rstrip",
        "split",
        "splitlines",
        "startswith",
        "strip",
        "swapcase",
        "title",
        "upper",
        "zfill",
    }
)
_DATE = frozenset(
    {
        "year",
        "month",
        "day",
        "hour",
        "minute",
        "second",
        "microsecond",
        "weekday",
        "isoweekday",
        "isocalendar",
        "isoformat",
        "toordinal",
        "date",
        "time",
        "timestamp",
        "strftime",
        "replace",
    }
)
_LISTED: tuple[tuple[Any, frozenset[str]], ...] = (
    (str, _TEXT),
    (Mapping, frozenset({"get", "items", "keys", "values", "copy"})),
    ((list, tuple), frozenset({"count", "index", "copy", "grouper", "list"})),
    (range, frozenset({"count", "index", "start", "stop", "step"})),
    (bool, frozenset()),
    (int, frozenset({"bit_length", "bit_count", "as_integer_ratio", "real", "imag"})),
    (float, frozenset({"is_integer", "as_integer_ratio", "real", "imag"})),
    (bytes, frozenset({"decode", "hex"})),
    ((dt.date, dt.time), _DATE),
    (dt.timedelta, frozenset({"days", "seconds", "microseconds", "total_seconds"})),
    (LoopContext, frozenset(name for name in dir(LoopContext) if not name.startswith("_"))),
    (Macro, frozenset({"name", "arguments", "catch_kwargs", "catch_varargs", "caller"})),
)
#: Encodings whose work and result grow with the text and no faster.
_ENCODINGS = frozenset({"utf-8", "utf8", "ascii", "latin-1", "latin1", "utf-16", "utf-32"})
_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e"
_SPACES = " \t" + _BREAKS + "\x1f"


def is_listed(obj: Any, name: str, value: Any) -> bool:
    """Whether templates may read the attribute *name* of *obj*."""
    if isinstance(obj, Undefined | Namespace):
        return True
    for kind, names in _LISTED:
        if isinstance(obj, kind):
            return name in names
    return not callable(value)


def check_call(owner: Any, name: str, args: tuple[Any, ...], named: Any, meter: Meter) -> None:
    """Pay for calling the method *name* of *owner*; raises ``TemplateError`` if it makes too much."""
    if isinstance(owner, str):
        _check_text(owner, name, args, named, meter)
    elif isinstance(owner, bytes):
        _check_encoding(args, named)
        meter.make(5 * len(owner))
    elif isinstance(owner, Mapping):
        for arg in args[:1]:
            check_key(arg)
        if name in {"copy", "items", "values", "keys"}:
            meter.spend(len(owner) >> 3)
    elif isinstance(owner, list | tuple):
        compared(owner, meter)
        if name == "copy":
            meter.make(8 * len(owner))
    elif isinstance(owner, dt.date | dt.time) and name == "strftime":
        for arg in (*args, *named.values()):
            date_format(str(arg))


def check_key(key: Any) -> None:
    """Raises ``TemplateError`` for a key whose hash could take for ever."""
    if key is not None and not isinstance(key, str | int | float | Undefined):
        raise TemplateError("a key is a text or a number")


def _check_text(
    text: str, name: str, args: tuple[Any, ...], named: Mapping[str, Any], meter: Meter
) -> None:
    meter.spend(len(text) >> 8)
    given = (*args, *named.values())
    match name:
        case "center" | "ljust" | "rjust" | "zfill":
            _check_size(_widest(given), name)
        case "expandtabs":
            _check_size(len(text) + _widest(given or (8,)) * text.count("\t"), name)
        case "replace" if len(args) > 1:
            replaced(text, str(args[0]), str(args[1]), meter, *args[2:3])
        case "split" | "rsplit":
            separator = given[0] if given else None
            _check_search(text, given, meter, backwards=name == "rsplit")
            _make_pieces(text, [separator] if isinstance(separator, str) else _SPACES, meter)
        case "splitlines":
            _make_pieces(text, _BREAKS, meter)
        case "strip" | "lstrip" | "rstrip" | "rfind" | "rindex" | "rpartition":
            _check_search(text, given, meter, backwards=True)
        case "find" | "index" | "count" | "partition":
            _check_search(text, given, meter, backwards=False)
        case "startswith" | "endswith" | "removeprefix" | "removesuffix":
            for arg in given:
                compared(arg, meter)
        case "encode":
            _check_encoding(args, named)
            meter.make(4 * len(text))
        case _:
            pass  # as much work as there is text


def _widest(given: tuple[Any, ...]) -> int:
    return max((abs(arg) for arg in given if isinstance(arg, int)), default=0)


def _check_size(size: int, name: str) -> None:
    if size > MAX_OPERAND:
        raise TemplateError(f"a template may not make texts as long as this {name!r} would")


def _check_search(text: str, given: tuple[Any, ...], meter: Meter, *, backwards: bool) -> None:
    """Searching backwards compares every character with every other one at worst."""
    longest = max((len(arg) for arg in given if isinstance(arg, Sized)), default=0)
    meter.spend(len(text) * (longest if backwards else min(longest, 100)) >> 9)


def _make_pieces(text: str, separators: Any, meter: Meter) -> None:
    pieces = sum(text.count(separator) for separator in separators if separator)
    if not text.isascii() and len(separators) > 1:
        pieces = len(text) // 2  # Unicode knows further spaces and breaks
    meter.spend(pieces >> 2)
    meter.make(pieces * (TEXT_BYTES + 8) + len(text))


def _check_encoding(args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    for arg in (*args[:1], *(value for key, value in named.items() if key == "encoding")):
        if str(arg).lower().replace("_", "-") not in _ENCODINGS:
            raise TemplateError(f"the encoding {arg!r} is not one of {sorted(_ENCODINGS)}")
