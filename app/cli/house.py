"""Everything of one home together: embedded servers, schema, processes; kept running, and stopped."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from app.cli.pidfile import PidFile, Running
from app.cli.programs import Places, at_home, programs
from app.cli.ready import claim_port, problem_of
from app.cli.supervisor import Speaker, Supervisor
from app.embedded.stack import EmbeddedStack
from app.errors import StartupError, UnavailableError
from app.keychain.keys import keyring
from app.settings import Settings, check_exposure

#: How long the API may take to be ready before we say what is missing, in seconds.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class House:
    """A running house: its supervisor, ready to run, and where its API will be."""

    settings: Settings
    supervisor: Supervisor
    stack: EmbeddedStack
    url: str


def check(settings: Settings) -> None:
    """Raise ``ConflictError`` where the home is in use, ``StartupError`` for the port or address."""
    PidFile.of(settings, "up").claim(
        f"callboard up of {settings.home}",
        remedy="stop it, or set CALLBOARD_HOME and --port for a second one",
    )
    check_exposure(settings)
    claim_port(settings.host, settings.port)


@contextmanager
def house(settings: Settings, speaker: Speaker) -> Iterator[House]:
    """Servers up and schema migrated; ``supervisor.run`` then starts the processes.

    Raises ``ConflictError`` where the home is in use, ``StartupError`` for a port in use or a server
    that does not start. The servers stop on leaving.
    """
    check(settings)
    # Made here where the database is our own: to the processes it looks like any other.
    keyring(settings)
    pidfile = PidFile.of(settings, "up")
    url = at_home(settings).url
    with _servers(settings) as stack:
        pidfile.write(Running.of(os.getpid(), url))
        try:
            names = [name for name in ("postgres", "nats") if getattr(stack, name) is not None]
            places = Places(stack.environment(), stack.worker_environment())
            supervisor = Supervisor(
                programs(settings, places), speaker, servers=stack, server_names=names
            )
            yield House(settings, supervisor, stack, url)
        finally:
            pidfile.remove()


@contextmanager
def _servers(settings: Settings) -> Iterator[EmbeddedStack]:
    """The servers of *settings*, migrated."""
    # Alembic takes as long to import as the servers to start.
    with ThreadPoolExecutor(max_workers=1) as pool:
        upgrade = pool.submit(_migration)
        with EmbeddedStack.for_settings(settings) as stack:
            upgrade.result()(stack.database_url)
            yield stack


def _migration() -> Callable[[str], None]:
    from app.store.migrations import upgrade

    return upgrade


def wait_ready(
    url: str, *, patience: float = PATIENCE, gone: threading.Event | None = None
) -> None:
    """Return when the API at *url* is ready. Raises ``UnavailableError`` with what is missing.

    Gives up as soon as *gone* is set.
    """
    deadline = time.monotonic() + patience
    stopped = gone or threading.Event()
    while (problem := problem_of(url)) is not None:
        if time.monotonic() > deadline:
            raise UnavailableError(f"the API is not ready after {patience:g} s: {problem}")
        if stopped.wait(0.05):
            raise StartupError("the API was stopped before it was ready")
