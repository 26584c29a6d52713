"""A supervisor in a thread, a command line to call, and an API for it to talk to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from app.cli.child import Program
from app.cli.programs import variables_of
from app.cli.supervisor import Servers, Supervisor
from app.settings import Settings
from tests.cli.fakes import Call, Recorder, Running, Supervise, serving


@pytest.fixture
def supervise() -> Iterator[Supervise]:
    """Run programs under a supervisor; whatever is left of them is killed after the test."""
    started: list[Running] = []

    def start(
        *programs: Program, servers: Servers | None = None, server_names: tuple[str, ...] = ()
    ) -> Running:
        recorder = Recorder()
        supervisor = Supervisor(programs, recorder, servers=servers, server_names=server_names)
        errors: list[Exception] = []

        def run() -> None:
            try:
                supervisor.run()
            except Exception as exc:  # noqa: BLE001 (handed to the test)
                errors.append(exc)

        running = Running(supervisor, recorder, threading.Thread(target=run), errors)
        running.thread.start()
        started.append(running)
        return running

    yield start
    for running in started:
        running.supervisor.ask_stop()
        running.supervisor.ask_stop()
        running.join()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home of its own for the commands of a test."""
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path) -> Settings:
    return replace(Settings(), home=home)


@pytest.fixture
def call(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """Call the command line in this process, with no setting of the real environment."""
    for variable in variables_of(*(item.name for item in fields(Settings))):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("CALLBOARD_HOME", str(home))
    root = logging.getLogger()
    handlers, level, structure = list(root.handlers), root.level, structlog.get_config()
    yield Call(CliRunner())
    # `run` sets up logging for its process, onto a stream that is gone now.
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.configure(**structure)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the real API on the memory twins, with workers that run steps in this process."""
    with serving(replace(Settings(), home=tmp_path_factory.mktemp("api"))) as url:
        yield url
