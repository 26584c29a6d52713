"""The sandbox that templates run in: what they may reach, and how much work and text they may make.

Jinja's own sandbox stops attribute escapes and nothing else: ``'a'.zfill(10**9)``, ``x ~ x`` forty
times, a macro that calls itself twice or ``[x, x]`` nested forty deep allocate or run for ever. Here
each operation that makes much from little is measured before it runs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import BuiltinMethodType
from typing import Any, cast

from jinja2 import ChainableUndefined, Undefined, nodes, pass_context
from jinja2 import filters as stock
from jinja2.environment import Template
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from jinja2.visitor import NodeTransformer

from app.errors import TemplateError

#: Characters one template may produce, and the largest number or text its operators may make.
MAX_OUTPUT = 16_777_216
MAX_OPERAND = 1_000_000
#: Turns of loops in one rendering; a call counts as several.
MAX_WORK = 1_000_000
CALL_WORK = 5
MAX_BITS = 4096

_WIDE_FORMAT = re.compile(r":[^{}]*(\d{5}|\{)")
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\d{5}|\*)")


class Result(dict[str, Any]):
    """A step's result: ``.data``, ``.result(s)`` and ``.context`` mean itself unless it has such keys."""

    ALIASES = frozenset({"data", "result", "results", "context"})


class Rendering(Context):
    """One rendering: names come from its scope, then from Jinja's functions; work is counted."""

    spent = 0

    def resolve_or_missing(self, key: str) -> Any:
        found = super().resolve_or_missing(key)
        return self.environment.globals.get(key, missing) if found is missing else found

    def spend(self, work: int = 1) -> None:
        """Count the turn of a loop, or a call. Raises ``TemplateError`` above the limit."""
        self.spent += work
        if self.spent > MAX_WORK:
            raise TemplateError("it loops or calls itself too often")


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with keys before methods and with limits."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})
    context_class = Rendering

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Keys before attributes: in data, ``items`` is a key far more often than a method."""
        if isinstance(obj, Mapping):
            if attribute in obj:
                return obj[attribute]
            if isinstance(obj, Result) and attribute in Result.ALIASES:
                return obj
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Result) and isinstance(argument, str):
            return self.getattr(obj, argument)
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if _too_large(operator, left, right):
            raise TemplateError(
                f"a template may not compute values as large as this '{operator}' would"
            )
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        cast("Rendering", context).spend(CALL_WORK)
        method = getattr(called, "__wrapped__", called)  # str.format arrives wrapped
        if isinstance(method, BuiltinMethodType) and isinstance(method.__self__, str):
            _check_method(method.__self__, method.__name__, args)
            if method.__name__ == "join":
                return joined(args[0], method.__self__)
        return super().call(context, called, *args, **kwargs)

    def template(self, tree: nodes.Template) -> Template:
        """Compile *tree* with its loops counted and its ``~`` measured."""
        counted = _Measured().visit(tree)
        counted.set_environment(self)
        return self.from_string(counted)


class _Measured(NodeTransformer):
    """Loops go through ``_counted``, and ``~`` through ``_joined``."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 (Jinja calls it by this name)
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "_counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 (the same)
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined")


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


# ---------------------------------------------------------------------- what is too much
def _too_large(operator: str, left: Any, right: Any) -> bool:  # noqa: PLR0911 (a table)
    match operator, left, right:
        case "**", int(), int():  # floats overflow by themselves
            return abs(right) > 1 and left.bit_length() * abs(right) > MAX_BITS
        case "*", (str() | bytes() | list() | tuple()), int():
            return _repeated(left, right) > MAX_OPERAND
        case "*", int(), (str() | bytes() | list() | tuple()):
            return _repeated(right, left) > MAX_OPERAND
        case "*", int(), int():
            return left.bit_length() + right.bit_length() > MAX_BITS
        case "%", str(), _:
            return bool(_WIDE_PERCENT.search(left))
        case "+", (str() | list() | tuple()), (str() | list() | tuple()):
            return len(left) + len(right) > MAX_OUTPUT
        case _:
            return False


def _repeated(many: Any, count: int) -> int:
    return (len(many) if isinstance(many, str | bytes) else _weight(many, {}, text=False)) * count


def _check_method(text: str, name: str, args: tuple[Any, ...]) -> None:
    """Refuse the methods of text that would make very much of it."""
    width = max((abs(arg) for arg in args if isinstance(arg, int)), default=0)
    match name:
        case "center" | "ljust" | "rjust" | "zfill":
            size = width
        case "expandtabs":
            size = width * text.count("\t")
        case "replace" if len(args) > 1:
            size = _replaced_size(text, str(args[0]), str(args[1]))
        case "format" | "format_map" if _WIDE_FORMAT.search(text):
            size = MAX_OUTPUT + 1
        case "translate":
            size = len(text) * max((len(str(value)) for value in _values(args)), default=0)
        case _:
            return
    if size > (MAX_OUTPUT if name in {"replace", "format", "format_map"} else MAX_OPERAND):
        raise TemplateError(f"a template may not make texts as long as this {name!r} would")


def _values(args: tuple[Any, ...]) -> Iterable[Any]:
    return args[0].values() if args and isinstance(args[0], Mapping) else ()


def _replaced_size(text: str, old: str, new: str) -> int:
    return len(text) + (text.count(old) if old else len(text) + 1) * len(new)


def weigh(value: Any, *, text: bool = True) -> None:
    """Raises ``TemplateError`` where *value* has more than ``MAX_OUTPUT`` items (and characters).

    A list in which one list appears a thousand times counts that list a thousand times.
    """
    if _weight(value, {}, text=text) > MAX_OUTPUT:
        what = "characters" if text else "items"
        raise TemplateError(f"it produces more than {MAX_OUTPUT} {what}")


def _weight(value: Any, known: dict[int, tuple[int, Any]], *, text: bool = True) -> int:
    """How much *value* is when written out. *known* holds what was measured, and keeps it alive."""
    if isinstance(value, str | bytes):
        return len(value) + 1 if text else 1
    if isinstance(value, Mapping):
        parts: Iterable[Any] = (part for pair in value.items() for part in pair)
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    else:
        return 1
    if id(value) not in known:
        total = 1 + sum(_weight(part, known, text=text) for part in parts)
        known[id(value)] = (total, value)
    return known[id(value)][0]


def bounded(values: Iterable[Any]) -> Iterator[Any]:
    """*values*, at most ``MAX_OPERAND`` of them; raises ``TemplateError`` at the next one."""
    for number, value in enumerate(values):
        if number >= MAX_OPERAND:
            raise TemplateError(f"a template may not produce more than {MAX_OPERAND} items")
        yield value


# ---------------------------------------------------------------------- filters
@pass_context
def _counted(context: Context, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        cast("Rendering", context).spend()
        yield value


def joined(values: Iterable[Any], separator: Any = "") -> str:
    """The texts of *values* with *separator* between them. Raises ``TemplateError`` above the limit."""
    parts, size = [], 0
    for value in bounded(values):
        part = written(value)
        size += len(part) + len(str(separator))
        if size > MAX_OUTPUT:
            raise TemplateError(f"it produces more than {MAX_OUTPUT} characters")
        parts.append(part)
    return str(separator).join(parts)


@pass_context
def _join(
    context: Context, values: Iterable[Any], separator: Any = "", attribute: Any = None
) -> str:
    if attribute is not None:
        values = map(stock.make_attrgetter(context.environment, attribute), values)
    return joined(values, separator)


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> str:
    text, before, after = written(value), str(old), str(new)
    if _replaced_size(text, before, after) > MAX_OUTPUT:
        raise TemplateError("a template may not make texts as long as this 'replace' would")
    return text.replace(before, after, -1 if count is None else count)


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    text = str(value)
    if _too_large("%", text, args):
        raise TemplateError("a template may not make texts as long as this 'format' would")
    return text % (kwargs or args)


def _narrow(filter_: Callable[..., Any], most: int) -> Callable[..., Any]:
    """*filter_*, refusing numbers above *most*."""

    def limited(value: Any, *args: Any, **kwargs: Any) -> Any:
        for arg in (*args, *kwargs.values()):
            if isinstance(arg, int) and abs(arg) > most:
                raise TemplateError(f"{arg} is too large for this filter; the limit is {most}")
        return filter_(value, *args, **kwargs)

    return limited


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text that is safe inside single-quoted SQL and inside HTML, as Jinja's own filter gives."""
    if isinstance(value, Undefined):
        return "null"
    weigh(value)
    spaces = None if indent is None else min(indent, 16)
    text = json.dumps(value, default=_json_default, indent=spaces)
    for char, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027")):
        text = text.replace(char, escape)
    return text


def written(value: Any) -> str:
    """How a value reads inside text: containers as JSON, everything else as Jinja prints it."""
    if isinstance(value, Mapping | list | tuple):
        weigh(value)
        return json.dumps(value, default=_json_default)
    return value if isinstance(value, str) else str(value)


def _json_default(value: Any) -> Any:
    if isinstance(value, Undefined):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _printed(value: Any) -> Any:
    """What ``{{ … }}`` inside text prints."""
    return written(value) if isinstance(value, Mapping | list | tuple) else value


def sandbox() -> Sandbox:
    """The environment of all templates."""
    env = Sandbox(undefined=ChainableUndefined, autoescape=False, finalize=_printed)
    for name in ("lipsum", "cycler", "joiner"):
        env.globals.pop(name)
    # Each of these makes text of any width from a number, or is not the same twice.
    for name in ("center", "indent", "wordwrap", "xmlattr", "urlize", "pprint", "random"):
        env.filters.pop(name)
    env.filters.update(
        _counted=_counted,
        _joined=joined,
        join=_join,
        replace=_replace,
        format=_format,
        batch=_narrow(stock.do_batch, MAX_OPERAND),
        slice=_narrow(stock.sync_do_slice, MAX_OPERAND),
        round=_narrow(stock.do_round, 100),
        string=written,
        b64encode=lambda value: base64.b64encode(written(value).encode()).decode(),
        b64decode=lambda value: base64.b64decode(written(value)).decode(),
        fromjson=json.loads,
        tojson=to_json,
        keys=list,
        values=lambda value: list(value.values()),
        get=lambda value, key, default=None: (
            value.get(key, default) if isinstance(value, Mapping) else default
        ),
        split=lambda value, separator=None: written(value).split(separator),
        len=len,
    )
    return env
