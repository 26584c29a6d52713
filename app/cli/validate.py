"""``validate``: everything there is to say about playbooks before they run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.findings import finding_text, summary
from app.cli.output import print_json
from app.cli.session import Failure, Session, api_options, json_option, pass_session
from app.errors import CallboardError, InvalidPlaybookError

if TYPE_CHECKING:
    from app.client import Client

SUFFIXES = frozenset({".yaml", ".yml"})
KINDS = frozenset({"playbook", "agent"})
STDIN = "-"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    """A text to check. ``found``: nobody named it, it just lies in a folder."""

    name: str
    content: bytes
    found: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What there is to say about a text; ``skipped`` says why nothing was."""

    name: str
    rows: tuple[Row, ...] = ()
    skipped: str | None = None

    def fails(self, *, strict: bool) -> bool:
        bad = {"error", "warning"} if strict else {"error"}
        return any(row["severity"] in bad for row in self.rows)


@click.command(
    epilog="""\b
Examples:
  callboard validate playbook.yaml
  callboard validate playbooks --strict
  cat playbook.yaml | callboard validate -"""
)
@click.argument("places", nargs=-1, required=True, metavar="FILE|FOLDER|-…")
@click.option("--strict", is_flag=True, help="warnings count as errors")
@click.option("--remote", is_flag=True, help="ask the server, which may have other tools")
@json_option
@api_options
@pass_session
def validate(
    session: Session, *, places: tuple[str, ...], strict: bool, remote: bool, as_json: bool
) -> None:
    """Check playbooks without storing or running them. Exit code 1 where one cannot run.

    Folders are searched for .yaml and .yml; other documents in them are skipped.
    """
    given = [text for place in places for text in _texts(place)]
    if remote:
        with session.client() as client:
            verdicts = [_asked(client, text) for text in given]
    else:
        verdicts = [_examined(session, text) for text in given]
    if as_json:
        print_json([_as_data(verdict, strict=strict) for verdict in verdicts])
    else:
        _print(verdicts)
    wrong = sum(verdict.fails(strict=strict) for verdict in verdicts)
    if wrong:
        checked = sum(verdict.skipped is None for verdict in verdicts)
        lax = f"{'is' if wrong == 1 else 'are'} not as it should be"
        word = lax if strict else "cannot run as written"
        raise Failure(f"{wrong} of {checked} {word}")


def _print(verdicts: list[Verdict]) -> None:
    for verdict in verdicts:
        if verdict.skipped:
            click.echo(f"{verdict.name}: skipped, {verdict.skipped}")
        for row in verdict.rows:
            click.echo(finding_text(verdict.name, row))
    checked = [verdict for verdict in verdicts if verdict.skipped is None]
    rows = [row for verdict in checked for row in verdict.rows]
    click.echo(summary(rows, len(checked), len(verdicts) - len(checked)))


def _as_data(verdict: Verdict, *, strict: bool) -> Row:
    data = {
        "file": verdict.name,
        "valid": not verdict.fails(strict=strict),
        "findings": list(verdict.rows),
    }
    return {**data, "skipped": verdict.skipped} if verdict.skipped else data


# ---------------------------------------------------------------------- checking
def _asked(client: Client, text: Text) -> Verdict:
    other = _other_kind(text)
    if other is not None:
        return Verdict(text.name, skipped=other)
    try:
        content = text.content.decode()
    except UnicodeDecodeError as exc:
        raise Failure(f"{text.name} is not UTF-8 text") from exc
    try:
        return Verdict(text.name, tuple(client.validate(content)["findings"]))
    except CallboardError as exc:
        if exc.code != "too_large" and not isinstance(exc, InvalidPlaybookError):
            raise
        return Verdict(text.name, (_row_of(exc),))


def _examined(session: Session, text: Text) -> Verdict:
    from app.engine.language.examine import examine
    from app.wiring import ToolKinds

    other = _other_kind(text)
    if other is not None:
        return Verdict(text.name, skipped=other)
    most = session.settings.playbook_bytes
    examined = examine(text.content, ToolKinds(), name=text.name, max_bytes=most)
    return Verdict(text.name, tuple(finding.to_dict() for finding in examined.findings))


def _row_of(error: CallboardError) -> Row:
    from app.errors import Finding

    return Finding(error.code, error.message, suggestion=error.remedy).to_dict()


def _other_kind(text: Text) -> str | None:
    """Why a file found in a folder is none of our business; None where it is to be checked."""
    if not text.found:
        return None
    from app.engine.language.source import read

    try:
        data = read(text.content, name=text.name).data
    except InvalidPlaybookError:
        return None  # it may well be a playbook; what is wrong is said where it is checked
    kind = data.get("kind") if isinstance(data, dict) else None
    if isinstance(kind, str) and kind.lower() in KINDS:
        return None
    if isinstance(data, dict) and "workflow" in data:
        return None
    return f"it is of the kind {kind}" if isinstance(kind, str) else "it is no playbook"


# ---------------------------------------------------------------------- reading
def _texts(place: str) -> Iterator[Text]:
    """The text of a file, of all YAML files of a folder, or of stdin. Raises ``Failure``."""
    if place == STDIN:
        yield Text("stdin", sys.stdin.buffer.read())
        return
    path = Path(place)
    if not path.is_dir():
        yield Text(str(path), _content(path))
        return
    found = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    if not found:
        raise Failure(f"there is no .yaml file in {path}")
    for file in found:
        yield Text(str(file), _content(file), found=True)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as exc:
        raise Failure(f"there is no file {path}") from exc
    except OSError as exc:
        raise Failure(f"{path} cannot be read: {exc.strerror}") from exc
