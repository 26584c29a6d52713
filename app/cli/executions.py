"""Looking at executions, and ending them: ``status``, ``events``, ``result``, ``cancel``, ``executions``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.output import print_json, print_line, seconds, table
from app.cli.session import Failure, Session, api_options, json_option, pass_session

if TYPE_CHECKING:
    from app.client import Client

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
PAGE = 500


@click.command(epilog="\b\nExamples:\n  callboard status 1234\n  callboard status 1234 --watch")
@click.argument("execution_id")
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
    else:
        click.echo(status_text(found))


def watch_to_end(client: Client, execution_id: str, *, as_json: bool, result: bool = False) -> None:
    """Show the steps until the end, then the outcome; ``Failure`` where it is not COMPLETED."""
    from app.cli.progress import progress
    from app.cli.results import show_result
    from app.cli.watch import watch

    with progress(sys.stderr, quiet=as_json) as shown:
        found = watch(client, execution_id, shown)
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


def status_text(found: dict[str, Any]) -> str:
    """The block that people read: what, how far, and a table of the steps."""
    done = found["completed_steps"]
    lines = [
        f"Execution: {found['execution_id']}",
        f"Path:      {found['path']} (version {found['version']})",
        f"Status:    {found['status']}",
        f"Steps:     {len(done)} completed",
        f"Duration:  {seconds(found['duration_seconds'])}",
    ]
    if found["status"] == "RUNNING" and found["current_step"]:
        lines.append(f"Current:   {found['current_step']}")
    if found["error"]:
        lines.append(f"Error:     {found['error']}")
    if done:
        lines.append(f"Completed steps: {', '.join(done)}")
    rows = [_step_cells(step) for step in found["steps"]]
    header = ("step", "status", "visits", "iterations", "error")
    return "\n".join([*lines, "", table(rows, header)])


def _step_cells(step: dict[str, Any]) -> tuple[Any, ...]:
    failed = f", {step['failed']} failed" if step["failed"] else ""
    counts = f"{step['ended']}/{step['total']}{failed}" if step["total"] else ""
    return step["name"], step["status"], step["visit"] or None, counts, step["error"]


@click.command(
    epilog="""\b
Examples:
  callboard events 1234
  callboard events 1234 --type step.failed
  callboard events 1234 --follow --json | jq .type"""
)
@click.argument("execution_id")
@click.option("-f", "--follow", is_flag=True, help="go on until the execution has ended")
@click.option("--type", "type_", help="only events of this type, e.g. step.failed or call.error")
@click.option("--since", type=click.IntRange(0), default=0, help="only events after this seq")
@json_option
@api_options
@pass_session
def events(
    session: Session,
    *,
    execution_id: str,
    follow: bool,
    type_: str | None,
    since: int,
    as_json: bool,
) -> None:
    """What happened, in order. With --json one event per line."""
    with session.client() as client:
        for event in _events(client, execution_id, type_, since, follow=follow):
            if as_json:
                print_line(event)
            else:
                click.echo(_event_line(event))


def _events(
    client: Client, execution_id: str, type_: str | None, since: int, *, follow: bool
) -> Iterator[dict[str, Any]]:
    while True:
        # Asked before the events: what comes after a look at an ended execution is nothing.
        ended = follow and _has_ended(client, execution_id)
        page = client.events(
            execution_id, since_seq=since or None, event_type=type_, page_size=PAGE
        )
        yield from page
        if page:
            since = page[-1]["seq"]
        if len(page) == PAGE:
            continue
        if not follow or ended:
            return
        time.sleep(0.2)


def _has_ended(client: Client, execution_id: str) -> bool:
    found = client.execution(execution_id, include_events=False)
    return found["status"] in ENDED


def _event_line(event: dict[str, Any]) -> str:
    clock = (event["created_at"] or "")[11:23]
    what = event["step"] or ""
    if event["iteration"] is not None and event["iteration"] >= 0:
        what += f"[{event['iteration']}]"
    if (event["visit"] or 1) > 1:
        what += f" #{event['visit']}"
    attempt = f"attempt {event['attempt']}" if (event["attempt"] or 1) > 1 else ""
    took = seconds(event["duration"])
    parts = (f"{event['seq']:>5}  {clock}  {event['type']:<20} {what}", attempt, took)
    return "  ".join(part for part in (*parts, event["error"] or "") if part)


@click.command(
    epilog="""\b
Examples:
  callboard result 1234
  callboard result 1234 load
  callboard result 1234 load --out rows.json"""
)
@click.argument("execution_id")
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
@click.argument("execution_id")
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
@click.option("--after", help="started after this time, e.g. 2030-01-31T12:00:00Z")
@click.option("--before", help="started before this time")
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
    header = ("execution", "path", "version", "status", "started", "took", "error")
    click.echo(table([_execution_cells(row) for row in found], header))


def _execution_cells(row: dict[str, Any]) -> tuple[Any, ...]:
    started = row["start_time"][:19].replace("T", " ")
    took = seconds(row["duration_seconds"])
    return (
        row["execution_id"],
        row["path"],
        row["version"],
        row["status"],
        started,
        took,
        row["error"],
    )
