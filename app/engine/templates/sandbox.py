"""The sandbox that templates run in: what they may reach, and how much work and text they may make.

Jinja's own sandbox stops attribute escapes and nothing else: ``'a'.zfill(10**9)``, ``x ~ x`` forty
times, a macro that calls itself twice or ``[x, x]`` nested forty deep allocate or run for ever. Here
each operation is paid for from the budget of its rendering, those that make much from little before
they run.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sized
from collections.abc import Set as AbstractSet
from types import BuiltinMethodType
from typing import Any, cast

from jinja2 import (
    ChainableUndefined,
    Environment,
    TemplateSyntaxError,
    Undefined,
    nodes,
    pass_context,
)
from jinja2.lexer import Lexer, Token, TokenStream
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, missing
from jinja2.visitor import NodeTransformer

from app.engine.templates import filters
from app.engine.templates.budget import (
    CALL_WORK,
    MAPPING_BYTES,
    MAX_BITS,
    MAX_OPERAND,
    MAX_OUTPUT,
    Meter,
    counted,
    weigh,
    width,
)
from app.engine.templates.formats import Formatter, joined, percent, refuse_machinery, written
from app.engine.templates.methods import check_call, check_key, is_listed
from app.errors import TemplateError

#: Words and signs in the template parts of one text, and characters of a text with templates in it.
MAX_TOKENS = 10_000
MAX_TEMPLATE = 2_097_152

#: The local name under which a scope says what time it is, in seconds since 1970.
NOW = "now_at"

_FORBIDDEN = (
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
    nodes.Block,
    nodes.ScopedEvalContextModifier,
)


class Result(dict[str, Any]):
    """A step's result: ``.data``, ``.result(s)`` and ``.context`` mean itself unless it has such keys."""

    ALIASES = frozenset({"data", "result", "results", "context"})


class Rendering(Meter, Context):
    """One rendering: names come from its scope, then from Jinja's functions; work is counted."""

    found: dict[str, Any] | None = None

    def resolve_or_missing(self, key: str) -> Any:
        if key in self.vars:
            return self.vars[key]
        if self.found is None:
            self.found = {}
        elif key in self.found:
            return self.found[key]
        if key in self.parent:
            # A macro asks again in each call, and a result is copied where it is looked up.
            value = self.found[key] = self.parent[key]
            return value
        return self.environment.globals.get(key, missing)


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with keys before methods and with limits."""

    intercepted_binops = frozenset({"*", "**", "%", "+", "-", "/", "//"})
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
        if isinstance(argument, str):
            if isinstance(obj, Result):
                return self.getattr(obj, argument)
        elif isinstance(obj, Mapping):
            check_key(argument)
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return super().is_safe_attribute(obj, attr, value) and is_listed(obj, attr, value)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        meter = cast("Meter", context)
        if operator == "%" and isinstance(left, str):
            return meter.text(percent(left, right, meter))
        _check_operands(operator, left, right, meter)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, complex):
            raise TemplateError(f"'{operator}' gives no real number here")
        return result

    def call(self, context: Context, called: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = cast("Meter", context)
        meter.spend(CALL_WORK + len(args) + 3 * len(kwargs))
        method = getattr(called, "__wrapped__", called)  # str.format arrives wrapped
        if isinstance(method, BuiltinMethodType):
            owner, name = method.__self__, method.__name__
            if isinstance(owner, str) and name in {"format", "format_map"}:
                values, named = ((), args[0]) if name == "format_map" else (args, kwargs)
                return meter.text(Formatter(self, meter).vformat(owner, values, named))
            if isinstance(owner, str) and name == "join":
                return joined(counted(args[0], meter), owner, meter)
            check_call(owner, name, args, kwargs, meter)
        elif called is dict or called is Namespace:
            _pay_for_copy((*args, kwargs), meter)
        result = super().call(context, called, *args, **kwargs)
        return meter.text(result) if type(result) is str else result

    def measured(self, tree: nodes.Template) -> nodes.Template:
        """*tree* with its loops, macros and comparisons counted, ready to be compiled.

        Raises ``TemplateSyntaxError`` for what templates may not hold.
        """
        for node in tree.find_all((nodes.Filter, nodes.Test)):
            assert isinstance(node, nodes.Filter | nodes.Test)
            known = self.filters if isinstance(node, nodes.Filter) else self.tests
            if node.name not in known:
                word = type(node).__name__.lower()
                raise TemplateSyntaxError(f"No {word} named {node.name!r}.", node.lineno)
        measured = cast("nodes.Template", _Measured().visit(tree))
        measured.set_environment(self)
        return measured

    @property
    def lexer(self) -> Lexer:
        return _LEXER

    def _tokenize(
        self, source: str, name: str | None, filename: str | None = None, state: str | None = None
    ) -> TokenStream:
        # Compiling takes time for each word, so there may be only so many of them.
        stream = super()._tokenize(source, name, filename, state)
        return TokenStream(_few(stream), name, filename)


def _lexer() -> Lexer:
    """Jinja's lexer, whose expression for whole numbers keeps 200 bytes for each digit it reads."""
    lexer = Lexer(Environment(autoescape=False))  # noqa: S701 (templates give data, not HTML)
    whole = re.compile(r"0[xX][\da-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|\d[\d_]*")
    fraction = re.compile(r"(?<!\.)\d[\d_]*(?:\.\d[\d_]*(?:[eE][-+]?\d+)?|[eE][-+]?\d+)")
    swapped = {"float": fraction, "integer": whole}
    for state, rules in lexer.rules.items():
        lexer.rules[state] = [
            rule._replace(pattern=swapped.get(str(rule.tokens), rule.pattern)) for rule in rules
        ]
    return lexer


_LEXER = _lexer()


def _few(stream: TokenStream) -> Iterator[Token]:
    for number, token in enumerate(stream):
        if number >= MAX_TOKENS:
            problem = f"it has more than {MAX_TOKENS} words and signs"
            raise TemplateSyntaxError(problem, token.lineno)
        yield token


# ---------------------------------------------------------------------- compiling
class _Measured(NodeTransformer):
    """Bodies that may run often begin with a charge; what compares, joins or slices pays for itself."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        if isinstance(node, _FORBIDDEN):
            word = type(node).__name__.lower()
            problem = f"templates have no {word}; each text stands for itself"
            raise TemplateSyntaxError(problem, node.lineno)
        return super().generic_visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 (Jinja calls it by this name)
        charge = _charge(node.body, node.lineno)
        # A loop with a condition looks at items that its body never sees.
        test = node.test and nodes.And(_charge([node.test], node.lineno), node.test)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(charge, lineno=node.lineno))
        if test is not None:
            assert isinstance(test, nodes.And)
            node.test = nodes.And(test.left, cast("nodes.Expr", node.test), lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Macro:  # noqa: N802 (the same)
        charge = _charge(node.body, node.lineno)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(charge, lineno=node.lineno))
        return node

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.CallBlock:  # noqa: N802 (the same)
        charge = _charge(node.body, node.lineno)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(charge, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 (the same)
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), filters.JOINED)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:  # noqa: N802 (the same)
        self.generic_visit(node)
        sides = [node.expr, *(operand.expr for operand in node.ops)]
        if sum(1 for side in sides if not _is_small(side)) < 2 and not _searches(node):
            return node  # comparing with a word takes no longer than the word
        node.expr = _compared(node.expr)
        for operand in node.ops:
            operand.expr = _compared(operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802 (the same)
        self.generic_visit(node)
        part = node.arg
        if not isinstance(part, nodes.Slice):
            return node
        none = nodes.Const(None, lineno=node.lineno)
        sizes = [part.start or none, part.stop or none, part.step or none]
        return _filtered(node.node, filters.SLICED, sizes)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Pair:  # noqa: N802 (the same)
        self.generic_visit(node)
        if not _is_small(node.key):
            node.key = _filtered(node.key, filters.KEY)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Const:  # noqa: N802 (the same)
        if isinstance(node.value, int) and node.value.bit_length() > MAX_BITS:
            problem = f"a number may not have more than {MAX_BITS} bits"
            raise TemplateSyntaxError(problem, node.lineno)
        return node


def _filtered(node: Any, name: str, args: list[Any] | None = None) -> nodes.Filter:
    return nodes.Filter(node, name, args or [], [], None, None, lineno=node.lineno)


def _compared(node: nodes.Expr) -> nodes.Expr:
    return node if _is_small(node) else _filtered(node, filters.COMPARED)


def _is_small(node: nodes.Node) -> bool:
    """Whether *node* is a word or a number, or a short list of them, as it stands in the template."""
    if isinstance(node, nodes.List | nodes.Tuple):
        return len(node.items) <= 32 and all(isinstance(item, nodes.Const) for item in node.items)
    return isinstance(node, nodes.Const) and (
        not isinstance(node.value, str) or len(node.value) <= 256
    )


def _searches(node: nodes.Compare) -> bool:
    """Whether ``in`` looks through something that is not written in the template itself."""
    return any(o.op in {"in", "notin"} and not _is_small(o.expr) for o in node.ops)


def _charge(body: list[Any], line: int) -> nodes.Filter:
    """The charge for running *body* once: its nodes, and the text it copies."""
    count = text = 0
    todo: list[nodes.Node] = list(body)
    while todo:
        node = todo.pop()
        count += 1
        if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict | nodes.Call | nodes.Filter):
            count += 4
        elif isinstance(node, nodes.Output):
            count += 2 * len(node.nodes)
        if isinstance(node, nodes.TemplateData):
            text += len(node.data) * width(node.data)
        # What stands in the body of an inner loop pays for itself.
        inner = isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock)
        todo.extend(node.iter_child_nodes(exclude=("body",) if inner else None))
    cost, size = nodes.Const(count, lineno=line), nodes.Const(text, lineno=line)
    return _filtered(cost, filters.CHARGE, [size])


# ---------------------------------------------------------------------- operators and calls
def _check_operands(operator: str, left: Any, right: Any, meter: Meter) -> None:
    match operator, left, right:
        case "**", int(), int():  # floats overflow by themselves
            large = abs(right) > 1 and left.bit_length() * abs(right) > MAX_BITS
        case "*", Sized(), int():
            large = _pay_for_repetition(left, right, meter)
        case "*", int(), Sized():
            large = _pay_for_repetition(right, left, meter)
        case "*", int(), int():
            large = left.bit_length() + right.bit_length() > MAX_BITS
        case "+", Sized(), Sized():
            large = _pay_for_sum(left, right, meter)
        case "+", int(), int():
            large = max(left.bit_length(), right.bit_length()) > MAX_BITS
        case "-", AbstractSet(), _:
            large = True  # a difference of keys would hash whatever the other side holds
        case "%", bytes(), _:
            large = True
        case _:
            return
    if large:
        raise TemplateError(
            f"a template may not compute values as large as this '{operator}' would"
        )


def _pay_for_repetition(many: Any, count: int, meter: Meter) -> bool:
    size = len(many) * max(count, 0)
    if size > MAX_OPERAND:
        return True
    meter.spend(size >> 8)
    meter.make(size * (width(many) if isinstance(many, str) else 8))
    return False


def _pay_for_sum(left: Any, right: Any, meter: Meter) -> bool:
    size = len(left) + len(right)
    if isinstance(left, str) and isinstance(right, str):
        size *= max(width(left), width(right))
    else:
        size *= 8
    meter.spend(size >> 8)
    if size > MAX_OUTPUT:
        return True
    meter.make(size)
    return False


def _pay_for_copy(parts: tuple[Any, ...], meter: Meter) -> None:
    """``dict(…)`` and ``namespace(…)`` copy what they are given."""
    size = sum(len(part) for part in parts if isinstance(part, Sized))
    for part in parts:
        if not isinstance(part, Mapping):
            # Pairs: their keys are hashed, so they are looked at first.
            for pair in cast("Any", part):
                meter.spend()
                check_key(next(iter(pair), None))
    meter.spend(size >> 2)
    meter.make(MAPPING_BYTES + 100 * size)


# ---------------------------------------------------------------------- values
def plain(value: Any, meter: Meter) -> Any:
    """*value* as JSON data: undefined becomes null, a time its ISO text, whatever is listed a list.

    Raises ``TemplateError`` for what is no data (a function, a part of the template) or for far too
    much of it.
    """
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        weight = weigh(value, meter)
        meter.spend(weight.nodes >> 2)
        meter.make(weight.copied)
    return _plain(value, meter)


def _plain(value: Any, meter: Meter) -> Any:  # noqa: PLR0911 (a table)
    if value is None or isinstance(value, Undefined):
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item, meter) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, meter) for item in value]
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, Iterator | AbstractSet | range) or _is_view(value):
        return plain(list(counted(value, meter)), meter)
    refuse_machinery(value)
    return value


def _is_view(value: Any) -> bool:
    return hasattr(value, "__iter__") and not isinstance(value, bytes)


@pass_context
def _printed(context: Context, value: Any) -> str:
    """What ``{{ … }}`` inside text prints."""
    assert isinstance(context, Rendering)
    return context.text(value if type(value) is str else written(value, context))


@pass_context
def _now(context: Context) -> dt.datetime:
    """The time that the scope tells, in UTC."""
    seconds = context.resolve_or_missing(NOW)
    if not isinstance(seconds, int | float):
        raise TemplateError("now() has no time here; pass the time as input instead")
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def sandbox() -> Sandbox:
    """The environment of all templates."""
    env = Sandbox(undefined=ChainableUndefined, autoescape=False, finalize=_printed)
    env.globals = {
        "range": env.globals["range"],
        "dict": dict,
        "namespace": Namespace,
        "now": _now,
        "utcnow": _now,
    }
    env.filters.clear()
    env.filters.update(cast("Any", filters.all_filters()))
    env.tests.clear()
    env.tests.update(cast("Any", filters.all_tests()))
    return env
