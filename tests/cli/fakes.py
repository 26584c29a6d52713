"""Fake children (real processes that do next to nothing), and the real API on the memory twins."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import psutil
import structlog
from click.testing import CliRunner, Result

from app.cli.child import Program
from app.cli.house import wait_ready
from app.cli.supervisor import Supervisor
from app.services.health import Check
from app.settings import Settings, process_environment

#: Says that it runs, and ends on SIGTERM as our processes do.
POLITE = """
import os, signal, sys
# Not print: the signal may come while "hello" is being printed, and print is not reentrant.
signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b"goodbye\\n"), sys.exit(0)))
print("hello", flush=True)
while True:
    signal.pause()
"""
#: Does not care for SIGTERM.
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"no\\n"))
print("hello", flush=True)
while True:
    signal.pause()
"""


def program(name: str, code: str, *arguments: str, rank: int = 0, grace: float = 20.0) -> Program:
    """A program that runs the Python *code*."""
    command = (sys.executable, "-I", "-S", "-c", code, *arguments)
    return Program(name, command, process_environment(), rank, grace)


def is_gone(pid: int) -> bool:
    """Whether *pid* has ended, reaped or not; waits a moment for one that is just dying."""
    try:
        process = psutil.Process(pid)
        process.wait(5)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True


@dataclass
class Recorder:
    """A speaker that keeps everything said, and lets tests wait for it."""

    said: list[tuple[str, str]] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def line(self, name: str, text: str) -> None:
        self._add(name, text)

    def say(self, event: str, text: str, **facts: object) -> None:
        self._add(event, text)

    def _add(self, name: str, text: str) -> None:
        with self._news:
            self.said.append((name, text))
            self._news.notify_all()

    def wait_for(self, name: str, text: str, *, times: int = 1) -> None:
        """Until *name* said *text* (or something with it inside) so many times."""

        def heard() -> bool:
            return sum(who == name and text in what for who, what in self.said) >= times

        with self._news:
            assert self._news.wait_for(heard, timeout=30), f"{name} never said {text}: {self.said}"


@dataclass
class Running:
    """A supervisor that runs in a thread; ``error`` is what it ended with."""

    supervisor: Supervisor
    recorder: Recorder
    thread: threading.Thread
    errors: list[Exception]

    def join(self) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive(), "the supervisor does not end"

    def stop(self) -> None:
        self.supervisor.ask_stop()
        self.join()


Supervise = Callable[..., Running]


@dataclass(frozen=True)
class Call:
    """Calls the command line: ``call("status", "1")``; stdout and stderr are apart in the result."""

    runner: CliRunner

    def __call__(self, *words: str, stdin: str | None = None) -> Result:
        from app.cli.root import cli

        return self.runner.invoke(cli, words, input=stdin)


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The URL of an API served by a thread of this process, and workers behind it."""
    import uvicorn

    from app.api.app import create_app
    from app.cli.ready import free_port
    from app.local import local_plane

    class AllWell:
        def checks(self) -> list[Check]:
            return []

    class Server(uvicorn.Server):
        capture_signals = nullcontext  # type: ignore[assignment]  # signals are for the main thread

    settings = replace(settings, port=free_port())
    before = structlog.get_config()
    # Its log lines would come between those of the command line.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with local_plane(settings) as (plane, _, _):
        app = create_app(plane, settings, health=AllWell())
        config = uvicorn.Config(app, port=settings.port, log_config=None, lifespan="off")
        server = Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            wait_ready(settings.url)
            yield settings.url
        finally:
            server.should_exit = True
            thread.join()
            structlog.configure(**before)
