"""Looking closer: ``explain`` a playbook, ``replay`` an execution, ``verify`` what is shown of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.identity import EXECUTION_ID
from app.cli.output import print_json, print_line, table
from app.cli.reference import LocalFile, resolve
from app.cli.session import Failure, Session, api_options, json_option, pass_session

if TYPE_CHECKING:
    from app.client import Client

#: Events, or executions, asked for at once.
PAGE = 500


#: Sub-playbooks named of those that are waited for.
NAMED = 5
#: Seconds to wait for an answer: a long log takes the server a while to read.
PATIENCE = 600.0


def _patient(session: Session) -> Client:
    from app.client import Client

    return Client(session.url, token=session.settings.api_token, timeout=PATIENCE)


# ---------------------------------------------------------------------- explain
@click.command(
    epilog="""\b
Examples:
  callboard explain playbook.yaml
  callboard explain playbook.yaml --mermaid > plan.mmd
  callboard explain catalog://examples/flights@2"""
)
@click.argument("reference", metavar="FILE|PATH")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="the graph as a Mermaid flowchart")
@json_option
@api_options
@pass_session
def explain(session: Session, reference: str, as_mermaid: bool, as_json: bool) -> None:
    """What a playbook would do, in which order, and what it touches. Runs nothing."""
    target = resolve(reference, Path())
    if isinstance(target, LocalFile):
        found = _explained(session, target.path)
    else:
        with session.client() as client:
            found = client.explain(path=target.path, version=target.version)
    if as_json:
        print_json(found["plan"])
    else:
        click.echo(found["mermaid"] if as_mermaid else found["text"], nl=not as_mermaid)


def _explained(session: Session, path: Path) -> dict[str, Any]:
    from app.engine.language.parse import parse
    from app.engine.plans.mermaid import mermaid
    from app.engine.plans.outline import outline
    from app.engine.plans.plan import explain as planned
    from app.services.control import limits_of
    from app.services.replaying import state_of
    from app.wiring import ToolKinds

    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as exc:
        raise Failure(f"{path} cannot be read as text: {exc}") from exc
    settings = session.settings
    playbook = parse(text, ToolKinds(), name=str(path), max_bytes=settings.playbook_bytes)
    plan = planned(playbook, limits_of(settings))
    return {"plan": state_of(plan), "text": outline(plan), "mermaid": mermaid(plan)}


# ---------------------------------------------------------------------- replay
@click.command(
    epilog="""\b
Examples:
  callboard replay 1234
  callboard replay 1234 --at 17            what happened up to event 17, and the state then
  callboard replay 1234 --step load        only what is about one step"""
)
@click.argument("execution_id", type=EXECUTION_ID)
@click.option("--at", type=click.IntRange(0), help="stop after this event (its seq)")
@click.option("--step", help="only events about this step")
@json_option
@api_options
@pass_session
def replay(
    session: Session, *, execution_id: str, at: int | None, step: str | None, as_json: bool
) -> None:
    """What each event of an execution changed, and the state after them.

    With --json a line per event, then one with the state.
    """
    with _patient(session) as client:
        for page in _pages(client, execution_id, at, step):
            for turn in page["turns"]:
                if as_json:
                    print_line(turn)
                else:
                    click.echo(_turn_text(turn))
            if page["more"]:
                continue
            if as_json:
                print_line({"at_seq": page["next"], "state": page["state"]})
            else:
                click.echo(f"\n{_state_text(page['next'], page['state'])}")


def _pages(
    client: Client, execution_id: str, at: int | None, step: str | None
) -> Iterator[dict[str, Any]]:
    """Page by page: an execution may have more events than fit into memory."""
    after, more = 0, True
    while more:
        page = client.replay(execution_id, after=after, at=at, step=step, limit=PAGE)
        after, more = page["next"], page["more"]
        yield page


def _turn_text(turn: dict[str, Any]) -> str:
    clock = (turn["at"] or "")[11:23]
    what = turn["step"] or ""
    if (turn["visit"] or 1) > 1:
        what += f"#{turn['visit']}"
    if turn["iteration"] is not None and turn["iteration"] >= 0:
        what += f"[{turn['iteration']}]"
    head = f"{turn['seq']:>5}  {clock}  {turn['type']:<20} {what}".rstrip()
    return "\n".join([head, *(f"{'':>21}{_change_text(change)}" for change in turn["changes"])])


def _change_text(change: dict[str, Any]) -> str:
    before = f"{change['before']} → " if change["before"] else ""
    return f"{change['what']} {change['name']}: {before}{change['after']}"


def _state_text(seq: int, state: dict[str, Any]) -> str:
    lines = [f"At event {seq}: {state['status']}"]
    lines += [
        f"{name + ':':<10}{', '.join(state[name])}"
        for name in ("running", "waiting", "failed")
        if state[name]
    ]
    called = [
        f"{key} → execution {child['execution_id']} ({child['path']})"
        for key, child in state["children"].items()
        if child["waits"]
    ]
    if called:
        more = f" and {len(called) - NAMED} more" if len(called) > NAMED else ""
        lines.append(f"{'waits:':<10}{', '.join(called[:NAMED])}{more}")
    if state["ctx"]:
        held = (f"{name} (event {seq})" for name, seq in state["ctx"].items())
        lines.append(f"{'ctx:':<10}{', '.join(held)}")
    if state["error"]:
        lines.append(f"{'error:':<10}{state['error'].get('message', '')}")
    if not state["steps"]:
        return "\n".join(lines)
    rows = [_step_cells(name, step) for name, step in state["steps"].items()]
    header = ("step", "status", "visit", "attempt", "iterations", "result", "error")
    return "\n".join([*lines, "", table(rows, header)])


def _step_cells(name: str, step: dict[str, Any]) -> tuple[Any, ...]:
    loop = step["loop"]
    failed = f", {loop['failed']} failed" if loop and loop["failed"] else ""
    # Of a cursor nobody knows the total before it has ended.
    growing = loop and loop["cursor"] and step["status"] == "running"
    whole = " so far" if growing else f"/{loop['size']}" if loop else ""
    counts = f"{loop['ended']}{whole}{failed}" if loop else ""
    result = f"event {step['result_seq']}" if step["result_seq"] else ""
    error = (step["error"] or {}).get("message")
    return (
        name,
        step["status"],
        step["visit"] or None,
        step["attempt"] or None,
        counts,
        result,
        error,
    )


# ---------------------------------------------------------------------- verify
@click.command(
    epilog="""\b
Examples:
  callboard verify 1234
  callboard verify --all
  callboard verify --all --json | jq 'select(.ok | not)'"""
)
@click.argument("execution_id", type=EXECUTION_ID, required=False)
@click.option("--all", "every", is_flag=True, help="every execution, newest first")
@json_option
@api_options
@pass_session
def verify(session: Session, execution_id: str | None, every: bool, as_json: bool) -> None:
    """Prove that what is shown of an execution is what its log says. Exit code 1 where it is not.

    With --json an object, with --all one per line.
    """
    if (execution_id is None) != every:
        raise click.UsageError("give an execution id, or --all")
    checked = findings = 0
    with _patient(session) as client:
        for one in _executions(client) if execution_id is None else [execution_id]:
            answer = client.verify(one)
            checked += 1
            findings += len(answer["findings"])
            _show(answer, every=every, as_json=as_json)
            if every:
                _tell(checked, findings, as_json=as_json)
    if every:
        click.echo(_summary(checked, findings), err=as_json)
    if findings:
        raise Failure(f"{findings} finding{'' if findings == 1 else 's'}")


def _executions(client: Client) -> Iterator[str]:
    """The ids of all executions, newest first."""
    cursor = None
    while True:
        page = client.executions(limit=PAGE, cursor=cursor)
        for row in page:
            cursor = row["execution_id"]
            yield cursor
        if len(page) < PAGE:
            return


def _show(answer: dict[str, Any], *, every: bool, as_json: bool) -> None:
    if as_json:
        print_line(answer) if every else print_json(answer)
        return
    if answer["ok"] and every:
        return
    events = f"{answer['events']} events"
    said = "as its log says" if answer["ok"] else f"{len(answer['findings'])} findings"
    click.echo(f"{answer['execution_id']}  {answer['path']}  {answer['status']}  {events}: {said}")
    for item in answer["findings"]:
        where = f"event {item['seq']}: " if item["seq"] else ""
        click.echo(f"  {where}{item['message']} [{item['code']}]")


def _tell(checked: int, findings: int, *, as_json: bool) -> None:
    """Progress on a terminal, on one line."""
    if not as_json and sys.stderr.isatty():
        click.echo(f"\r{_summary(checked, findings)}\r", err=True, nl=False)


def _summary(checked: int, findings: int) -> str:
    executions = f"{checked} execution{'' if checked == 1 else 's'}"
    return f"verified {executions}, {findings} finding{'' if findings == 1 else 's'}"
