"""``callboard config`` and ``callboard version``."""

from __future__ import annotations

from importlib.metadata import version as installed

import click

from app.cli.output import print_json, table
from app.cli.session import Session, api_options, json_option, pass_session
from app.settings import describe


@click.command(
    epilog="""\b
Examples:
  callboard config
  callboard config --json | jq '.[] | select(.origin != "default")'"""
)
@click.option("--changed", is_flag=True, help="only those that are not at their default")
@json_option
@api_options
@pass_session
def config(session: Session, changed: bool, as_json: bool) -> None:
    """Every setting: its value (secrets masked), where that comes from, what it is for."""
    rows = [row for row in describe(session.load()) if not changed or row["origin"] != "default"]
    if as_json:
        print_json(rows)
        return
    shown = [(row["name"], row["value"], row["origin"], row["env"][0], row["help"]) for row in rows]
    click.echo(
        table(shown, ("setting", "value", "origin", "variable", "what it is for"), widest=100)
    )


@click.command()
@json_option
def version(as_json: bool) -> None:
    """The version of Callboard."""
    number = installed("callboard")
    if as_json:
        print_json({"version": number})
    else:
        click.echo(f"callboard {number}")
