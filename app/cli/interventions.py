"""Intervening in executions: ``pause``, ``resume``, ``retry``, ``rerun``."""

from __future__ import annotations

from typing import Any

import click

from app.cli.executions import watch_to_end
from app.cli.identity import EXECUTION_ID
from app.cli.output import print_json
from app.cli.session import Session, api_options, json_option, pass_session

CASCADE = click.option(
    "--cascade/--no-cascade", default=True, help="also the executions it started"
)
VERSION = click.option(
    "-V", "--version", help="of the playbook: a number or latest; default: the one it ran"
)
WATCH = click.option("-w", "--watch", "watching", is_flag=True, help="look on until it has ended")


@click.command(epilog="\b\nExample:\n  callboard pause 1234 --reason 'the warehouse is down'")
@click.argument("execution_id", type=EXECUTION_ID)
@click.option("--reason", help="kept in the log")
@CASCADE
@json_option
@api_options
@pass_session
def pause(
    session: Session, execution_id: str, reason: str | None, cascade: bool, as_json: bool
) -> None:
    """Start nothing new in an execution. Steps that run may end; time limits go on."""
    with session.client() as client:
        show(client.pause(execution_id, reason=reason, cascade=cascade), as_json=as_json)


@click.command(epilog="\b\nExample:\n  callboard resume 1234")
@click.argument("execution_id", type=EXECUTION_ID)
@CASCADE
@json_option
@api_options
@pass_session
def resume(session: Session, execution_id: str, cascade: bool, as_json: bool) -> None:
    """Let a paused execution go on where it stopped."""
    with session.client() as client:
        show(client.resume(execution_id, cascade=cascade), as_json=as_json)


@click.command(
    epilog="""\b
Examples:
  callboard retry 1234                    what failed, and what comes after it
  callboard retry 1234 load               everything from the step load on
  callboard retry 1234 --version latest   with the playbook as it was mended"""
)
@click.argument("execution_id", type=EXECUTION_ID)
@click.argument("step", required=False)
@VERSION
@WATCH
@json_option
@api_options
@pass_session
def retry(
    session: Session,
    *,
    execution_id: str,
    step: str | None,
    version: str | None,
    watching: bool,
    as_json: bool,
) -> None:
    """Try again what failed in an execution, or everything from STEP on.

    One that has ended stays as it ended: another one starts and takes over what was done. In one
    that runs, attempts that wait for a later time are made now.
    """
    with session.client() as client:
        answer = client.retry(execution_id, step=step, version=number(version))
        follow(session, answer, watching=watching, as_json=as_json)


@click.command(epilog="\b\nExample:\n  callboard rerun 1234 --watch")
@click.argument("execution_id", type=EXECUTION_ID)
@VERSION
@WATCH
@json_option
@api_options
@pass_session
def rerun(
    session: Session, *, execution_id: str, version: str | None, watching: bool, as_json: bool
) -> None:
    """Start the playbook of an execution again, from the beginning, with the same workload."""
    with session.client() as client:
        answer = client.rerun(execution_id, version=number(version))
        follow(session, answer, watching=watching, as_json=as_json)


def number(version: str | None) -> int | str | None:
    """What the API takes as a version. Raises ``BadParameter``."""
    if version is None or version == "latest":
        return version
    if not version.isdecimal() or version == "0":
        raise click.BadParameter(
            f"{version!r} is neither a number nor latest", param_hint="--version"
        )
    return int(version)


def show(answer: dict[str, Any], *, as_json: bool) -> None:
    """The answer of the API, as data or as a line."""
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['status']}: {answer['message']}")


def follow(session: Session, answer: dict[str, Any], *, watching: bool, as_json: bool) -> None:
    """Show *answer*, and look on to the end of the execution that it names, where asked to."""
    if not (watching and as_json):
        show(answer, as_json=as_json)
    if watching:
        with session.client() as client:
            watch_to_end(client, answer["execution_id"], as_json=as_json, result=True)
