"""``callboard up``: everything on this machine, from one command, until Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import TYPE_CHECKING

import click

from app.cli.output import seconds
from app.cli.session import Session, pass_session
from app.errors import CallboardError
from app.settings import Settings, process_environment

if TYPE_CHECKING:
    from app.cli.house import House
    from app.cli.supervisor import Speaker

EPILOG = """\b
Examples:
  callboard up
  callboard up --port 9000 --workers 2 --threads 16
  DATABASE_URL=postgresql://… NATS_URL=nats://… callboard up

Without DATABASE_URL and NATS_URL it starts Postgres and NATS of its own, with their data in
CALLBOARD_HOME. Ctrl-C stops everything in order; a second Ctrl-C kills what still runs."""


@click.command(epilog=EPILOG)
@click.option("--host", help="address the API listens on")
@click.option("--port", type=click.IntRange(1, 65535), help="port of the API")
@click.option("--workers", type=click.IntRange(1, 64), help="worker processes")
@click.option("--threads", type=click.IntRange(1, 512), help="steps at once per worker process")
@pass_session
def up(
    session: Session,
    *,
    host: str | None,
    port: int | None,
    workers: int | None,
    threads: int | None,
) -> None:
    """Start Postgres, NATS, API, orchestrator, worker and scheduler, and keep them running."""
    settings = session.load(
        host=host or session.overrides.get("host"),
        port=port or session.overrides.get("port"),
        worker_processes=workers,
        worker_threads=threads,
    ).settings
    try:
        _run(_with_log_format(settings))
    except KeyboardInterrupt:
        click.echo("stopped before it was up", err=True)


def _run(settings: Settings) -> None:
    from app.cli.house import check, house
    from app.tools.child.isolate import hide_memory

    hide_memory()  # steps may run as our own user, and our environment holds secrets
    check(settings)  # before anything is said: one that is refused has nothing to announce
    stop = Stop()
    speaker = _speaker(settings, stop)
    began = time.monotonic()
    with stop.listening():
        speaker.say("starting", f"starting everything of {settings.home}", home=str(settings.home))
        with house(settings, speaker) as running:
            stop.ends(running.supervisor.ask_stop)
            announcer = threading.Thread(
                target=_announce, args=(running, speaker, began, stop), daemon=True
            )
            announcer.start()
            try:
                running.supervisor.run()
            finally:
                stop.gone.set()
                announcer.join()
                speaker.say("stopping", "all processes have stopped; stopping the servers")
    speaker.say("stopped", "stopped")


class Stop:
    """Ctrl-C and its relatives. The first asks for an orderly end, the second for a quick one.

    Before there is anything to ask, it interrupts what is being started.
    """

    def __init__(self) -> None:
        #: Set when the processes have ended.
        self.gone = threading.Event()
        self._ask: Callable[[], None] | None = None

    def ends(self, ask: Callable[[], None]) -> None:
        """From now on call *ask*; it must be safe in a signal handler."""
        self._ask = ask

    def ask(self) -> None:
        if self._ask is None:
            raise KeyboardInterrupt
        self._ask()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals; give them back on leaving."""
        before = {
            number: signal.signal(number, self._signalled)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        self.ask()


def _announce(running: House, speaker: Speaker, began: float, stop: Stop) -> None:
    """Say when the API is ready and what to do then, or what is in the way."""
    from app.cli.house import wait_ready

    url = running.url
    try:
        wait_ready(url, gone=stop.gone)
    except CallboardError as exc:
        problem = str(exc)
        if not stop.gone.is_set():
            running.supervisor.soon(lambda: speaker.say("not_ready", problem))
        return
    took = time.monotonic() - began
    text = (
        f"ready in {seconds(took)}: the API is at {url}\n"
        "try:  callboard register -d playbooks\n"
        "      callboard execute examples/flights --watch"
    )
    running.supervisor.soon(lambda: speaker.say("ready", text, url=url, seconds=round(took, 3)))


def _with_log_format(settings: Settings) -> Settings:
    """Our processes write into pipes, so it is us who know whether somebody reads along."""
    if settings.log_format != "auto":
        return settings
    return replace(settings, log_format="console" if sys.stdout.isatty() else "json")


def _speaker(settings: Settings, stop: Stop) -> Speaker:
    from app.cli.speaker import JsonSpeaker, TerminalSpeaker

    if settings.log_format == "json":
        return JsonSpeaker(stop.ask)
    colour = sys.stdout.isatty() and "NO_COLOR" not in process_environment()
    return TerminalSpeaker(stop.ask, colour=colour)
