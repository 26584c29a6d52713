"""Text from values: how a value reads inside text, as JSON, and in the two kinds of format."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, ValuesView
from typing import TYPE_CHECKING, Any

from jinja2 import Undefined
from jinja2.sandbox import SandboxedFormatter

from app.engine.templates.budget import MAX_OUTPUT, Meter, is_moment, listed, moment, weigh, width
from app.errors import TemplateError

if TYPE_CHECKING:
    from jinja2.environment import Environment

MAX_WIDTH = 9999

#: A conversion of ``%`` formats; a lone ``%`` is what Python would read in some other way.
_CONVERSION = re.compile(
    r"%(?:\((?P<key>[^()%]*)\))?[-+ #0]*(?P<width>\*|\d*)(?:\.(?P<digits>\*|\d*))?[hlL]?(?P<kind>[a-zA-Z%])|%"
)
_LONG_NUMBER = re.compile(r"\d{5}")
_MOMENT = re.compile(r"%(?![a-zA-Z%])")
_UNSAFE = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027"))


def written(value: Any, meter: Meter) -> str:
    """How a value reads inside text: containers as JSON, everything else as Jinja prints it."""
    if isinstance(value, str | int | float | Undefined) or value is None:
        return str(value)
    if isinstance(value, Mapping | list | tuple):
        return dumped(value, meter)
    if is_moment(value):
        return str(moment(value))
    if isinstance(value, Iterator | range | set | frozenset | ValuesView):
        return dumped(listed(value, meter), meter)
    refuse_machinery(value)
    return str(value)


def refuse_machinery(value: Any) -> None:
    """Raises ``TemplateError`` for a function or a part of the template."""
    if callable(value) or type(value).__module__.startswith("jinja2."):
        raise TemplateError("it gives a function or a part of the template, not data")


def dumped(value: Any, meter: Meter, indent: int | None = None) -> str:
    """*value* as JSON text."""
    meter.make(weigh(value, meter).characters)
    if indent is None:
        return json.dumps(value, default=_encodable)
    parts, size = [], 0
    # Deep and indented: mostly spaces, which no walk over the value foresees.
    for part in json.JSONEncoder(default=_encodable, indent=indent).iterencode(value):
        size += len(part)
        meter.spend(2)
        if size > MAX_OUTPUT:
            raise too_long()
        parts.append(part)
    return "".join(parts)


def to_json(value: Any, meter: Meter, indent: int | None = None) -> str:
    """JSON text that is safe inside single-quoted SQL and inside HTML, as Jinja's own filter gives."""
    if isinstance(value, Undefined):
        return "null"
    if isinstance(value, Iterator | range):
        value = listed(value, meter)
    text = dumped(value, meter, None if indent is None else max(0, min(indent, 16)))
    if len(text) + 5 * sum(text.count(char) for char, _ in _UNSAFE) > MAX_OUTPUT:
        raise too_long()
    for char, escape in _UNSAFE:
        text = text.replace(char, escape)
    return text


def _encodable(value: Any) -> Any:
    if value is None or isinstance(value, Undefined):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    if is_moment(value):
        return moment(value)
    if isinstance(value, Iterable):
        raise TemplateError(f"a {type(value).__name__} is no data; '| list' makes a list of it")
    refuse_machinery(value)
    return str(value)


def from_json(text: str, meter: Meter) -> Any:
    """The data that JSON *text* stands for. Raises ``ValueError`` where it is none.

    What it will take is estimated first: ``[[],[],…]`` takes thirty times the bytes of its text.
    """
    size = (
        80 * text.count("[") + 250 * text.count("{") + 40 * text.count(",") + 30 * text.count('"')
    )
    meter.spend(size >> 7)
    meter.make(size + len(text) * width(text))
    return json.loads(text, parse_constant=_no_number)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def joined(values: Iterable[Any], separator: str, meter: Meter) -> str:
    """The texts of *values* with *separator* between them. Raises ``TemplateError`` above the limit."""
    parts, size, wide, first = [], 0, width(separator), True
    for value in values:
        part = value if type(value) is str else written(value, meter)
        size += len(part) + (0 if first else len(separator))
        if not part.isascii():
            wide = max(wide, width(part))
        if size * wide > MAX_OUTPUT:
            raise too_long()
        parts.append(part)
        first = False
    meter.make(16 * len(parts))
    return meter.text(separator.join(parts))


def replaced(text: str, old: str, new: str, meter: Meter, count: int = -1) -> str:
    """*text* with *new* for *old*. Raises ``TemplateError`` where that gets too long."""
    found = text.count(old) if old else len(text) + 1
    size = len(text) + (found if count < 0 else min(found, count)) * len(new)
    meter.spend(size >> 7)
    if size * max(width(text), width(new)) > MAX_OUTPUT:
        raise too_long()
    return meter.text(text.replace(old, new, count))


def percent(text: str, args: Any, meter: Meter) -> str:
    """``text % args``, measured before it is made. Raises ``TemplateError`` for what is too wide."""
    given = args if isinstance(args, tuple) else (args,)
    known: dict[str | None, int] = {}
    size = len(text)
    for found in _CONVERSION.finditer(text):
        meter.spend(2)
        kind, key = found["kind"], found["key"]
        if not kind:
            raise TemplateError(
                "a '%' in a format needs a letter after it; '%%' is the sign itself"
            )
        if kind == "%":
            continue
        for number in (found["width"], found["digits"]):
            if number == "*" or len(number or "") > 4:
                raise TemplateError(f"a format may not be wider than {MAX_WIDTH}")
            size += int(number or 0)
        if key not in known:
            values = (args.get(key),) if key is not None and isinstance(args, Mapping) else given
            known[key] = max((weigh(value, meter).characters for value in values), default=0)
        size += known[key]
        if size > MAX_OUTPUT:
            raise too_long()
    meter.make(size)
    return str(text % args)


class Formatter(SandboxedFormatter):
    """``str.format`` in the sandbox, each field paid for."""

    def __init__(self, env: Environment, meter: Meter) -> None:
        super().__init__(env)
        self.meter = meter

    def format_field(self, value: Any, format_spec: str) -> str:
        self.meter.spend(4)
        if _LONG_NUMBER.search(format_spec):
            raise TemplateError(f"a format may not be wider than {MAX_WIDTH}")
        if is_moment(value) and format_spec:
            return self.meter.text(format(value, date_format(format_spec)))
        if not isinstance(value, int | float):
            value = written(value, self.meter)
        return self.meter.text(format(value, format_spec))

    def convert_field(self, value: Any, conversion: Any) -> Any:
        if conversion is not None:
            value = written(value, self.meter)
            self.meter.make(12 * len(value))
        return super().convert_field(value, conversion)


def date_format(spec: str) -> str:
    """*spec* for ``strftime``. Raises ``TemplateError`` for widths, which C libraries read differently."""
    if len(spec) > 1000 or _MOMENT.search(spec):
        raise TemplateError("a format of a time is short and has a letter after each '%'")
    return spec


def too_long() -> TemplateError:
    return TemplateError(f"it produces more than {MAX_OUTPUT} characters")
