"""``callboard demo``: the whole system from nothing to rows in Postgres, and down again."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

import app
from app.cli.output import print_json, print_value, seconds
from app.cli.session import Failure, Session, json_option, pass_session
from app.errors import CallboardError, StartupError
from app.settings import Settings

PLAYBOOK = "demo.yaml"


@click.command(epilog="\b\nExample:\n  callboard demo")
@json_option
@pass_session
def demo(session: Session, as_json: bool) -> None:
    """Start everything, run the example 'flights' durably, show its rows, stop everything.

    Where 'callboard up' runs, it is used as it is.
    """
    began = time.monotonic()
    with _api(session, quiet=as_json) as found:
        ready = time.monotonic() - began
        if not as_json:
            took = f"everything is up in {seconds(ready)}: {found.url}"
            click.echo(took if found.is_ours else f"using {found.said}", err=True)
        status, rows, steps = _flights(session, found.url, as_json=as_json)
    total = time.monotonic() - began
    numbers = {
        "steps": steps,
        "execution_seconds": round(status["duration_seconds"], 3),
        "startup_seconds": round(ready, 3),
        "total_seconds": round(total, 3),
    }
    if as_json:
        print_json({"status": status["status"], "result": rows, **numbers})
        return
    print_value(rows)
    told = f"\n{steps} steps in {seconds(status['duration_seconds'])}"
    if found.is_ours:
        told += f"; all of it, from nothing and back, in {seconds(total)}"
    else:
        told += f"; 'callboard status {status['execution_id']}' shows them again"
    click.echo(told, err=True)


@dataclass(frozen=True, slots=True)
class _Api:
    """Where it is. ``said`` is empty where it was started for this, and ends with it."""

    url: str
    said: str = ""

    @property
    def is_ours(self) -> bool:
        return not self.said


def _flights(session: Session, url: str, *, as_json: bool) -> tuple[dict[str, Any], Any, int]:
    """Run the playbook; its last status, its result, how many units of work ended."""
    from app.cli.progress import progress
    from app.cli.watch import steps_run, watch
    from app.client import Client

    folder = playbooks_folder()
    with Client(url, token=session.settings.api_token) as client:
        entry = client.register((folder / PLAYBOOK).read_text(encoding="utf-8"))
        payload = {"data": str(folder / "data"), "api": url}
        started = client.execute(entry.path, payload, version=entry.version)
        with progress(sys.stderr, quiet=as_json) as shown:
            status = watch(client, started.execution_id, shown)
        if status["status"] != "COMPLETED":
            raise Failure(status["error"] or f"the demo ended as {status['status']}")
        return status, client.result(started.execution_id), steps_run(status)


@contextmanager
def _api(session: Session, *, quiet: bool) -> Iterator[_Api]:
    """A ready API: that of a running ``callboard up``, else one started for this."""
    from app.cli.house import wait_ready
    from app.cli.pidfile import PidFile
    from app.cli.ready import free_port

    running = PidFile.of(session.settings, "up").read()
    if running is not None and running.url:
        wait_ready(running.url)
        yield _Api(running.url, f"'callboard up' (process {running.pid}) at {running.url}")
        return
    if not quiet:
        click.echo("starting Postgres, NATS and four processes of ours", err=True)
    settings = replace(
        session.settings,
        host="127.0.0.1",
        port=free_port(),
        log_format="json",
        http_own_api="allow",  # one step asks it
    )
    with _house(settings) as url:
        yield _Api(url)


@contextmanager
def _house(settings: Settings) -> Iterator[str]:
    """Everything up and ready; stopped on leaving. What the processes say is told if it fails."""
    from app.cli.house import house, wait_ready

    listener = _Listener()
    errors: list[CallboardError] = []
    gone = threading.Event()
    with house(settings, listener) as running:
        thread = threading.Thread(
            target=_supervise, args=(running.supervisor.run, errors, gone), daemon=True
        )
        thread.start()
        try:
            try:
                wait_ready(running.url, gone=gone)
            except StartupError as exc:
                raise (errors[0] if errors else exc) from None
            yield running.url
        except CallboardError as exc:
            raise Failure(f"{exc}\n{listener.text()}") from exc
        finally:
            running.supervisor.ask_stop()
            thread.join()


def _supervise(run: Any, errors: list[CallboardError], gone: threading.Event) -> None:
    try:
        run()
    except CallboardError as exc:
        errors.append(exc)
    finally:
        gone.set()


class _Listener:
    """Keeps the last lines, for the case that something goes wrong."""

    def __init__(self) -> None:
        self._last: list[str] = []

    def line(self, name: str, text: str) -> None:
        self._last = [*self._last[-39:], f"  {name} | {text}"]

    def say(self, event: str, text: str, **facts: object) -> None:  # noqa: ARG002 (text says it all)
        self.line("up", text)

    def text(self) -> str:
        return "\n".join(self._last)


def playbooks_folder() -> Path:
    """Where the examples are: inside an installed package, beside ``app`` in a checkout."""
    package = Path(app.__file__).parent
    for candidate in (package / "_playbooks", package.parent / "playbooks"):
        if (candidate / PLAYBOOK).is_file():
            return candidate
    raise StartupError(
        "the example playbooks are missing from this installation",
        remedy="install the package 'callboard' again",
    )
