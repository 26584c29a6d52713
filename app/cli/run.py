"""``callboard run``: a playbook in this process, without servers."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from app.cli.output import print_json, print_value, seconds
from app.cli.payload import payload_of, payload_options
from app.cli.reference import CatalogPath, LocalFile, resolve
from app.cli.session import (
    Failure,
    Session,
    api_options,
    json_option,
    on_interrupt,
    pass_session,
)
from app.errors import NotFoundError
from app.settings import Settings

if TYPE_CHECKING:
    from app.local import LocalRun

EPILOG = """\b
Examples:
  callboard run playbooks/demo.yaml
  callboard run report.yaml --set city=Oslo --set days:=7
  callboard run automation/tasks.yaml build      begin with the step 'build'
  callboard run load.yaml --credential pg.json   with what its 'auth: pg' names
  callboard run examples/flights -r distributed  the registered one, on the servers

REF is a file, the name of a file without .yaml, a step of ./callboard.yaml (or ./noetl.yaml),
or a path in the catalog, which runs on the servers."""


@click.command(epilog=EPILOG)
@click.argument("ref")
@click.argument("target", required=False)
@click.option("-t", "--target", "target_option", metavar="STEP", help="begin with this step")
@payload_options
@click.option(
    "-r",
    "--runtime",
    type=click.Choice(["auto", "local", "distributed"]),
    default="auto",
    help="local: in this process; distributed: on the servers; auto: files local, paths not",
)
@click.option("-V", "--version", type=click.IntRange(1), help="version of a registered playbook")
@click.option(
    "--credential",
    "credential_files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    metavar="FILE",
    help="JSON file of a credential, or a folder of them, for this run here; repeatable",
)
@click.option("--dry-run", is_flag=True, help="only check the playbook")
@click.option("-v", "--verbose", is_flag=True, help="show log lines too")
@json_option
@api_options
@pass_session
def run(
    session: Session,
    *,
    ref: str,
    target: str | None,
    target_option: str | None,
    pairs: tuple[str, ...],
    text: str | None,
    file: Path | None,
    runtime: str,
    version: int | None,
    credential_files: tuple[Path, ...],
    dry_run: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run the playbook REF here, beginning with the step TARGET if given.

    Steps show on stderr, the result of the last step on stdout. Exit code 1 where it failed.
    """
    payload = payload_of(pairs, text, file)
    found = resolve(ref, Path())
    on_servers = runtime == "distributed" or (isinstance(found, CatalogPath) and runtime != "local")
    if credential_files and on_servers:
        raise click.UsageError("--credential is for a run here; servers keep theirs")
    if isinstance(found, CatalogPath) and runtime != "local":
        from app.cli.execute import start_and_watch

        started = version or found.version
        start_and_watch(session, found.path, started, payload, as_json=as_json)
        return
    if isinstance(found, CatalogPath):
        raise NotFoundError(f"there is no file {ref} or {ref}.yaml")
    if runtime == "distributed":
        _run_on_servers(session, found, payload, as_json=as_json)
        return
    playbook = _read(found.path)
    entry = target_option or target or found.target
    if dry_run:
        _check_only(session, found.path, playbook, entry, as_json=as_json)
        return
    if entry:
        playbook = _with_entry(playbook, str(found.path), entry, session.settings)
    here = Here(found.path, playbook, payload, credential_files)
    _run_here(session, here, as_json=as_json, verbose=verbose)


def _check_only(
    session: Session, path: Path, text: str, entry: str | None, *, as_json: bool
) -> None:
    """Say everything that ``validate`` says. ``Failure`` where it cannot run as written."""
    from app.cli.findings import finding_text
    from app.engine.language.examine import examine
    from app.wiring import ToolKinds

    most = session.settings.playbook_bytes
    examined = examine(text, ToolKinds(), name=str(path), max_bytes=most)
    rows = [finding.to_dict() for finding in examined.findings]
    valid = not examined.errors
    if as_json:
        print_json({"file": str(path), "valid": valid, "findings": rows})
    for row in () if as_json else rows:
        click.echo(finding_text(str(path), row), err=not valid)
    if not valid or examined.playbook is None:
        raise Failure(f"{path} cannot run as written")
    _check_step(examined.playbook.steps, entry, str(path))
    if not as_json:
        click.echo(f"{path} is valid")


def _check_step(steps: Collection[str], entry: str | None, name: str) -> None:
    if entry is not None and entry not in steps:
        raise NotFoundError(
            f"{name} has no step {entry!r}", remedy=f"its steps are {', '.join(steps)}"
        )


@dataclass(frozen=True, slots=True)
class Here:
    """What is to run in this process."""

    path: Path
    playbook: str
    payload: dict[str, Any]
    credentials: tuple[Path, ...]


def _run_here(session: Session, here: Here, *, as_json: bool, verbose: bool) -> None:
    from app.cli.credential_files import credentials_in
    from app.cli.progress import progress
    from app.cli.watched import Watched
    from app.local import run_playbook
    from app.telemetry.logs import configure

    settings = session.settings
    configure(settings if verbose else replace(settings, log_level="error"))
    secrets = _lent_secrets(settings)
    credentials = [each for place in here.credentials for each in credentials_in(place)]
    began = time.monotonic()
    told = "interrupted: the playbook did not run to its end"
    with on_interrupt(told), progress(sys.stderr, quiet=as_json) as shown:
        watched = Watched(shown)
        done = run_playbook(
            here.playbook,
            settings,
            here.payload,
            watched.see,
            source=str(here.path),
            secrets=secrets,
            credentials=credentials,
        )
    _show(done, watched.steps, time.monotonic() - began, as_json=as_json)


def _show(done: LocalRun, steps: int, took: float, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "execution_id": str(done.execution_id),
                "status": done.status,
                "error": done.error,
                "final_step": done.final_step,
                "result": done.result,
                "results": done.results,
                "duration_seconds": round(took, 3),
            }
        )
    else:
        click.echo(f"{done.status}: {steps} steps in {seconds(took)}", err=True)
        if done.status == "COMPLETED" and done.result is not None:
            print_value(done.result)
    if done.status != "COMPLETED":
        raise Failure(done.error or f"the execution ended as {done.status}")


def _run_on_servers(
    session: Session, found: LocalFile, payload: dict[str, Any], *, as_json: bool
) -> None:
    from app.cli.execute import start_and_watch

    with session.client() as client:
        entry = client.register(_read(found.path))
    start_and_watch(session, entry.path, entry.version, payload, as_json=as_json)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise Failure(f"{path} is not UTF-8 text") from exc
    except OSError as exc:
        raise Failure(f"{path} cannot be read: {exc.strerror}") from exc


def _with_entry(text: str, name: str, entry: str, settings: Settings) -> str:
    """The playbook with *entry* as its first step. Raises ``InvalidPlaybookError``."""
    from app.engine.language.parse import parse
    from app.engine.language.source import read
    from app.wiring import ToolKinds

    playbook = parse(text, ToolKinds(), name=name, max_bytes=settings.playbook_bytes)
    _check_step(playbook.steps, entry, name)
    document = read(text, name=name, max_bytes=settings.playbook_bytes).data
    executor = dict(document.get("executor") or {})
    executor["spec"] = {**(executor.get("spec") or {}), "entry_step": entry}
    # JSON is YAML, and unlike a YAML writer it changes no value on the way.
    return json.dumps({**document, "executor": executor})


def _lent_secrets(settings: Settings) -> dict[str, str]:
    """Where ``callboard up`` runs, its warehouse is there for playbooks that run here, too."""
    if not (settings.home / "stack.json").exists():
        return {}
    from app.embedded.stack import running_stack

    stack = running_stack(settings.home)
    return {"warehouse": stack.warehouse_url} if stack and stack.warehouse_url else {}
