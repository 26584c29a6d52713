"""``callboard events``: what happened in an execution."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from app.cli.identity import EXECUTION_ID
from app.cli.output import print_line, seconds
from app.cli.session import Session, api_options, json_option, on_interrupt, pass_session
from app.engine.events import claim_iteration

if TYPE_CHECKING:
    from app.client import Client

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
PAGE = 500


class _EventType(click.ParamType[str]):
    """A type of event, in our words or NoETL's."""

    name = "type"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from app.api.vocabulary import WORDS

        known = sorted({*WORDS, *(theirs for theirs, _ in WORDS.values())})
        if value not in known:
            near = difflib.get_close_matches(value, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            self.fail(f"there is no event of the type {value!r}; {hint}", param, ctx)
        return value


@click.command(
    epilog="""\b
Examples:
  callboard events 1234
  callboard events 1234 --type step.failed
  callboard events 1234 --follow --json | jq .type"""
)
@click.argument("execution_id", type=EXECUTION_ID)
@click.option("-f", "--follow", is_flag=True, help="go on until the execution has ended")
@click.option(
    "--type",
    "type_",
    type=_EventType(),
    help="only events of this type, e.g. step.failed or call.error",
)
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
    shown = 0
    with session.client() as client, on_interrupt("stopped looking on"):
        for event in events_of(client, execution_id, type_, since, follow=follow):
            shown += 1
            if as_json:
                print_line(event)
            else:
                click.echo(_event_line(event))
    if not shown:
        which = f" of the type {type_}" if type_ else ""
        after = f" after {since}" if since else ""
        click.echo(f"execution {execution_id} has no event{which}{after}", err=True)


def events_of(
    client: Client,
    execution_id: str,
    type_: str | None = None,
    since: int = 0,
    *,
    follow: bool = False,
) -> Iterator[dict[str, Any]]:
    """Its events after *since*, in order; with *follow* also those still to come."""
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
    iteration = -1 if event["iteration"] is None else event["iteration"]
    if iteration >= 0:
        what += f"[{iteration}]"
    elif iteration < -1:
        what += f" (claim {claim_iteration(iteration)})"
    if (event["visit"] or 1) > 1:
        what += f" #{event['visit']}"
    attempt = f"attempt {event['attempt']}" if (event["attempt"] or 1) > 1 else ""
    parts = (what, attempt, seconds(event["duration"]), _told(event), event["error"] or "")
    told = "  ".join(part for part in parts if part)
    return f"{event['seq']:>5}  {clock}  {event['type']:<20} {told}".rstrip()


def _told(event: dict[str, Any]) -> str:  # noqa: PLR0911 (one case per event type)
    """What else there is to say about an event of its type, in a few words."""
    context = event["context"]
    match event["type"]:
        case "execution.started":
            return f"{context['path']} version {context['version']}"
        case "child.started":
            return f"{context['path']} ({context['child_execution_id']})"
        case "child.ended":
            return f"({context['child_execution_id']})"
        case "step.skipped" | "execution.cancelled" | "attempt.expired":
            return context.get("reason") or ""
        case "loop.started" if context.get("frame") is None:
            return f"{context['size']} items"
        case "frame.opened":
            return f"{context['rows']} rows"
        case "loop.done":
            return f"{context['success']} of {context['total']} went well"
        case _:
            return ""
