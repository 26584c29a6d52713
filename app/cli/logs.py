"""``callboard logs``: what the steps of an execution printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from app.cli.identity import EXECUTION_ID
from app.cli.output import print_line
from app.cli.session import Session, api_options, json_option, on_interrupt, pass_session
from app.engine.output import Lines
from app.engine.ports import Pointer

if TYPE_CHECKING:
    from app.client import Client

#: Seconds that the server waits for something to show.
WAIT = 5


@click.command(
    epilog="""\b
Examples:
  callboard logs 1234
  callboard logs 1234 --step load --follow
  callboard logs 1234 --stream stderr --tail 20
  callboard logs 1234 --json | jq -r .text"""
)
@click.argument("execution_id", type=EXECUTION_ID)
@click.option("--step", help="only what this step printed, without its name before each line")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="only this one")
@click.option("-f", "--follow", is_flag=True, help="go on until the execution has ended")
@click.option("--tail", type=click.IntRange(0, 10_000), help="begin with the last lines, so many")
@json_option
@api_options
@pass_session
def logs(
    session: Session,
    *,
    execution_id: str,
    step: str | None,
    stream: str | None,
    follow: bool,
    tail: int | None,
    as_json: bool,
) -> None:
    """What the steps of an execution printed: live while they run, and afterwards.

    Lines begin with the name of their step. With --json one object per line, each a piece of text.
    """
    lines = Lines(named=step is None)
    shown = 0
    with session.client() as client, on_interrupt("stopped looking on"):
        which = {"step": step, "stream": stream}
        for piece in pieces_of(client, execution_id, which, follow=follow, tail=tail):
            shown += 1
            if as_json:
                print_line(piece)
            else:
                text = lines.of(_pointer(execution_id, piece), piece["stream"], piece["text"])
                # As it was printed: colours too, wherever this goes.
                click.echo(text, nl=False, color=True)
    if not shown and tail != 0:
        who = f"step {step} of execution {execution_id}" if step else f"execution {execution_id}"
        where = f" to {stream}" if stream else ""
        click.echo(f"{who} has printed nothing{where}", err=True)


def pieces_of(
    client: Client,
    execution_id: str,
    which: dict[str, Any],
    *,
    follow: bool = False,
    tail: int | None = None,
) -> Iterator[dict[str, Any]]:
    """What was printed, in order; with *follow* also what is still to come."""
    page = client.output(execution_id, **which, tail=tail)
    while True:
        yield from page["chunks"]
        # After the last lines there is nothing but what is still to come.
        nothing_more = page["ended"] or tail is not None or not page["chunks"]
        if page["ended"] or (nothing_more and not follow):
            return
        wait = WAIT if follow else None
        page = client.output(execution_id, **which, after=page["next"], wait=wait)


def _pointer(execution_id: str, piece: dict[str, Any]) -> Pointer:
    place = (piece[name] for name in ("step", "visit", "iteration", "attempt"))
    return Pointer(int(execution_id), *place)
