"""The filters and tests of templates, each of them paid for.

Only what is listed here exists. Jinja's ``center``, ``indent``, ``wordwrap``, ``xmlattr``, ``urlize``
and ``pprint`` make text of any width or search it with slow expressions; ``random`` is not the same
twice.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any

from jinja2 import Undefined, pass_context
from jinja2 import filters as stock
from jinja2.runtime import Context
from jinja2.tests import TESTS
from jinja2.utils import _PassArg

from app.engine.templates import formats
from app.engine.templates.budget import (
    MAX_BITS,
    MAX_OPERAND,
    MAX_WORK,
    Meter,
    compared,
    counted,
    listed,
    weigh,
)
from app.errors import TemplateError

Filter = Callable[..., Any]

#: Names that templates cannot write: what loops, macros, comparisons and ``~`` are compiled to.
CHARGE, JOINED, COMPARED, SLICED, KEY = "<charge>", "<joined>", "<compared>", "<sliced>", "<key>"

_MAX_DOTS = 50
_WORD = re.compile(r"\w+")


def _meter(context: Context) -> Meter:
    return context  # type: ignore[return-value]  # each rendering of the sandbox is a meter


def _with_context(filter_: Filter) -> Filter:
    """*filter_* with the context as its first argument, whatever Jinja's filter wants there."""
    match _PassArg.from_obj(filter_):
        case _PassArg.context:
            return filter_
        case _PassArg.eval_context:
            return lambda context, *args, **kwargs: filter_(context.eval_ctx, *args, **kwargs)
        case _PassArg.environment:
            return lambda context, *args, **kwargs: filter_(context.environment, *args, **kwargs)
        case _:
            return lambda _, *args, **kwargs: filter_(*args, **kwargs)


def _paid(filter_: Filter, pay: Callable[[Any, Meter], Any]) -> Filter:
    """*filter_* with its value handed through *pay* first, and the text it makes counted."""
    call = _with_context(filter_)

    @pass_context
    def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        if args or kwargs:
            _check_attributes(args, kwargs)
        if isinstance(value, Iterator):
            # Thousands of filters waiting for each other overflow the stack of the process.
            value = listed(value, meter)
        if args or kwargs:
            _pay_for_paths(value, args, kwargs, meter)
        result = call(context, pay(value, meter), *args, **kwargs)
        return meter.text(result) if type(result) is str else result

    return run


def _check_attributes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """A path of a thousand names is followed for each item."""
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, str) and arg.count(".") > _MAX_DOTS and len(arg) > 100:
            raise TemplateError("a text given to a filter has too many dots to be a path")


def _pay_for_paths(
    value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], meter: Meter
) -> None:
    """Each name of a path is looked up in each item, and so is each name of a filter or test."""
    if isinstance(value, Sized) and not isinstance(value, str):
        names = sum(1 + arg.count(".") for arg in args if isinstance(arg, str))
        path = str(kwargs.get("attribute", ""))
        meter.spend(len(value) * (4 * names + (6 * (1 + path.count(".")) if path else 0)))


def _as_is(value: Any, meter: Meter) -> Any:
    """For filters that look at one end of a value, or only ask how long it is."""
    if isinstance(value, str):
        meter.spend(4 + (len(value) >> 9))
    return value


def _as_text(value: Any, meter: Meter) -> Any:
    """For filters that turn text into text; containers are JSON for them."""
    if isinstance(value, str):
        meter.spend(6 + (len(value) >> 7))
        return value
    return formats.written(value, meter)


def _each(value: Any, meter: Meter) -> Any:
    """For filters that look at each item."""
    if isinstance(value, Iterator):
        return counted(value, meter)
    if isinstance(value, str):
        return listed(value, meter)
    if isinstance(value, Sized):
        meter.spend(1 + (len(value) >> 1))
        meter.make(8 * len(value))
    return value


def _ordered(value: Any, meter: Meter) -> Any:
    """For filters that compare items with each other, or keep them by their hash."""
    if isinstance(value, Iterator | str):
        value = listed(value, meter)
    if isinstance(value, Sized):
        nodes = weigh(value, meter, text=False).nodes
        meter.spend(nodes * len(value).bit_length() >> 3)
        meter.make(16 * len(value))
    return value


def _grouped(value: Any, meter: Meter) -> Any:
    """For the filter that makes a group of each value it finds, at worst of each item."""
    value = _ordered(value, meter)
    if isinstance(value, Sized):
        meter.spend(24 * len(value))
    return value


# ---------------------------------------------------------------------- our own
@pass_context
def _charge(context: Context, work: int, text: int = 0) -> bool:
    """True, after one turn of a loop or one call of a macro is paid for."""
    meter = _meter(context)
    meter.spent += work if work > 0 else 1
    if meter.spent > MAX_WORK:
        meter.spend(0)
    if text > 0:
        meter.make(text)
    return True


@pass_context
def _compared(context: Context, value: Any) -> Any:
    return compared(value, _meter(context))


@pass_context
def _sliced(context: Context, value: Any, start: Any, stop: Any, step: Any) -> Any:
    meter, part = _meter(context), slice(start, stop, step)
    if isinstance(value, Undefined):
        return value
    if isinstance(value, Sized):
        size = len(range(*part.indices(len(value))))
        meter.spend(size >> 7)
        meter.make(4 * size if isinstance(value, str) else 8 * size)
    return value[part]


def _key(value: Any) -> Any:
    """A key of a mapping literal, as JSON has them: text or a number."""
    if value is None or isinstance(value, str | int | float):
        return value
    raise TemplateError("a key of a mapping is a text or a number")


@pass_context
def _join(context: Context, values: Any, separator: Any = "", attribute: Any = None) -> str:
    meter = _meter(context)
    if isinstance(values, str):
        values = listed(values, meter)
    if attribute is not None:
        _check_attributes((str(attribute),), {})
        values = map(stock.make_attrgetter(context.environment, attribute), values)
    return formats.joined(counted(values, meter), formats.written(separator, meter), meter)


@pass_context
def _concat(context: Context, values: Any) -> str:
    return formats.joined(values, "", _meter(context))


@pass_context
def _replace(context: Context, value: Any, old: Any, new: Any, count: int | None = None) -> str:
    meter = _meter(context)
    text, before, after = (formats.written(part, meter) for part in (value, old, new))
    return formats.replaced(text, before, after, meter, -1 if count is None else count)


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> str:
    if args and kwargs:
        raise TemplateError("format takes values or named values, not both")
    meter = _meter(context)
    return formats.percent(formats.written(value, meter), kwargs or args, meter)


@pass_context
def _written(context: Context, value: Any) -> str:
    return formats.written(value, _meter(context))


@pass_context
def _to_json(context: Context, value: Any, indent: int | None = None) -> str:
    return formats.to_json(value, _meter(context), indent)


@pass_context
def _from_json(context: Context, value: Any) -> Any:
    meter = _meter(context)
    return formats.from_json(formats.written(value, meter), meter)


@pass_context
def _split(context: Context, value: Any, separator: str | None = None) -> Any:
    text = formats.written(value, _meter(context))
    return context.environment.call(context, text.split, separator)  # type: ignore[attr-defined]  # it is our sandbox


@pass_context
def _list(context: Context, value: Any) -> list[Any]:
    return listed(value, _meter(context))


@pass_context
def _escape(context: Context, value: Any) -> str:
    meter = _meter(context)
    text = formats.replaced(formats.written(value, meter), "&", "&amp;", meter)
    for char, name in (("<", "&lt;"), (">", "&gt;"), ("'", "&#39;"), ('"', "&#34;")):
        text = formats.replaced(text, char, name, meter)
    return text


@pass_context
def _url_encode(context: Context, value: Any) -> str:
    meter = _meter(context)
    size = weigh(value, meter).characters
    meter.spend(size >> 1)
    meter.make(12 * size)
    return stock.do_urlencode(value)


@pass_context
def _strip_tags(context: Context, value: Any) -> str:
    meter = _meter(context)
    text = formats.written(value, meter)
    # It looks for the end of every comment and every tag: at worst from each character on.
    meter.spend(len(text) * text.count("<") >> 7)
    return stock.do_striptags(text)


def _count_words(text: str) -> int:
    return sum(1 for _ in _WORD.finditer(text))


def _int(value: Any, default: int = 0, base: int = 10) -> int:
    # Whoever asks for a number has said what is none: the default, also of a missing name.
    number = default if isinstance(value, Undefined) else stock.do_int(value, default, base)
    if number.bit_length() > MAX_BITS:
        raise TemplateError(f"a number may not have more than {MAX_BITS} bits")
    return number


def _float(value: Any, default: float = 0.0) -> float:
    return default if isinstance(value, Undefined) else stock.do_float(value, default)


@pass_context
def _sum(context: Context, values: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, int | float):
        raise TemplateError("sum adds numbers; join lists with '+'")
    return stock.sync_do_sum(context.environment, values, attribute, start)


def _narrow(filter_: Filter, most: int) -> Filter:
    """*filter_*, refusing numbers above *most*."""

    def limited(value: Any, *args: Any, **kwargs: Any) -> Any:
        for arg in (*args, *kwargs.values()):
            if isinstance(arg, int) and abs(arg) > most:
                raise TemplateError(f"{arg} is too large for this filter; the limit is {most}")
        return filter_(value, *args, **kwargs)

    return limited


def _get(value: Any, key: Any, default: Any = None) -> Any:
    return value.get(_key(key), default) if isinstance(value, Mapping) else default


def _known(names: str) -> dict[str, Filter]:
    return {name: stock.FILTERS[name] for name in names.split()}


def all_filters() -> dict[str, Filter]:
    """Every filter by its name."""
    own: dict[str, Filter] = {
        CHARGE: _charge,
        JOINED: _concat,
        COMPARED: _compared,
        SLICED: _sliced,
        KEY: _key,
        "join": _join,
        "replace": _replace,
        "format": _format,
        "tojson": _to_json,
        "fromjson": _from_json,
        "split": _split,
        "list": _list,
        "urlencode": _url_encode,
        "striptags": _strip_tags,
        "get": _get,
        "len": len,
    }
    own |= dict.fromkeys(("string", "safe"), _written)
    own |= dict.fromkeys(("escape", "e", "forceescape"), _escape)
    plain = _known("d default attr abs")
    short = _known("length count first last filesizeformat")
    short |= {"int": _int, "float": _float}
    text = _known("capitalize lower title trim truncate upper") | {
        "wordcount": _count_words,
        "b64encode": lambda value: base64.b64encode(value.encode()).decode(),
        "b64decode": lambda value: base64.b64decode(value).decode(),
    }
    each = _known("items map reject rejectattr reverse select selectattr") | {
        "sum": _sum,
        "keys": list,
        "values": lambda value: list(value.values()),
        "batch": _narrow(stock.do_batch, MAX_OPERAND),
        "slice": _narrow(stock.sync_do_slice, MAX_OPERAND),
    }
    ordered = _known("dictsort max min sort unique")
    grouped = _known("groupby")
    short["round"] = _narrow(stock.do_round, 100)
    charged = (
        (short, _as_is),
        (text, _as_text),
        (each, _each),
        (ordered, _ordered),
        (grouped, _grouped),
    )
    for filters, pay in charged:
        own |= {name: _paid(filter_, pay) for name, filter_ in filters.items()}
    return own | plain


def all_tests() -> dict[str, Filter]:
    """Every test by its name; those that compare are paid for."""
    cheap = {
        "sameas",
        "defined",
        "undefined",
        "none",
        "boolean",
        "false",
        "true",
        "integer",
        "float",
    }
    cheap |= {"number", "string", "mapping", "iterable", "sequence", "callable", "filter", "test"}
    tests: dict[str, Any] = dict(TESTS)
    tests.pop("escaped")
    return {name: test if name in cheap else _paid_test(test) for name, test in tests.items()}


def _paid_test(test: Filter) -> Filter:
    call = _with_context(test)

    @pass_context
    def run(context: Context, *args: Any) -> Any:
        meter = _meter(context)
        return call(context, *(compared(arg, meter) for arg in args))

    return run
