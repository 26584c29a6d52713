"""Templates: Jinja in a sandbox, native values for a single expression, limits on what they may cost.

A text that is one ``{{ expression }}`` gives the value itself (a list stays a list, undefined
becomes None). Any other text with templates gives text, which is read back as JSON where it looks
like an object or a list. Compiled templates are remembered by their text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateSyntaxError, Undefined, meta, nodes

from app.engine.sandbox import MAX_OUTPUT, bounded, sandbox, weigh, written
from app.engine.source import texts
from app.errors import TemplateError

T = TypeVar("T")
FALSE_WORDS = frozenset({"", "0", "false", "no", "none", "null", "off", "{}", "[]"})
_SHOWN = 200


_ENV = sandbox()


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
            return self._run_expression(scope, _simple_value if self.simple else plain)
        return _shaped(self.render(scope))

    def render(self, scope: Mapping[str, Any]) -> str:
        """The text in *scope*, as SQL and programs need it."""
        if self.template is None:
            return self.text
        if self.expression:
            return self._run_expression(scope, written)
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

    def _run_expression(self, scope: Mapping[str, Any], shape: Callable[[Any], T]) -> T:
        assert self.template is not None
        try:
            context = self.template.new_context(scope, shared=True)  # type: ignore[arg-type]  # any mapping serves
            for _ in self.template.root_render_func(context):
                pass
            return shape(context.vars["result"])
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
                text, constant=False, needs=needs, template=_ENV.template(_ENV.parse(text))
            )
        body = nodes.Assign(nodes.Name("result", "store", lineno=1), expression, lineno=1)
        wrapped = nodes.Template([body], lineno=1)
        simple = isinstance(expression, nodes.Name | nodes.Getattr | nodes.Getitem)
        return Compiled(
            text,
            constant=False,
            expression=True,
            simple=simple,
            needs=needs,
            template=_ENV.template(wrapped),
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
    """*value* as JSON data: undefined becomes None, tuples and views become lists.

    Raises ``TemplateError`` for what is no data (a function, a part of the template) or for far too
    much of it.
    """
    weigh(value, text=False)
    return _plain(value)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, Undefined):
        return None
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Iterator | Iterable) and not isinstance(value, bytes):
        return [_plain(item) for item in bounded(value)]
    if callable(value) or type(value).__module__.startswith("jinja2."):
        raise TemplateError("it gives a function or a part of the template, not data")
    return value


def shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _simple_value(value: Any) -> Any:
    """What a name or a path gives: data is handed on as it is, without a copy."""
    return value if isinstance(value, dict | list | str | int | float) else plain(value)


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
