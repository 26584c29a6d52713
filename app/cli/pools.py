"""``callboard pools``: which worker processes are alive."""

from __future__ import annotations

from typing import Any

import click

from app.cli.output import print_json, table
from app.cli.session import Session, api_options, json_option, pass_session


@click.command(epilog="\b\nExample:\n  callboard pools")
@json_option
@api_options
@pass_session
def pools(session: Session, as_json: bool) -> None:
    """The worker processes that give signs of life."""
    with session.client() as client:
        found = client.pools()
    if as_json:
        print_json(found)
        return
    header = ("name", "pool", "status", "threads", "last sign of life")
    click.echo(table([_cells(row) for row in found], header))


def _cells(row: dict[str, Any]) -> tuple[Any, ...]:
    beat = (row["heartbeat"] or "")[:19].replace("T", " ")
    return row["name"], row["labels"].get("pool"), row["status"], row["capacity"], beat
