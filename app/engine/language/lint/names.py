"""Names in templates that no scope can have.

A payload may bring names that the playbook does not mention, so a name is only reported where it is
nearly a known one, or stands below a namespace whose names are all known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import TemplateSyntaxError, nodes

from app.engine.language.grammar.likeness import Likeness
from app.engine.language.lint import places
from app.engine.language.source import Path, Source, texts
from app.engine.names import scope_key
from app.engine.playbook import Playbook
from app.engine.templates.analysis import Study
from app.engine.templates.sandbox import sandbox
from app.engine.templates.template import has_template
from app.errors import Finding

_ENV = sandbox()
#: Names the engine gives, here or there.
_ENGINE = frozenset(
    {"workload", "ctx", "steps", "iter", "keychain", "output", "event", "result", "results"}
    | {"execution_id", "catalog_id", "path", "version", "job", "loop", "loop_index", "frame"}
    | {"input", "args", "data", "auth", "credential", "credentials", "secret", "env", "context"}
    | {"variables", "step", "status", "error", "error_message", "payload", "now", "token"}
    | {"_prev", "_task", "_attempt", "_index", "_total", "_first", "_last", "__frame_max_rows"}
)
_ITER = frozenset({"_index", "_total", "_first", "_last"})
#: Keys whose text is a condition even without braces.
_CONDITIONS = frozenset({"when", "cond"})
#: Keys whose mapping makes names.
_MAKERS = frozenset({"set", "vars", "args", "input", "payload"})
_PROSE = frozenset({"desc", "description"})
#: How alike a name must be to a known one to be a slip of it, and to be suggested where it is
#: wrong anyway.
_CUTOFF, _LOOSE = 0.83, 0.6


@dataclass(frozen=True, slots=True)
class Mention:
    """A name that a template reads, with the key below it. ``optional``: it counts on its absence."""

    root: str
    key: str | None
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """The names a playbook has, by where they may stand."""

    workload: frozenset[str]
    steps: frozenset[str]
    keychain: frozenset[str]
    iter: frozenset[str]
    flat: frozenset[str]


def names(playbook: Playbook, source: Source, verbatim: Collection[str]) -> Iterator[Finding]:
    """Names that are nearly known ones; texts below the keys *verbatim* are no templates."""
    known = _known(playbook, source)
    judge = _Judge(known)
    sets_iter = any(name.startswith("iter.") for name in known.flat)
    for path, raw in places.steps(source):
        seen: set[Mention] = set()
        for below, text in texts(raw):
            if _is_program(below, verbatim) or (_PROSE & set(map(str, below))):
                continue
            for mention in mentions(_template(below, text)):
                if mention in seen or mention.optional:
                    continue
                seen.add(mention)
                told = judge.complaint(mention, loops=sets_iter or "loop" in raw)
                if told:
                    yield places.finding(source, (*path, *below), *told)


#: Code, message and suggestion.
Told = tuple[str, str, str | None]


class _Judge:
    """Says what is wrong with a mention, if anything is."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.bare = known.flat | _ENGINE
        self.likeness = Likeness()

    def complaint(self, mention: Mention, *, loops: bool) -> Told | None:
        root, key, known = mention.root, mention.key, self.known
        told: Told | None = None
        match root:
            case "steps" if key and key not in known.steps:
                message = f"'steps.{key}': there is no step {key!r}."
                told = "unknown-step", message, self._hint(key, known.steps, _LOOSE)
            case "keychain" if key and key not in known.keychain:
                hint = self._hint(key, known.keychain, _LOOSE) or "Declare it below 'keychain'."
                told = "keychain-undeclared", f"'keychain.{key}' is not declared here.", hint
            case "workload" if key and key not in known.flat:
                told = self._slip(f"workload.{key}", key, known.workload)
            case "ctx" if key and key not in known.flat:
                told = self._slip(f"ctx.{key}", key, known.flat)
            case "iter" if key and key not in known.iter:
                told = self._slip(f"iter.{key}", key, known.iter)
                if not told and not loops:
                    told = "unknown-name", f"'iter.{key}' is empty: this step has no loop.", None
            case _ if root not in self.bare:
                told = self._slip(root, root, self.bare)
            case _:
                pass
        return told

    def _slip(self, shown: str, name: str, known: Collection[str]) -> Told | None:
        hint = self._hint(name, known, _CUTOFF)
        return ("unknown-name", f"nothing gives the name {shown!r}.", hint) if hint else None

    def _hint(self, name: str, known: Collection[str], cutoff: float) -> str | None:
        near = self.likeness.near(name, known, cutoff)
        return f"Did you mean {near!r}?" if near else None


def _known(playbook: Playbook, source: Source) -> Known:
    made = set(_made(source.data))
    loops = [raw.get("loop") for _, raw in places.steps(source)]
    iterators = {str(loop.get("iterator", "item")) for loop in loops if isinstance(loop, Mapping)}
    tasks = {task.name for step in playbook.steps.values() for task in step.tasks}
    steps = frozenset(playbook.steps)
    workload = frozenset(playbook.workload)
    bare = {scope_key(name) for name in made}
    keychain = {str(entry.get("name")) for entry in playbook.keychain}
    return Known(
        workload=workload,
        steps=steps,
        keychain=frozenset(keychain),
        iter=frozenset(iterators | _ITER | {scope_key(n) for n in made if n.startswith("iter.")}),
        flat=frozenset(workload | steps | iterators | tasks | bare | made | set(_ENV.globals)),
    )


def _made(data: Any) -> Iterator[str]:
    """The keys of every mapping that makes names, at any depth."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            if key in _MAKERS and isinstance(value, Mapping):
                yield from (str(name) for name in value)
            yield from _made(value)
    elif isinstance(data, list):
        for item in data:
            yield from _made(item)


def _is_program(below: Path, verbatim: Collection[str]) -> bool:
    """The text is a program, or something below one: in ``tool.code`` and ``tool.0.code``."""
    return below[0] == "tool" and any(part in verbatim for part in below[1:4])


def _template(below: Path, text: str) -> str:
    if has_template(text):
        return text
    return "{{ " + text + " }}" if below[-1] in _CONDITIONS else ""


@lru_cache(maxsize=4096)
def mentions(text: str) -> frozenset[Mention]:
    """The names that *text* reads from outside; none where it cannot be read."""
    if not text:
        return frozenset()
    try:
        return _mentions(_ENV.parse(text))
    except (TemplateSyntaxError, RecursionError, ValueError, OverflowError):
        return frozenset()  # reported where templates are checked


def _mentions(tree: nodes.Template) -> frozenset[Mention]:
    outside = Study(tree, _ENV.globals.keys()).outside
    doubted = {place for node in _doubts(tree) for place in _places(node, outside)}
    return frozenset(
        Mention(root, key, (root, key) in doubted or (root, None) in doubted)
        for root, key in _places(tree, outside)
    )


def _doubts(tree: nodes.Template) -> Iterator[nodes.Node]:
    """The parts that ask whether something is there."""
    for node in tree.find_all((nodes.Filter, nodes.Test, nodes.If, nodes.CondExpr, nodes.Or)):
        match node:
            case nodes.Filter(name="default" | "d") if node.node is not None:
                yield node.node
            case nodes.Test(name="defined" | "undefined" | "none"):
                yield node.node
            case nodes.If() | nodes.CondExpr():
                yield node.test
            case nodes.Or():
                yield node.left
            case _:
                pass


def _places(tree: nodes.Node, outside: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """(name, key below it) for every name from outside; the key is None where it is used as a whole."""
    below: set[int] = set()
    whole = [tree] if isinstance(tree, nodes.Expr) else []
    for node in (*whole, *tree.find_all((nodes.Getattr, nodes.Getitem))):
        if isinstance(node, nodes.Getattr | nodes.Getitem) and isinstance(node.node, nodes.Name):
            key = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
            below.add(id(node.node))
            if node.node.name in outside:
                yield node.node.name, key if isinstance(key, str) else None
    for name in (*whole, *tree.find_all(nodes.Name)):
        if isinstance(name, nodes.Name) and id(name) not in below and name.name in outside:
            yield name.name, None
