"""Calls of the command line that the documentation shows, and what is wrong with them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import click

from app.cli.root import cli
from tests.docs.blocks import ROOT, blocks_of

PROGRAMS = frozenset({"callboard", "noetl"})
_MODULE = ["python", "-m", "app.cli"]
_SPAN = re.compile(r"`([^`]+)`")
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_SEPARATOR = re.compile(r"^[();<>|&$]+$")


@dataclass(frozen=True, slots=True)
class Call:
    """One call. ``complete``: it can be typed as it is; otherwise words of prose name its parts."""

    place: str
    words: tuple[str, ...]
    complete: bool = True


def calls_of(page: Path) -> list[Call]:
    """Every call on *page*: in blocks of shell, and within the text."""
    return [*_in_blocks(page), *_in_text(page)]


def _in_blocks(page: Path) -> Iterator[Call]:
    for block in blocks_of(page):
        if block.language not in {"sh", "bash", "console"}:
            continue
        for offset, line in enumerate(block.text.replace("\\\n", " \n").split("\n")):
            for words in _commands(line):
                if (rest := _ours(words)) is not None:
                    place = f"{page.relative_to(ROOT)}:{block.line + offset}"
                    yield Call(place, tuple(rest))


def _commands(line: str) -> Iterator[list[str]]:
    """The simple commands of a line, without what joins them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if _SEPARATOR.match(word):
                yield words
                words = []
            else:
                words.append(word)
    except ValueError:
        return  # a quote that ends on another line; no call of ours has one
    yield words


def _ours(words: list[str]) -> list[str] | None:
    """The arguments of a call of ours; None for any other command."""
    if words[:3] == _MODULE:
        return words[3:]
    return words[1:] if words and PurePath(words[0]).name in PROGRAMS else None


def _in_text(page: Path) -> Iterator[Call]:
    text = page.read_text(encoding="utf-8")
    prose = _FENCED.sub(lambda block: "\n" * block[0].count("\n"), text)
    for span in _SPAN.finditer(prose):
        words = span[1].replace("\\|", "|").split()
        if len(words) > 1 and words[0] in PROGRAMS and not words[1].isupper():
            line = prose.count("\n", 0, span.start()) + 1
            words = words[: words.index(">")] if ">" in words else words
            yield Call(f"{page.relative_to(ROOT)}:{line}", tuple(words[1:]), complete=False)


def wrong_with(call: Call) -> str | None:
    """What the command line would say against *call*; None where it would take it."""
    try:
        _follow(cli, list(call.words), call.complete)
    except click.ClickException as exc:
        return f"callboard {' '.join(call.words)}: {exc.format_message()}"
    return None


def _follow(command: click.Command, words: list[str], complete: bool) -> None:
    """Read *words* as click would, and run nothing. Raises ``click.UsageError``."""
    context = click.Context(command, info_name=command.name)
    values, rest, _ = command.make_parser(context).parse_args(words)
    if isinstance(command, click.Group):
        if rest:
            _follow(_below(command, context, rest[0]), rest[1:], complete)
        return
    if rest:
        raise click.UsageError(f"too many words: {' '.join(rest)}")
    for parameter in command.params:
        value = values.get(parameter.name or "")
        given = isinstance(value, str | list | tuple)  # else click's mark for "not there"
        if given and isinstance(parameter.type, click.Choice):
            parameter.type_cast_value(context, value)
        if complete and parameter.required and not given:
            raise click.MissingParameter(ctx=context, param=parameter)


def _below(group: click.Group, context: click.Context, name: str) -> click.Command:
    found = group.get_command(context, name)
    if found is None:
        raise click.UsageError(f"no command is called {name!r}")
    return found
