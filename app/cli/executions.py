"""Looking at executions, and ending them: ``status``, ``result``, ``cancel``, ``executions``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.events import ENDED
from app.cli.identity import EXECUTION_ID, MOMENT
from app.cli.notes import Notes, Told
from app.cli.output import print_json, seconds, table
from app.cli.progress import Row
from app.cli.session import (
    Failure,
    Session,
    api_options,
    json_option,
    on_interrupt,
    pass_session,
)
from app.cli.watch import row_of

if TYPE_CHECKING:
    from app.client import Client

#: Remarks wider than this are cut.
REMARK = 100


@click.command(epilog="\b\nExamples:\n  callboard status 1234\n  callboard status 1234 --watch")
@click.argument("execution_id", type=EXECUTION_ID)
@click.option("-w", "--watch", "watching", is_flag=True, help="look on until it has ended")
@json_option
@api_options
@pass_session
def status(session: Session, execution_id: str, watching: bool, as_json: bool) -> None:
    """Where an execution stands, step by step. With --watch exit code 1 where it did not complete."""
    with session.client() as client:
        if watching:
            watch_to_end(client, execution_id, as_json=as_json)
            return
        found = client.status(execution_id, variables=as_json)
        if as_json:
            print_json(found)
            return
        notes = Notes(client, execution_id)
        reason = notes.reason() if found["status"] == "CANCELLED" else None
        click.echo(status_text(found, notes.of(found), reason))


def watch_to_end(client: Client, execution_id: str, *, as_json: bool, result: bool = False) -> None:
    """Show the steps until the end, then the outcome; ``Failure`` where it is not COMPLETED."""
    from app.cli.progress import progress
    from app.cli.results import show_result
    from app.cli.watch import watch

    going_on = (
        f"stopped looking on; execution {execution_id} goes on "
        f"(look again with 'callboard status {execution_id} --watch', "
        f"end it with 'callboard cancel {execution_id}')"
    )
    with on_interrupt(going_on), progress(sys.stderr, quiet=as_json) as shown:
        found = watch(client, execution_id, shown, notes=not as_json)
    wanted = result and found["final_step"] is not None
    if as_json:
        value = client.result(execution_id) if wanted else None
        print_json({**found, "result": value} if result else found)
    else:
        took = seconds(found["duration_seconds"])
        click.echo(f"{found['status']} in {took}: execution {execution_id}", err=True)
        if wanted and found["status"] == "COMPLETED":
            show_result(client, execution_id)
    if found["status"] != "COMPLETED":
        raise Failure(found["error"] or f"execution {execution_id} ended as {found['status']}")


def status_text(found: dict[str, Any], told: Told, reason: str | None = None) -> str:
    """The block that people read: what, how far, and a table of the steps."""
    done = found["completed_steps"]
    lines = [
        f"Execution: {found['execution_id']}",
        f"Path:      {found['path']} (version {found['version']})",
        f"Status:    {standing(found)}",
        f"Steps:     {len(done)} completed",
        f"Duration:  {seconds(found['duration_seconds'])}",
    ]
    if found["status"] == "RUNNING" and found["current_step"]:
        lines.append(f"Current:   {found['current_step']}")
    if found["error"]:
        lines.append(f"Error:     {found['error']}")
    if reason:
        lines.append(f"Reason:    {reason}")
    if done:
        lines.append(f"Completed steps: {', '.join(done)}")
    rows = [_step_cells(row_of(step, told)) for step in found["steps"]]
    header = ("step", "status", "visits", "iterations", "remarks")
    return "\n".join([*lines, "", table(rows, header, widest=REMARK)])


def standing(found: dict[str, Any]) -> str:
    """The status for people, which says that an execution is paused."""
    since = found.get("paused_at")
    return f"{found['status']} (paused {since[11:19]} UTC)" if since else str(found["status"])


def _step_cells(row: Row) -> tuple[Any, ...]:
    return row.name, row.status, row.visit or None, row.counts, row.error or row.note


@click.command(
    epilog="""\b
Examples:
  callboard result 1234
  callboard result 1234 load
  callboard result 1234 load --out rows.json"""
)
@click.argument("execution_id", type=EXECUTION_ID)
@click.argument("step", required=False)
@click.option("--step", "named", help="the same as STEP")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="write the JSON into this file; any size",
)
@json_option
@api_options
@pass_session
def result(
    session: Session,
    *,
    execution_id: str,
    step: str | None,
    named: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """The result of STEP; default: of the step that ended last. A large one needs --out or --json."""
    from app.cli.results import save, show_result

    with session.client() as client:
        if out is not None:
            found = client.result_outline(execution_id, step or named)
            size = save(client.result_text(execution_id, found["step"]), out)
            click.echo(f"{size} bytes in {out}", err=True)
        elif as_json:
            print_json(client.result(execution_id, step or named))
        else:
            show_result(client, execution_id, step or named)


@click.command(epilog="\b\nExample:\n  callboard cancel 1234 --reason 'wrong input'")
@click.argument("execution_id", type=EXECUTION_ID)
@click.option("--reason", help="kept in the log")
@click.option("--cascade/--no-cascade", default=True, help="also the executions it started")
@json_option
@api_options
@pass_session
def cancel(
    session: Session, execution_id: str, reason: str | None, cascade: bool, as_json: bool
) -> None:
    """End an execution. One that has ended already stays as it is."""
    with session.client() as client:
        answer = client.cancel(execution_id, reason=reason, cascade=cascade)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{answer['status']}: {answer['message']}")


@click.command(
    epilog="""\b
Examples:
  callboard executions --status FAILED
  callboard executions --path examples/flights"""
)
@click.option(
    "--status",
    "status_",
    type=click.Choice(["RUNNING", *sorted(ENDED)], case_sensitive=False),
    help="only these",
)
@click.option("--path", help="only of this playbook")
@click.option("--after", type=MOMENT, help="started after this time, e.g. 2030-01-31T12:00:00Z")
@click.option("--before", type=MOMENT, help="started before this time")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@json_option
@api_options
@pass_session
def executions(
    session: Session,
    *,
    status_: str | None,
    path: str | None,
    after: str | None,
    before: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Executions, newest first."""
    with session.client() as client:
        found = client.executions(
            status=status_, path=path, started_after=after, started_before=before, limit=limit
        )
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("no execution is like that", err=True)
    header = ("execution", "path", "version", "status", "started", "took", "error")
    click.echo(table([_execution_cells(row) for row in found], header))


def _execution_cells(row: dict[str, Any]) -> tuple[Any, ...]:
    started = row["start_time"][:19].replace("T", " ")
    took = seconds(row["duration_seconds"])
    return (
        row["execution_id"],
        row["path"],
        row["version"],
        standing(row),
        started,
        took,
        row["error"],
    )
