"""Templates inside programs: what they give lands there as a literal, never as code."""

from __future__ import annotations

import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from app.engine.encoding import loads
from app.engine.references import whole
from app.engine.templates.analysis import Needs
from app.engine.templates.scope import Scope
from app.engine.templates.template import Compiled, compile_text
from app.errors import TemplateError

_HOLE = re.compile(r"\{\{(?!\{)([^{}\n]+)\}\}(?!\})")
_STRING = re.compile(r"(?P<prefix>\w*)(?P<quote>\"\"\"|'''|\"|')")
#: Where Python 3.12 and later find a text with expressions in it.
_FORMATTED = (getattr(tokenize, "FSTRING_START", None), getattr(tokenize, "FSTRING_END", None))


@dataclass(frozen=True, slots=True)
class Hole:
    """A template at ``start`` to ``end`` of a program; ``quote`` is that of the text it stands in."""

    start: int
    end: int
    template: Compiled
    quote: str

    @property
    def names(self) -> frozenset[str]:
        return self.template.needs.names | self.template.needs.workload


def needs_of_program(code: str) -> Needs:
    """The names that templates in *code* use."""
    needs = Needs()
    for hole in _holes(code):
        needs |= hole.template.needs
    return needs


def filled(code: str, scope: Scope) -> str:
    """*code* with the value of each template in it: as a literal, or as part of the text around it.

    Left alone are templates in comments and in texts with a prefix (of an f-string, braces are its
    own), bare words in a text, and whatever names something that is not there.
    """
    parts: list[str] = []
    done = 0
    for hole in _holes(code):
        literal = _literal(hole, scope)
        if literal is not None:
            parts += code[done : hole.start], literal
            done = hole.end
    return "".join([*parts, code[done:]])


def _literal(hole: Hole, scope: Scope) -> str | None:
    """What stands for the value of *hole* in the program; None where it has none."""
    if any(name not in scope for name in hole.names):
        return None
    try:
        value = whole(hole.template.value(scope))
        if value is None:
            return None
        if hole.quote:
            return _escaped(hole.template.render(scope), hole.quote)
    except TemplateError:
        return None  # it is a program first, and may be right as it stands
    if isinstance(value, str) and "tojson" in hole.template.text:
        value = loads(value)
    return repr(value)


def _escaped(text: str, quote: str) -> str:
    text = text.replace("\\", "\\\\").replace(quote[0], f"\\{quote[0]}")
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\\0")


@lru_cache(maxsize=256)
def _holes(code: str) -> tuple[Hole, ...]:
    if not _HOLE.search(code):
        return ()
    try:
        closed = list(_closed(code))
    except (tokenize.TokenError, SyntaxError):
        return ()  # whoever runs it says what is wrong with it
    return tuple(_found(code, closed))


def _found(code: str, closed: list[tuple[int, int, str | None]]) -> Iterator[Hole]:
    for match in _HOLE.finditer(code):
        start, end = match.span()
        around = [quote for begin, stop, quote in closed if begin <= start < stop]
        if None in around:
            continue
        word = match[1].strip()
        if around and word.isidentifier() and word != "execution_id":
            continue  # nearly always for str.format
        try:
            template = compile_text(match[0])
        except TemplateError:
            continue
        if template.expression and not template.needs.everything:
            yield Hole(start, end, template, around[0] or "" if around else "")


def _closed(code: str) -> Iterator[tuple[int, int, str | None]]:
    """Texts of *code* by their quote, comments and formatted texts by None."""
    place = _places(code)
    lines = iter(code.splitlines(keepends=True))
    formatted: list[int] = []
    for token in tokenize.generate_tokens(lambda: next(lines, "")):
        start, end = place(token.start), place(token.end)
        if token.type == tokenize.ERRORTOKEN and token.string.strip() in {"'", '"'}:
            raise SyntaxError("a text has no end")
        if token.type == tokenize.COMMENT:
            yield start, end, None
        elif token.type == tokenize.STRING:
            opened = _STRING.match(token.string)
            plain = opened is not None and opened["prefix"].lower() in {"", "u"}
            yield start, end, opened["quote"] if opened and plain else None
        elif token.type == _FORMATTED[0]:
            formatted.append(start)
        elif token.type == _FORMATTED[1]:
            yield formatted.pop(), end, None


def _places(code: str) -> Callable[[tuple[int, int]], int]:
    """Row and column of a token as its place in *code*."""
    starts = [0]
    for line in code.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def place(where: tuple[int, int]) -> int:
        row, column = where
        return starts[min(row - 1, len(starts) - 1)] + column

    return place
