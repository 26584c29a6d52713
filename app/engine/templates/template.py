"""Templates: Jinja in a sandbox, native values for a single expression, limits on what they may cost.

A text that is one ``{{ expression }}`` gives the value itself (a list stays a list, undefined
becomes None). Any other text with templates gives text, which is read back as JSON where it looks
like an object or a list. Compiled templates are remembered by their text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from jinja2 import Template as JinjaTemplate
from jinja2 import TemplateSyntaxError, nodes

from app.engine.language.source import texts
from app.engine.templates.analysis import Needs, Study
from app.engine.templates.budget import MAX_OUTPUT, Meter, width
from app.engine.templates.formats import from_json, written
from app.engine.templates.sandbox import MAX_TEMPLATE, Rendering, plain, sandbox
from app.errors import TemplateError, ToolError

T = TypeVar("T")
FALSE_WORDS = frozenset({"", "0", "false", "no", "none", "null", "off", "{}", "[]"})
_SHOWN = 200
#: Templates that nest deeper are compiled when they are checked: Python may refuse to.
DEEP = 16


_ENV = sandbox()


class Program:
    """The compiled form of a template, made when it is first rendered.

    Checking a playbook of a thousand steps takes a fraction of the time without it.
    """

    __slots__ = ("_template", "_tree")

    def __init__(self, tree: nodes.Template) -> None:
        self._tree: nodes.Template | None = _ENV.measured(tree)
        self._template: JinjaTemplate | None = None

    def template(self) -> JinjaTemplate:
        """Raises what Python raises for programs it cannot compile."""
        # Two threads may both compile it; they get equal programs. The tree goes last, so that
        # whoever finds it gone finds the program.
        tree = self._tree
        found = self._template
        if found is None:
            assert tree is not None
            found = self._template = _ENV.from_string(tree)
            self._tree = None
        return found


@dataclass(frozen=True, slots=True)
class Compiled:
    """A text ready to render. ``constant`` texts have no template in them."""

    text: str
    constant: bool
    expression: bool = False
    simple: bool = False
    needs: Needs = field(default_factory=Needs)
    program: Program | None = None

    def value(self, scope: Mapping[str, Any]) -> Any:
        """The native value in *scope*. Raises ``TemplateError`` with the template's text."""
        if self.constant:
            return self.text
        if self.expression:
            return self._run_expression(scope, _simple_value if self.simple else plain)
        try:
            return _shaped(*self._render(scope))
        except Exception as exc:  # whatever a user's template provokes is its own failure
            raise self._error(exc) from exc

    def render(self, scope: Mapping[str, Any]) -> str:
        """The text in *scope*, as SQL and programs need it."""
        if self.program is None:
            return self.text
        if self.expression:
            return self._run_expression(scope, _text)
        try:
            return self._render(scope)[0]
        except Exception as exc:  # whatever a user's template provokes is its own failure
            raise self._error(exc) from exc

    def _render(self, scope: Mapping[str, Any]) -> tuple[str, Rendering]:
        assert self.program is not None
        template = self.program.template()
        context = template.new_context(scope, shared=True)  # type: ignore[arg-type]  # any mapping serves
        assert isinstance(context, Rendering)
        text = collected(template.root_render_func(context))
        return text, context

    def _run_expression(self, scope: Mapping[str, Any], shape: Callable[[Any, Rendering], T]) -> T:
        assert self.program is not None
        try:
            template = self.program.template()
            context = template.new_context(scope, shared=True)  # type: ignore[arg-type]  # any mapping serves
            for _ in template.root_render_func(context):
                pass
            return shape(context.vars["result"], context)  # type: ignore[arg-type]  # the sandbox's own
        except Exception as exc:
            raise self._error(exc) from exc

    def _error(self, problem: Exception | str) -> Exception:
        if isinstance(problem, PassThrough | ToolError):
            # A value that is found out when it is read could not be: that is no fault of the text.
            return problem
        detail = problem.message if isinstance(problem, TemplateError) else str(problem)
        if isinstance(problem, Exception) and not isinstance(problem, TemplateError):
            detail = f"{type(problem).__name__}: {detail}"
        return TemplateError(f"template {shorten(self.text)!r} cannot be rendered: {detail}")


class PassThrough(Exception):  # noqa: N818 (a signal through the template engine, not an error)
    """Base of signals that a scope raises on purpose and templates must not wrap."""


def has_template(text: str) -> bool:
    return "{{" in text or "{%" in text


def compile_text(text: str) -> Compiled:
    """Compile once. Raises ``TemplateError`` with the line inside the text for wrong syntax."""
    if not has_template(text):
        return Compiled(text, constant=True)
    found = _KNOWN.get(text)
    if found is None:
        if len(text) > MAX_TEMPLATE:
            raise _wrong(text, f"it is longer than {MAX_TEMPLATE} characters")
        found, weight = _compile(text)
        _KNOWN.put(text, found, weight)
    return found


def _compile(text: str) -> tuple[Compiled, int]:
    try:
        return _compiled(text)
    except TemplateSyntaxError as exc:
        where = f"line {exc.lineno}: " if exc.lineno > 1 else ""
        raise _wrong(text, f"{where}{exc.message}") from exc
    except (RecursionError, SyntaxError, MemoryError) as exc:
        # Python itself gives up on 20 loops or 200 parentheses inside each other.
        raise _wrong(text, "it is nested too deeply") from exc
    except (ValueError, OverflowError) as exc:
        raise _wrong(text, "a number in it is too long") from exc


def _compiled(text: str) -> tuple[Compiled, int]:
    """The template, and how much memory it holds, in nodes of its syntax."""
    tree = _ENV.parse(text.strip())
    expression = _single_expression(tree)
    study = Study(tree, _ENV.globals.keys())
    if expression is None:
        # Blanks around a text belong to it, but not to a single expression.
        whole = tree if text == text.strip() else _ENV.parse(text)
        compiled = Compiled(text, constant=False, needs=study.needs, program=Program(whole))
    else:
        body = nodes.Assign(nodes.Name("result", "store", lineno=1), expression, lineno=1)
        simple = isinstance(expression, nodes.Name | nodes.Getattr) or (
            isinstance(expression, nodes.Getitem) and not isinstance(expression.arg, nodes.Slice)
        )
        compiled = Compiled(
            text,
            constant=False,
            expression=True,
            simple=simple,
            needs=study.needs,
            program=Program(nodes.Template([body], lineno=1)),
        )
    assert compiled.program is not None
    if study.depth > DEEP:
        compiled.program.template()
    return compiled, 20 + study.nodes + len(text) // 100


def _wrong(text: str, problem: str) -> TemplateError:
    return TemplateError(f"template {shorten(text)!r} is not valid: {problem}")


class _Known:
    """Templates by their text, the oldest forgotten first; *most* bounds their weight together.

    Each operation on the dict is whole in itself; two threads at once cost a compilation at worst.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._templates: dict[str, tuple[Compiled, int]] = {}

    def get(self, text: str) -> Compiled | None:
        found = self._templates.get(text)
        return found[0] if found else None

    def put(self, text: str, compiled: Compiled, weight: int) -> None:
        if weight > self._most // 4 or text in self._templates:
            return
        self._templates[text] = (compiled, weight)
        self._held += weight
        while self._held > self._most and len(self._templates) > 1:
            try:
                _, weight = self._templates.pop(next(iter(self._templates)))
            except (KeyError, RuntimeError):
                return  # another thread is at it
            self._held -= weight


#: What is remembered, in nodes of syntax: 30 MB when full of the densest templates, measured.
_KNOWN = _Known(150_000)


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
        return compile_text(data).value(scope) if has_template(data) else data
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


def shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _simple_value(value: Any, context: Rendering) -> Any:
    """What a name or a path gives: data is handed on as it is, without a copy."""
    return value if isinstance(value, dict | list | str | int | float) else plain(value, context)


def _text(value: Any, context: Rendering) -> str:
    if isinstance(value, str) and len(value) > MAX_OUTPUT:
        raise TemplateError(f"it produces more than {MAX_OUTPUT} characters")
    return written(value, context)


def _shaped(text: str, meter: Meter) -> Any:
    """Text that looks like a JSON object or list is one; any other text stays text."""
    stripped = text.strip()
    if stripped[:1] + stripped[-1:] in {"{}", "[]"}:
        try:
            return from_json(stripped, meter)
        except ValueError:
            return text
    return text


def collected(parts: Iterator[str]) -> str:
    """One text of *parts*. Raises ``TemplateError`` above ``MAX_OUTPUT`` bytes."""
    chunks: list[str] = []
    pieces: list[str] = []
    size, wide = 0, 1
    for part in parts:
        size += len(part)
        if not part.isascii():
            # One wide character makes all of the text wide.
            wide = max(wide, width(part))
        if size * wide > MAX_OUTPUT:
            raise TemplateError(f"it produces more than {MAX_OUTPUT} characters")
        pieces.append(part)
        if len(pieces) == 4096:  # a short text takes ten times its characters
            chunks.append("".join(pieces))
            pieces.clear()
    return "".join([*chunks, *pieces])


def _single_expression(tree: nodes.Template) -> nodes.Expr | None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    parts = tree.body[0].nodes
    return None if len(parts) != 1 or isinstance(parts[0], nodes.TemplateData) else parts[0]
