"""Everything there is to say about a playbook before it runs: errors, warnings, hints, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from app.engine.language.checks import Checks
from app.engine.language.grammar.walk import unusual_keys
from app.engine.language.lint import places
from app.engine.language.lint.names import names
from app.engine.language.lint.routes import routes
from app.engine.language.lint.secrets import secrets
from app.engine.language.lint.values import values
from app.engine.language.parse import attempt
from app.engine.language.source import Path, Source, read
from app.engine.language.tasks import Kind, own_config
from app.engine.playbook import Playbook
from app.errors import Complaint, Finding, InvalidPlaybookError


class CheckedKind(Kind, Protocol):
    """A tool that also says what is wrong with its keys, and what they may be."""

    def complaints(self, config: Mapping[str, Any]) -> Sequence[Complaint]: ...

    def schema(self) -> dict[str, Any]: ...


CheckedKinds = Mapping[str, CheckedKind]
"""Tool kinds by name."""

#: Complaints of tools that are listed; each takes a while to word.
MOST = 1000
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found, in the order of the text. ``playbook`` is None where it cannot be read."""

    findings: tuple[Finding, ...]
    playbook: Playbook | None = None

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What does not keep it from running, and is hardly meant. Hints are not among it."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def accepted(self, name: str) -> Playbook:
        """The playbook. Raises ``InvalidPlaybookError`` with all findings where one is an error."""
        if self.errors or self.playbook is None:
            raise InvalidPlaybookError(self.findings, source=name)
        return self.playbook


def examine(
    text: str | bytes, kinds: CheckedKinds, *, name: str = "playbook", max_bytes: int | None = None
) -> Examined:
    """Look at a playbook from every side. Raises nothing for what is wrong with it."""
    try:
        source = read(text, name=name, **({"max_bytes": max_bytes} if max_bytes else {}))
    except InvalidPlaybookError as exc:
        return Examined(exc.findings)
    checks = Checks(source, name)
    playbook = attempt(checks, kinds)
    readable = not checks.findings
    found = [*source.warnings, *checks.findings]
    if isinstance(source.data, Mapping):
        found += [*unusual_keys(source), *secrets(source)]
        found += islice(_complaints(source, kinds), MOST)
    if playbook is not None:
        # Of the tools that are used, and no others: each is imported when it is asked for.
        used = {kind for _, _, _, kind in _tools(source, kinds)}
        verbatim = frozenset().union(*(kinds[kind].verbatim for kind in used))
        found += [*values(playbook, source), *names(playbook, source, verbatim)]
        if readable:  # else an arc with a slip would be told again as a step without arcs
            found += routes(playbook, source)
    return Examined(_ordered(found), playbook if readable else None)


def _ordered(found: list[Finding]) -> tuple[Finding, ...]:
    """By place, the graver first; of two with the same code in one place the first is kept."""
    once: dict[tuple[str, int, int], Finding] = {}
    for finding in found:
        once.setdefault((finding.code, finding.line, finding.column), finding)

    def place(finding: Finding) -> tuple[int, int, int]:
        return finding.line, finding.column, SEVERITIES.index(finding.severity)

    return tuple(sorted(once.values(), key=place))


def _complaints(source: Source, kinds: CheckedKinds) -> Iterator[Finding]:
    """What the tools themselves say about their keys."""
    for where, tool, holder, kind in _tools(source, kinds):
        config, below = _config(tool, holder)
        for told in kinds[kind].complaints(config):
            if told.path or where[0] != "workbook":  # whoever uses it may add what is missing
                yield _finding(source, where, below, told)


def _tools(
    source: Source, kinds: CheckedKinds
) -> Iterator[tuple[Path, Mapping[str, Any], Mapping[str, Any], str]]:
    """Each tool of a kind that is known: its place, itself, what holds it, its kind."""
    for path, holder in (*places.steps(source), *_workbook(source)):
        for where, tool in places.tools(holder, path):
            kind = tool.get("kind")
            if isinstance(kind, str) and kind in kinds:  # the parser tells of others
                yield where, tool, holder, kind


def _finding(source: Source, tool: Path, below: Mapping[str, Path], told: Complaint) -> Finding:
    place = (*tool, *below.get(str(told.path[0]), ()), *told.path) if told.path else tool
    mark = source.key_at(place)
    key = ".".join(str(part) for part in place)
    return Finding(
        told.code, told.message, mark.line, mark.column, key, told.severity, told.suggestion
    )


def _workbook(source: Source) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The entries of the workbook."""
    workbook = source.data.get("workbook")
    for number, entry in enumerate(workbook if isinstance(workbook, list) else []):
        if isinstance(entry, Mapping):
            yield ("workbook", number), entry


def _config(
    tool: Mapping[str, Any], holder: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Path]]:
    """The tool's keys as it will get them, and below what those stand that do not stand in it."""
    spec = tool.get("spec")
    below = spec if isinstance(spec, Mapping) else {}
    lifted = {key: value for key, value in below.items() if key != "policy"}
    own = own_config(tool)
    config = {**lifted, **own}
    given = config.get("input", config.get("args"))
    more = holder.get("input")
    if isinstance(more, Mapping) and (given is None or isinstance(given, Mapping)):
        config["input"] = {**(given or {}), **more}
    return config, {key: ("spec",) for key in lifted if key not in own}
