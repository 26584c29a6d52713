"""Playbooks in the catalog: ``register``, ``catalog list|get|register``, ``list``."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import click

from app.cli.credential_files import is_credential
from app.cli.credentials import keep_files, show_credential, show_credentials
from app.cli.executions import executions
from app.cli.findings import finding_line
from app.cli.output import print_json, table
from app.cli.pools import pools
from app.cli.session import Commands, Failure, Session, api_options, json_option, pass_session
from app.errors import InvalidPlaybookError, NotFoundError

SUFFIXES = frozenset({".yaml", ".yml"})
#: What may be registered beside playbooks is NoETL's; others are known once one is there.
KINDS = frozenset({"playbook", "agent", "credential", "mcp", "memory", "subscription"})
#: What may be said before the file.
WORDS = frozenset({"playbook", "credential"})
FilePath = click.Path(path_type=Path, exists=True)


@click.group(cls=Commands)
def catalog() -> None:
    """Register and look up playbooks."""


@click.command(
    epilog="""\b
Examples:
  callboard register -f playbook.yaml
  callboard register -d playbooks
  callboard register playbook -f playbook.yaml     the same, as NoETL writes it
  callboard register credential -f warehouse.json  a credential, or -d FOLDER of them"""
)
@click.argument("words", nargs=-1, metavar="[playbook|credential] [FILE]")
@click.option("-f", "--file", type=FilePath, help="one playbook, or one credential")
@click.option("-d", "--directory", type=FilePath, help="all of a folder and those below it")
@json_option
@api_options
@pass_session
def register(
    session: Session,
    *,
    words: tuple[str, ...],
    file: Path | None,
    directory: Path | None,
    as_json: bool,
) -> None:
    """Check playbooks and store each as the next version of its path.

    A JSON file that is no playbook is a credential, and kept sealed under its name.
    """
    kind, words = (words[0], words[1:]) if words and words[0] in WORDS else ("", words)
    places = [place for place in (file, directory, *map(Path, words)) if place is not None]
    if len(places) != 1:
        raise click.UsageError("give one file or folder: FILE, -f FILE or -d FOLDER")
    if kind == "credential" or (not kind and is_credential(places[0])):
        keep_files(session, places[0], as_json=as_json)
    else:
        _register(session, places[0], as_json=as_json)


@catalog.command("register", epilog="\b\nExample:\n  callboard catalog register playbook.yaml")
@click.argument("file", type=FilePath)
@json_option
@api_options
@pass_session
def catalog_register(session: Session, file: Path, as_json: bool) -> None:
    """Check FILE (or all of a folder) and store it as the next version of its path.

    A JSON file that is no playbook is a credential, and kept sealed under its name.
    """
    if is_credential(file):
        keep_files(session, file, as_json=as_json)
    else:
        _register(session, file, as_json=as_json)


def _register(session: Session, place: Path, *, as_json: bool) -> None:
    """One after the other; what is wrong with one does not keep the others out."""
    done: list[dict[str, Any]] = []
    problems: list[str] = []
    with session.client() as client:
        for path in _playbooks(place):
            try:
                answer = client.register(_text(path)).model_dump()
            except InvalidPlaybookError as exc:
                problems.append(str(InvalidPlaybookError(exc.findings, source=str(path))))
                continue
            done.append({"file": str(path), **answer})
            for warning in answer["warnings"]:
                click.echo(finding_line(str(path), warning), err=True)
            if not as_json:
                click.echo(f"{path}: registered {answer['path']} version {answer['version']}")
    if as_json:
        print_json(done if place.is_dir() else done[0] if done else None)
    if problems:
        raise Failure("\n".join(problems))


@catalog.command(
    "list",
    epilog="""\b
Examples:
  callboard catalog list
  callboard catalog list Playbook --json""",
)
@click.argument("kind", required=False)
@click.option("--path", help="every version of this one")
@json_option
@api_options
@pass_session
def catalog_list(session: Session, kind: str | None, path: str | None, as_json: bool) -> None:
    """What is registered: the newest version of each path."""
    _list(session, kind, path, as_json=as_json)


def _list(session: Session, kind: str | None, path: str | None, *, as_json: bool) -> None:
    with session.client() as client:
        entries = client.catalog_list(kind, path=path)
        if kind is not None and not entries:
            _check_kind(kind, {row["kind"] for row in client.catalog_list()})
    if as_json:
        print_json({"entries": entries})
        return
    if not entries:
        of = f" of the kind {kind}" if kind else ""
        under = f" under path {path!r}" if path else ""
        click.echo(f"nothing{of} is registered{under}", err=True)
    rows = [
        (row["path"], row["version"], row["kind"], row["created_at"][:19].replace("T", " "))
        for row in entries
    ]
    click.echo(table(rows, ("path", "version", "kind", "registered")))


def _check_kind(kind: str, registered: Collection[str]) -> None:
    """Raise ``NotFoundError`` where *kind* is no word for anything that can be listed."""
    known = sorted({*KINDS, *(name.lower() for name in registered)})
    words = [*known, *(f"{name}s" for name in known)]
    if kind.lower() in words:
        return
    listed = ["executions", "pools", *words]
    near = difflib.get_close_matches(kind.lower(), listed, n=1)
    remedy = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
    raise NotFoundError(f"there is no kind of resource called {kind!r}", remedy=remedy)


@catalog.command("get", epilog="\b\nExample:\n  callboard catalog get examples/flights > copy.yaml")
@click.argument("path")
@click.option("-V", "--version", type=click.IntRange(1), help="default: the newest")
@json_option
@api_options
@pass_session
def catalog_get(session: Session, path: str, version: int | None, as_json: bool) -> None:
    """The YAML registered as PATH."""
    with session.client() as client:
        entry = client.catalog_get(path, version=version)
    if as_json:
        print_json(entry)
    else:
        click.echo(entry["content"], nl=not entry["content"].endswith("\n"))


@click.command(
    "list",
    epilog="\b\nExamples:\n  callboard list executions\n  callboard list playbooks\n  callboard list pools",
)
@click.argument("what", default="executions")
@json_option
@api_options
@click.pass_context
def list_(ctx: click.Context, what: str, as_json: bool) -> None:
    """List executions, pools, credentials, or the resources of a kind (playbooks)."""
    if what in {"execution", "executions"}:
        ctx.invoke(executions, limit=20, as_json=as_json)
    elif what in {"pool", "pools", "workers"}:
        ctx.invoke(pools, as_json=as_json)
    elif what in {"credential", "credentials"}:
        show_credentials(ctx.ensure_object(Session), as_json=as_json)
    else:
        _list(ctx.ensure_object(Session), what, None, as_json=as_json)


@click.command(epilog="\b\nExample:\n  callboard get credential warehouse --include-data")
@click.argument("what", type=click.Choice(["credential", "playbook"]))
@click.argument("name")
@click.option("--include-data", is_flag=True, help="a credential's fields too, secrets as ***")
@json_option
@api_options
@click.pass_context
def get(ctx: click.Context, *, what: str, name: str, include_data: bool, as_json: bool) -> None:
    """Show one credential, or the YAML of one playbook."""
    if what == "credential":
        session = ctx.ensure_object(Session)
        show_credential(session, name, include_data=include_data, as_json=as_json)
    else:
        ctx.invoke(catalog_get, path=name, version=None, as_json=as_json)


def _playbooks(place: Path) -> Iterator[Path]:
    """*place* itself, or the YAML files in and below it, in order. Raises ``Failure`` for none."""
    if not place.is_dir():
        if not place.exists():
            raise Failure(f"there is no file {place}")
        yield place
        return
    found = sorted(path for path in place.rglob("*") if path.suffix in SUFFIXES)
    if not found:
        raise Failure(f"there is no .yaml file in {place}")
    yield from found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as exc:
        raise Failure(f"{path} cannot be read as text: {exc}") from exc
