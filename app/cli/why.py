"""``callboard why``: why an execution, or a step of it, does not go on, or failed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from app.cli.identity import EXECUTION_ID
from app.cli.output import print_json, seconds, table
from app.cli.session import Session, api_options, json_option, pass_session

#: Seconds to wait for an answer: a long log takes the server a while to read.
PATIENCE = 600.0
#: Units of work (iterations) whose attempts are listed; ``--json`` has more.
UNITS = 5

Row = dict[str, Any]


@click.command(
    epilog="""\b
Examples:
  callboard why 1234
  callboard why 1234 load
  callboard why 1234 --json | jq .reason"""
)
@click.argument("execution_id", type=EXECUTION_ID)
@click.argument("step", required=False)
@json_option
@api_options
@pass_session
def why(session: Session, execution_id: str, step: str | None, as_json: bool) -> None:
    """Why STEP does not run, or why it failed; without STEP, whatever is not through."""
    from app.client import Client

    with Client(session.url, session.settings.api_token, timeout=PATIENCE) as client:
        found = client.why(execution_id, step)
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join(_lines(found, named=step is not None)))


def _lines(found: Row, *, named: bool) -> Iterator[str]:
    yield (
        f"Execution {found['execution_id']} of {found['path']} (version {found['version']}): "
        f"{found['status']}"
    )
    yield f"{found['reason']['because']}."
    yield from _remedy(found["reason"])
    for step in found["steps"]:
        yield ""
        yield from _step(step, whole=named)


def _step(step: Row, *, whole: bool) -> Iterator[str]:
    name = click.style(step["name"], bold=True)
    yield f"{name} ({step['status']}): {step['reason']['because']}"
    yield from _remedy(step["reason"])
    for unit in step["units"][:UNITS]:
        yield from _unit(unit)
    if len(step["units"]) > UNITS:
        yield f"  … and {len(step['units']) - UNITS} more"
    yield from _failure(step)
    if step["tail"] and (whole or step["status"] == "failed"):
        yield "  output:"
        yield from (f"    {line}" for line in step["tail"].splitlines())


def _remedy(reason: Row) -> Iterator[str]:
    if reason["remedy"]:
        yield f"  → {reason['remedy']}"


def _unit(unit: Row) -> Iterator[str]:
    if unit["iteration"] >= 0:
        yield f"  iteration {unit['iteration']}:"
    rows = [
        (
            one["attempt"],
            one["outcome"] + (", reported late" if one["late"] else ""),
            one["worker"],
            (one["started"] or one["due"] or "")[11:19],
            (one["ended"] or "")[11:19],
            seconds(one["duration_ms"] / 1000) if one["duration_ms"] is not None else "",
            one["error"],
        )
        for one in unit["attempts"]
    ]
    header = ("attempt", "outcome", "worker", "started", "ended", "took", "error")
    yield from (f"  {line}" for line in table(rows, header).splitlines())


def _failure(step: Row) -> Iterator[str]:
    """What the failed task was given, beside what the playbook says."""
    error = step["error"]
    if not error:
        return
    task = f" in task {error['task']}" if error.get("task") else ""
    yield f"  error:    {error.get('kind', 'unknown')}{task}: {error.get('message', '')}"
    rendered, written = error.get("rendered"), step["written"]
    if isinstance(rendered, dict):
        for name, value in rendered.items():
            yield f"  rendered: {name} = {_value(value)}"
            if isinstance(written, dict) and name in written:
                yield f"  template: {name} = {_value(written[name])}"
    elif rendered:
        yield f"  rendered: {rendered}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
