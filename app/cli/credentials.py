"""``callboard credential``: what tools log in with, kept sealed by the servers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from app.cli.credential_files import (
    asked,
    checked,
    credentials_in,
    document,
    fields_of,
    warn_of_history,
)
from app.cli.database import database
from app.cli.executions import watch_to_end
from app.cli.output import print_json, print_value, table
from app.cli.session import Commands, Failure, Session, api_options, json_option, pass_session
from app.errors import CallboardError

FilePath = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group(cls=Commands)
def credential() -> None:
    """Keep what tools log in with. Secrets go in, and come out for workers only."""


@credential.command(
    "add",
    epilog="""\b
Examples:
  callboard credential add warehouse --type postgres --set host=db --set user=etl --set database=dw
  callboard credential add -f warehouse.json
  pass show api-token | callboard credential add api --type bearer --stdin
  callboard credential add prod --type basic --set user=etl --path 'etl/*' --pool trusted

Without a secret field it is asked for, where there is a terminal. --stdin takes JSON, or the
secret itself as text.""",
)
@click.argument("name", required=False)
@click.option("--type", "type_", metavar="TYPE", help="see 'callboard credential types'")
@click.option("--set", "pairs", multiple=True, metavar="KEY=TEXT", help="a field; KEY:=JSON too")
@click.option("--data", metavar="JSON", help="the fields as a JSON object")
@click.option("-f", "--file", type=FilePath, help="JSON: {name, type, data, …}, or the fields")
@click.option("--stdin", "from_stdin", is_flag=True, help="read that from standard input")
@click.option("--description", help="what it is for")
@click.option("--tag", "tags", multiple=True, help="repeatable")
@click.option("--path", "paths", multiple=True, help="only for these playbooks (etl/*); repeatable")
@click.option("--pool", "pools", multiple=True, help="only for workers of this pool; repeatable")
@json_option
@api_options
@pass_session
def add(
    session: Session,
    *,
    name: str | None,
    type_: str | None,
    pairs: tuple[str, ...],
    data: str | None,
    file: Path | None,
    from_stdin: bool,
    description: str | None,
    tags: tuple[str, ...],
    paths: tuple[str, ...],
    pools: tuple[str, ...],
    as_json: bool,
) -> None:
    """Keep a credential under NAME, in place of one that is there."""
    given = _given(file, data, type_, from_stdin=from_stdin)
    told = {"name": name, "type": type_, "description": description, "tags": list(tags) or None}
    given |= {key: value for key, value in told.items() if value is not None}
    if paths or pools:
        given["scope"] = {"paths": list(paths), "pools": list(pools)}
    chosen = str(given.get("type") or given.get("credential_type") or "generic")
    fields = fields_of(pairs)
    warn_of_history(chosen, fields | (document(data, "--data")["data"] if data else {}))
    fields = {**(given.get("data") or {}), **fields}
    given["data"] = fields if from_stdin or file or data else asked(chosen, fields)
    if not given.get("name"):
        raise click.UsageError("give the credential a NAME")
    with session.client() as client:
        kept = client.credential_put(checked(given, "what was given"))
    _told([kept], as_json=as_json, many=False)


@credential.command("list", epilog="\b\nExample:\n  callboard credential list --type postgres")
@click.option("--type", "type_", help="only those of this type")
@click.option("-q", "--query", help="only those with this in name, description or a tag")
@json_option
@api_options
@pass_session
def list_(session: Session, type_: str | None, query: str | None, as_json: bool) -> None:
    """The credentials there are, without what they hold."""
    show_credentials(session, type_=type_, query=query, as_json=as_json)


@credential.command(
    "get", epilog="\b\nExample:\n  callboard credential get warehouse --include-data"
)
@click.argument("name")
@click.option("--include-data", is_flag=True, help="its fields too, secrets as ***")
@json_option
@api_options
@pass_session
def get(session: Session, name: str, include_data: bool, as_json: bool) -> None:
    """One credential, by name or id."""
    show_credential(session, name, include_data=include_data, as_json=as_json)


@credential.command("test", epilog="\b\nExample:\n  callboard credential test warehouse")
@click.argument("name")
@json_option
@api_options
@pass_session
def test(session: Session, name: str, as_json: bool) -> None:
    """Connect with it, on a worker. Exit code 1 where that fails."""
    with session.client() as client:
        started = client.credential_test(name)
        watch_to_end(client, started.execution_id, as_json=as_json, result=True)


@credential.command("delete", epilog="\b\nExample:\n  callboard credential delete warehouse")
@click.argument("name")
@json_option
@api_options
@pass_session
def delete(session: Session, name: str, as_json: bool) -> None:
    """Forget the credential of that name or id."""
    with session.client() as client:
        gone = client.credential_delete(name)
    if as_json:
        print_json(gone)
    else:
        click.echo(f"credential {gone['name']} deleted")


@credential.command("types", epilog="\b\nExample:\n  callboard credential types postgres")
@click.argument("name", required=False)
@json_option
def types(name: str | None, as_json: bool) -> None:
    """The types of credentials, or the fields of one as JSON Schema."""
    from app.engine.credential_types import TYPES, type_named

    if name is not None:
        found = type_named(name)
        if found is None:
            raise Failure(
                f"there is no credential type {name!r} (see 'callboard credential types')"
            )
        print_json(found.schema())
        return
    if as_json:
        print_json({each.names[0]: each.schema() for each in TYPES})
        return
    rows = [(each.names[0], ", ".join(each.names[1:]), each.about) for each in TYPES]
    rows.append(("generic", "", "Anything; every field is secret but those with well-known names."))
    click.echo(table(rows, ("type", "also called", "what it is"), widest=100))


@credential.command(
    "rotate",
    epilog="""\b
Examples:
  callboard credential rotate --new-key      the key file of the home: a new key, and all moved to it
  callboard credential rotate                all moved to the first of CALLBOARD_ENCRYPTION_KEYS""",
)
@click.option("--new-key", is_flag=True, help="first make a new key in the home's key file")
@json_option
@pass_session
def rotate(session: Session, new_key: bool, as_json: bool) -> None:
    """Seal everything with the first key; on a server's machine, directly in the database.

    May be interrupted and repeated, while servers run. Exit code 1 where rows are left.
    """
    from app.wiring import rotate as rotate_all

    def told(renewed: int) -> None:
        if not as_json:
            click.echo(f"{renewed} sealed again", err=True)

    with database(session.settings) as url:
        done = rotate_all(session.settings, url, new_key=new_key, told=told)
    if as_json:
        print_json({"key": done.key_id, "renewed": done.renewed, "left": done.left})
    else:
        click.echo(f"{done.renewed} sealed again with key {done.key_id}, {done.left} left")
    if done.left:
        why = done.damaged or ("servers still seal with another key: start them again",)
        raise Failure("\n".join(why))


# ---------------------------------------------------------------------- shared with the catalog
def keep_files(session: Session, place: Path, *, as_json: bool) -> None:
    """Keep the credential of a file, or all of a folder; one refused does not keep others out."""
    kept: list[dict[str, Any]] = []
    problems: list[str] = []
    with session.client() as client:
        for given in credentials_in(place):
            try:
                kept.append(client.credential_put(given))
            except CallboardError as exc:
                problems.append(f"{given.name}: {exc}")
    _told(kept, as_json=as_json, many=place.is_dir())
    if problems:
        raise Failure("\n".join(problems))


def show_credentials(
    session: Session, *, type_: str | None = None, query: str | None = None, as_json: bool
) -> None:
    """A table of credentials, or their JSON."""
    with session.client() as client:
        items = client.credentials(type=type_, q=query)
    if as_json:
        print_json({"items": items})
        return
    if not items:
        click.echo("no such credential is kept", err=True)
    rows = [
        (
            row["name"],
            row["type"],
            ", ".join(row["tags"]),
            row["description"],
            row["updated_at"][:19].replace("T", " "),
        )
        for row in items
    ]
    click.echo(table(rows, ("name", "type", "tags", "description", "changed")))


def show_credential(session: Session, name: str, *, include_data: bool, as_json: bool) -> None:
    """One credential; its fields with the secrets masked where asked for."""
    with session.client() as client:
        found = client.credential(name, include_data=include_data)
    if as_json:
        print_json(found)
    else:
        print_value({key: value for key, value in found.items() if value not in (None, [], {})})


def _given(
    file: Path | None, data: str | None, type_: str | None, *, from_stdin: bool
) -> dict[str, Any]:
    """What one of -f, --data and --stdin says."""
    if (file is not None) + (data is not None) + from_stdin > 1:
        raise click.UsageError("give one of -f, --data and --stdin")
    if file is not None:
        given = next(credentials_in(file))
        return given.model_dump(exclude_unset=True)
    if data is not None:
        return document(data, "--data")
    return _from_stdin(sys.stdin.read(), type_) if from_stdin else {}


def _from_stdin(text: str, type_: str | None) -> dict[str, Any]:
    """JSON, or the secret itself where the type has one that stands alone."""
    from app.engine.credential_types import type_named

    if text.lstrip().startswith("{"):
        return document(text, "standard input")
    found = type_named(type_ or "")
    names = [field.names[0] for field in found.fields if field.secret] if found else ["value"]
    return {"data": {names[0]: text.strip()}}


def _told(kept: list[dict[str, Any]], *, as_json: bool, many: bool) -> None:
    if as_json:
        print_json(kept if many else kept[0] if kept else None)
        return
    for row in kept:
        click.echo(f"credential {row['name']} ({row['type']}) kept")
