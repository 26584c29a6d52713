"""``callboard config`` and ``callboard version``."""

from __future__ import annotations

from importlib.metadata import version as installed

import click

from app.cli.output import print_json, table
from app.cli.session import Session, api_options, json_option, pass_session
from app.failpoints import ACTIONS, POINTS
from app.settings import describe


@click.command(
    epilog="""\b
Examples:
  callboard config
  callboard config --json | jq '.[] | select(.origin != "default")'
  callboard config --failpoints"""
)
@click.option("--changed", is_flag=True, help="only those that are not at their default")
@click.option("--failpoints", is_flag=True, help="what CALLBOARD_FAILPOINT can name, instead")
@json_option
@api_options
@pass_session
def config(session: Session, changed: bool, failpoints: bool, as_json: bool) -> None:
    """Every setting: its value (secrets masked), where that comes from, what it is for."""
    if failpoints:
        _show_failpoints(as_json=as_json)
        return
    rows = [row for row in describe(session.load()) if not changed or row["origin"] != "default"]
    if as_json:
        print_json(rows)
        return
    shown = [(row["name"], row["value"], row["origin"], row["env"][0], row["help"]) for row in rows]
    click.echo(
        table(shown, ("setting", "value", "origin", "variable", "what it is for"), widest=100)
    )


def _show_failpoints(*, as_json: bool) -> None:
    if as_json:
        print_json({"points": POINTS, "actions": ACTIONS})
        return
    click.echo(table(list(POINTS.items()), ("point", "its operation"), widest=100))
    click.echo()
    click.echo(table(list(ACTIONS.items()), ("action", "the process"), widest=100))


@click.command()
@json_option
def version(as_json: bool) -> None:
    """The version of Callboard."""
    number = installed("callboard")
    if as_json:
        print_json({"version": number})
    else:
        click.echo(f"callboard {number}")
