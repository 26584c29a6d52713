"""``callboard execute``: a registered playbook, on the servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from app.cli.executions import status, watch_to_end
from app.cli.identity import EXECUTION_ID
from app.cli.output import print_json
from app.cli.payload import payload_of, payload_options
from app.cli.session import Session, api_options, json_option

EPILOG = """\b
Examples:
  callboard execute examples/flights --watch
  callboard execute reports/daily --set day=2030-01-31 --version 3
  callboard execute playbook examples/flights -i input.json --json
  callboard execute status 1234"""


@click.command(epilog=EPILOG)
@click.argument("words", nargs=-1, required=True, metavar="[playbook] PATH | status ID")
@payload_options
@click.option("-V", "--version", type=click.IntRange(1), help="default: the newest")
@click.option("-w", "--watch", "watching", is_flag=True, help="look on until it has ended")
@json_option
@api_options
@click.pass_context
def execute(
    ctx: click.Context,
    *,
    words: tuple[str, ...],
    pairs: tuple[str, ...],
    text: str | None,
    file: Path | None,
    version: int | None,
    watching: bool,
    as_json: bool,
) -> None:
    """Start the playbook registered as PATH, or show where an execution stands.

    With --watch exit code 1 where it did not complete.
    """
    session = ctx.ensure_object(Session)
    if words[0] == "status" and len(words) == 2:
        execution_id = EXECUTION_ID.convert(words[1], None, ctx)
        ctx.invoke(status, execution_id=execution_id, watching=watching, as_json=as_json)
        return
    if words[0] == "playbook" and len(words) == 2:
        words = words[1:]
    if len(words) != 1:
        raise click.UsageError(f"one path is needed, not {' '.join(words)!r}")
    payload = payload_of(pairs, text, file)
    if watching:
        start_and_watch(session, words[0], version, payload, as_json=as_json)
        return
    with session.client() as client:
        started = client.execute(words[0], payload, version=version).model_dump()
    if as_json:
        print_json(started)
        return
    click.echo("Execution started:")
    print_json(started)


def start_and_watch(
    session: Session,
    path: str,
    version: int | None,
    payload: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Start it and look on to its end. ``Failure`` where it did not complete."""
    with session.client() as client:
        started = client.execute(path, payload, version=version)
        if not as_json:
            click.echo(f"execution {started.execution_id} of {path} started", err=True)
        watch_to_end(client, started.execution_id, as_json=as_json, result=True)
