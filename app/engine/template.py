"""Templates: Jinja in a sandbox, native values for a single expression, limits on what they may cost.

A text that is one ``{{ expression }}`` gives the value itself (a list stays a list, undefined
becomes None). Any other text with templates gives text, which is read back as JSON where it looks
like an object or a list. Compiled templates are remembered by their text.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jinja2 import ChainableUndefined, TemplateSyntaxError, Undefined, meta, nodes
from jinja2 import Template as JinjaTemplate
from jinja2.sandbox import ImmutableSandboxedEnvironment

from app.engine.source import texts
from app.errors import TemplateError

#: Characters one template may produce, and the largest number or text its operators may make.
MAX_OUTPUT = 16_777_216
MAX_OPERAND = 1_000_000
FALSE_WORDS = frozenset({"", "0", "false", "no", "none", "null", "off", "{}", "[]"})
_SHOWN = 200


class Result(dict[str, Any]):
    """A step's result: ``.data``, ``.result(s)`` and ``.context`` mean itself unless it has such keys."""

    ALIASES = frozenset({"data", "result", "results", "context"})


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**", "%", "+"})

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


def _too_large(operator: str, left: Any, right: Any) -> bool:
    if operator == "**":
        return isinstance(right, int | float) and abs(right) > 64
    if operator == "*":
        for text, count in ((left, right), (right, left)):
            if isinstance(text, str | bytes | list | tuple) and isinstance(count, int):
                return len(text) * count > MAX_OPERAND
        return (
            isinstance(left, int)
            and isinstance(right, int)
            and left.bit_length() + right.bit_length() > 4096
        )
    if operator == "%":
        return isinstance(left, str) and bool(re.search(r"%[^a-zA-Z%]*\d{5}|%[^a-zA-Z%]*\*", left))
    sized = isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple)
    return sized and len(left) + len(right) > MAX_OUTPUT


def _environment() -> _Environment:
    env = _Environment(undefined=ChainableUndefined, autoescape=False)
    for name in ("lipsum", "cycler", "joiner"):
        env.globals.pop(name)
    # Each of these makes text of any width from a number.
    for name in ("center", "format", "indent", "wordwrap", "xmlattr", "urlize"):
        env.filters.pop(name)
    env.filters.update(
        b64encode=lambda value: base64.b64encode(_text(value).encode()).decode(),
        b64decode=lambda value: base64.b64decode(_text(value)).decode(),
        fromjson=json.loads,
        tojson=to_json,
        keys=list,
        values=lambda value: list(value.values()),
        get=lambda value, key, default=None: (
            value.get(key, default) if isinstance(value, Mapping) else default
        ),
        split=lambda value, separator=None: _text(value).split(separator),
        len=len,
    )
    return env


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON text that is safe inside single-quoted SQL and inside HTML, as Jinja's own filter gives."""
    if isinstance(value, Undefined):
        return "null"
    text = json.dumps(value, default=_json_default, indent=indent)
    for char, escape in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("'", "\\u0027")):
        text = text.replace(char, escape)
    return text


def _json_default(value: Any) -> Any:
    if isinstance(value, Undefined):
        return None
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


_ENV = _environment()


@dataclass(frozen=True, slots=True)
class Needs:
    """The names templates use: ``names`` anywhere, ``workload`` only below it; or everything."""

    names: frozenset[str] = frozenset()
    workload: frozenset[str] = frozenset()
    everything: bool = False

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.names | other.names,
            self.workload | other.workload,
            self.everything or other.everything,
        )


@dataclass(frozen=True, slots=True)
class Compiled:
    """A text ready to render. ``constant`` texts have no template in them."""

    text: str
    constant: bool
    expression: bool = False
    simple: bool = False
    needs: Needs = field(default_factory=Needs)
    template: JinjaTemplate | None = None

    def value(self, scope: Mapping[str, Any]) -> Any:
        """The native value in *scope*. Raises ``TemplateError`` with the template's text."""
        if self.constant:
            return self.text
        if self.expression:
            value = self._run_expression(scope)
            return _simple_value(value) if self.simple else plain(value)
        return _shaped(self.render(scope))

    def render(self, scope: Mapping[str, Any]) -> str:
        """The text in *scope*, as SQL and programs need it."""
        if self.template is None:
            return self.text
        if self.expression:
            value = self._run_expression(scope)
            if isinstance(value, Undefined):
                return ""
            return value if isinstance(value, str) else to_text(value)
        assert self.template is not None
        parts, size = [], 0
        try:
            context = self.template.new_context(scope, shared=True)  # type: ignore[arg-type]  # any mapping serves
            for part in self.template.root_render_func(context):
                size += len(part)
                if size > MAX_OUTPUT:
                    raise self._error(f"it produces more than {MAX_OUTPUT} characters")
                parts.append(part)
        except Exception as exc:  # whatever a user's template provokes is its own failure
            raise self._error(exc) from exc
        return "".join(parts)

    def _run_expression(self, scope: Mapping[str, Any]) -> Any:
        assert self.template is not None
        try:
            context = self.template.new_context(scope, shared=True)  # type: ignore[arg-type]  # any mapping serves
            for _ in self.template.root_render_func(context):
                pass
            return context.vars["result"]
        except Exception as exc:
            raise self._error(exc) from exc

    def _error(self, problem: Exception | str) -> Exception:
        if isinstance(problem, PassThrough):
            return problem
        detail = problem.message if isinstance(problem, TemplateError) else str(problem)
        if isinstance(problem, Exception) and not isinstance(problem, TemplateError):
            detail = f"{type(problem).__name__}: {detail}"
        return TemplateError(f"template {shorten(self.text)!r} cannot be rendered: {detail}")


class PassThrough(Exception):  # noqa: N818 (a signal through the template engine, not an error)
    """Base of signals that a scope raises on purpose and templates must not wrap."""


def to_text(value: Any) -> str:
    """How a value reads inside text: containers as JSON, everything else as Jinja prints it."""
    return (
        json.dumps(value, default=_json_default)
        if isinstance(value, Mapping | list | tuple)
        else str(value)
    )


def has_template(text: str) -> bool:
    return "{{" in text or "{%" in text


@lru_cache(maxsize=8192)
def compile_text(text: str) -> Compiled:
    """Compile once. Raises ``TemplateError`` with the line inside the text for wrong syntax."""
    if not has_template(text):
        return Compiled(text, constant=True)
    try:
        tree = _ENV.parse(text.strip())
        expression = _single_expression(tree)
        needs = _needs(tree)
        if expression is None:
            return Compiled(
                text, constant=False, needs=needs, template=_ENV.from_string(_ENV.parse(text))
            )
        body = nodes.Assign(nodes.Name("result", "store", lineno=1), expression, lineno=1)
        wrapped = nodes.Template([body], lineno=1)
        wrapped.set_environment(_ENV)
        simple = isinstance(expression, nodes.Name | nodes.Getattr | nodes.Getitem)
        return Compiled(
            text,
            constant=False,
            expression=True,
            simple=simple,
            needs=needs,
            template=_ENV.from_string(wrapped),
        )
    except TemplateSyntaxError as exc:
        raise TemplateError(f"template {shorten(text)!r} is not valid: {exc.message}") from exc
    except RecursionError as exc:
        raise TemplateError(f"template {shorten(text)!r} is nested too deeply") from exc


def compile_condition(when: Any) -> Compiled | None:
    """A condition, with or without braces; None for booleans and other constants."""
    if not isinstance(when, str):
        return None
    return compile_text(when if has_template(when) else "{{ " + when + " }}")


def holds(when: Any, scope: Mapping[str, Any]) -> bool:
    """Whether the condition is true in *scope*; a missing one is. Raises ``TemplateError``."""
    if when is None:
        return True
    compiled = compile_condition(when)
    return truthy(when if compiled is None else compiled.value(scope))


def truthy(value: Any) -> bool:
    """Python's truth, but words such as 'false', 'no', 'none' and '0' are false too."""
    return value.strip().lower() not in FALSE_WORDS if isinstance(value, str) else bool(value)


def render(data: Any, scope: Mapping[str, Any]) -> Any:
    """*data* with every template in it, keys included, replaced by its value."""
    if isinstance(data, str):
        return compile_text(data).value(scope)
    if isinstance(data, Mapping):
        return {
            (compile_text(key).render(scope) if isinstance(key, str) else key): render(value, scope)
            for key, value in data.items()
        }
    if isinstance(data, list | tuple):
        return [render(item, scope) for item in data]
    return data


def needs_of(data: Any) -> Needs:
    """The names that the templates in *data* use; text that cannot be compiled needs nothing."""
    needs = Needs()
    for _, text in texts(data):
        if has_template(text):
            needs |= compile_text(text).needs
    return needs


def plain(value: Any) -> Any:
    """*value* as JSON data: undefined becomes None, tuples and views become lists."""
    if isinstance(value, Undefined):
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, Iterator | Iterable) and not isinstance(value, bytes):
        return [plain(item) for item in _bounded(value)]
    return value


def shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _bounded(values: Iterable[Any]) -> Iterator[Any]:
    for number, value in enumerate(values):
        if number >= MAX_OPERAND:
            raise TemplateError(f"a template may not produce more than {MAX_OPERAND} items")
        yield value


def _simple_value(value: Any) -> Any:
    return None if isinstance(value, Undefined) else value


def _shaped(text: str) -> Any:
    """Text that looks like a JSON object or list is one; any other text stays text."""
    stripped = text.strip()
    if stripped[:1] + stripped[-1:] in {"{}", "[]"}:
        try:
            return json.loads(stripped)
        except ValueError:
            return text
    return text


def _single_expression(tree: nodes.Template) -> nodes.Expr | None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = tree.body[0].nodes
    return None if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData) else parts[0]


def _needs(tree: nodes.Template) -> Needs:
    names = set(meta.find_undeclared_variables(tree))
    workload: set[str] = set()
    everything = False
    for namespace in {"ctx", "steps", "workload"} & names:
        keys, bare = _keys_below(tree, namespace)
        if namespace == "workload":
            workload |= keys
            everything = everything or bare
        else:
            names |= keys
            everything = everything or bare
    return Needs(frozenset(names - {"ctx", "steps", "workload"}), frozenset(workload), everything)


def _keys_below(tree: nodes.Template, namespace: str) -> tuple[set[str], bool]:
    """The keys read below a namespace, and whether it is also used as a whole."""
    keys: set[str] = set()
    below = 0
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        assert isinstance(node, nodes.Getattr | nodes.Getitem)
        target = node.node
        if not isinstance(target, nodes.Name) or target.name != namespace:
            continue
        key = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
        if isinstance(key, str):
            keys.add(key)
            below += 1
    uses = sum(1 for node in tree.find_all(nodes.Name) if node.name == namespace)
    return keys, uses > below
