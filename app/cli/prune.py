"""Removing old executions: ``prune``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.identity import AGE
from app.cli.output import print_json
from app.cli.session import Session, api_options, json_option, on_interrupt, pass_session

if TYPE_CHECKING:
    from app.cli.archive import Archive
    from app.client import Client

STATUSES = ("COMPLETED", "FAILED", "CANCELLED")


@dataclass(slots=True)
class Total:
    """What went, or would go."""

    executions: int = 0
    events: int = 0

    def add(self, members: list[dict[str, Any]]) -> None:
        self.executions += len(members)
        self.events += sum(member["events"] for member in members)

    def __str__(self) -> str:
        plural = "" if self.executions == 1 else "s"
        return f"{self.executions:,} execution{plural} with {self.events:,} events"


@click.command(
    epilog="""\b
Examples:
  callboard prune --older-than 30d --dry-run          how many would go
  callboard prune --older-than 30d --archive backup/  write them to a file, then remove them
  callboard prune --keep 1000                         the newest 1,000 of each playbook stay"""
)
@click.option("--older-than", type=AGE, help="since their end, such as 30d, 12h or 90m")
@click.option(
    "--keep",
    type=click.IntRange(0, 1_000_000),
    help="the newest N of each playbook stay; alone, what ended within the hour stays too",
    metavar="N",
)
@click.option(
    "--status",
    "statuses",
    type=click.Choice(STATUSES, case_sensitive=False),
    multiple=True,
    help="only these; may be repeated",
)
@click.option("--path", help="only of this playbook")
@click.option("--dry-run", is_flag=True, help="count, and remove nothing")
@click.option(
    "--batch",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="executions removed in one transaction",
)
@click.option(
    "--archive",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="write each to a file in this folder before it goes",
)
@json_option
@api_options
@pass_session
def prune(
    session: Session,
    *,
    older_than: float | None,
    keep: int | None,
    statuses: tuple[str, ...],
    path: str | None,
    dry_run: bool,
    batch: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Remove executions that have ended, with all that they started and all they kept.

    What still runs stays, and whatever belongs together with it. --keep, --status and --path look
    at executions that no other one started. It may be stopped at any time, and called again.
    """
    if older_than is None and keep is None:
        raise click.UsageError("say which may go: --older-than, or --keep")
    request = {
        "older_than": older_than,
        "keep": keep,
        "status": list(statuses),
        "path": path,
        "batch": batch,
    }
    total = Total()
    told = on_interrupt("stopped; what was removed is gone, everything else is as it was")
    with session.client() as client, told:
        if dry_run:
            for page in _pages(client, {**request, "dry_run": True}):
                total.add(page["executions"])
        elif folder is None:
            for page in _pages(client, request):
                total.add(page["executions"])
        else:
            _archived(client, request, folder, total, as_json=as_json)
            return
    _show(total, {"dry_run": dry_run}, as_json=as_json)


def _archived(
    client: Client, request: dict[str, Any], folder: Path, total: Total, *, as_json: bool
) -> None:
    from app.cli.archive import Archive, batches

    with closing(Archive(folder, client)) as archive:
        for page in _pages(client, {**request, "dry_run": True}):
            members = page["executions"]
            for batch in batches(members, request["batch"]):
                total.add(_moved(client, archive, batch, page["ended_before"]))
    place = None if archive.path is None else str(archive.path)
    _show(total, {"dry_run": False, "archive": place, "lost": archive.lost}, as_json=as_json)


def _moved(
    client: Client, archive: Archive, batch: list[dict[str, Any]], ended_before: str
) -> list[dict[str, Any]]:
    """Write these executions to the archive; when they are on disk, remove them. Those that went."""
    told = len(archive.lost)
    chosen = archive.write(batch)
    for ref in archive.lost[told:]:
        click.echo(f"warning: {ref} was gone or damaged before it could be archived", err=True)
    if not chosen:
        return []
    answer = client.prune(executions=chosen, ended_before=ended_before)
    gone: list[dict[str, Any]] = answer["executions"]
    return gone


def _pages(client: Client, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers, until there is nothing behind the last one. All mean the same moment."""
    while True:
        page = client.prune(**request)
        yield page
        if page["behind"] is None:
            return
        request = {
            **request,
            "after": page["behind"],
            "older_than": None,
            "ended_before": page["ended_before"],
        }


def _show(total: Total, more: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({"executions": total.executions, "events": total.events, **more})
        return
    verb = "would go" if more["dry_run"] else "removed"
    click.echo(f"{verb}: {total}")
    if more.get("archive"):
        click.echo(f"archive: {more['archive']}")
