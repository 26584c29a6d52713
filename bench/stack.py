"""Everything that is measured, started: servers, the processes of ``callboard up``, those of the floor."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg

from app.cli.house import wait_ready
from app.cli.programs import Places, at_home, programs
from app.cli.ready import free_port
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.stack import EmbeddedStack
from app.errors import StartupError
from app.settings import load, process_environment
from app.store.migrations import upgrade
from bench.floor import board

#: Processes of the floor by the names of those whose part they play.
FLOOR = {"web": "server", "orchestrator": "orchestrator", "worker": "worker"}

#: Connections that Postgres takes where peers are measured, too.
CONNECTIONS = 300


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are measured: where its API and its log are, and its processes."""

    url: str
    database_url: str
    pids: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Sides:
    """Both, and the server and the folder that others may share."""

    engine: Side
    floor: Side
    postgres: EmbeddedPostgres
    folder: Path


@contextlib.contextmanager
def stack(home: Path | None = None, *, guests: bool = False) -> Iterator[Sides]:
    """Both sides on one durable Postgres and one NATS, ready; stopped on leaving.

    With *guests*, Postgres has connections for the peers, too.
    """
    with _servers(home, guests=guests) as (servers, folder, exits):
        assert servers.postgres is not None
        engine, ours = _engine(servers, folder, exits)
        floor, theirs = _floor(servers, folder, exits)
        for url in (engine.url, floor.url):
            _wait(url, {**ours, **theirs}, folder)
        yield Sides(engine, floor, servers.postgres, folder)
        # All at once; one after the other each would wait for what the next one holds.
        for process in (*ours.values(), *theirs.values()):
            process.terminate()


@contextlib.contextmanager
def engine_stack(home: Path | None = None) -> Iterator[Side]:
    """The engine alone, on a durable Postgres and a NATS of its own, ready."""
    with _servers(home) as (servers, folder, exits):
        engine, processes = _engine(servers, folder, exits)
        _wait(engine.url, processes, folder)
        yield engine
        for process in processes.values():
            process.terminate()


@contextlib.contextmanager
def _servers(
    home: Path | None, *, guests: bool = False
) -> Iterator[tuple[EmbeddedStack, Path, ExitStack]]:
    """Migrated servers, the folder of all logs, and what ends the processes before them."""
    with ExitStack() as exits:
        folder = home or Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        servers = exits.enter_context(EmbeddedStack(folder))
        assert servers.postgres is not None
        if guests:
            make_room(servers.postgres)
        upgrade(servers.database_url)
        yield servers, folder, exits


def make_room(postgres: EmbeddedPostgres) -> None:
    """Restart with connections for all: each peer keeps its own open while others have a turn."""
    with psycopg.connect(postgres.admin_url, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}".encode())
    postgres.stop()
    postgres.start()


def _server_pids(servers: EmbeddedStack) -> dict[str, int]:
    assert servers.postgres is not None
    assert servers.nats is not None
    return {"postgres": servers.postgres.pid or 0, "nats": servers.nats.pid or 0}


def _pids(processes: Mapping[str, subprocess.Popen[bytes]]) -> dict[str, int]:
    return {name.removeprefix("floor-"): process.pid for name, process in processes.items()}


def _engine(
    servers: EmbeddedStack, folder: Path, exits: ExitStack
) -> tuple[Side, dict[str, subprocess.Popen[bytes]]]:
    """The processes that ``callboard up`` starts, with its defaults."""
    settings = load({}, home=folder, port=free_port()).settings
    places = Places(servers.environment(), servers.worker_environment())
    processes = {
        program.name: start_process(
            program.name, program.command, program.environment, folder, exits
        )
        for program in programs(settings, places)
    }
    pids = _server_pids(servers) | _pids(processes)
    return Side(at_home(settings).url, servers.database_url, pids), processes


def _floor(
    servers: EmbeddedStack, folder: Path, exits: ExitStack
) -> tuple[Side, dict[str, subprocess.Popen[bytes]]]:
    assert servers.postgres is not None
    database_url = servers.postgres.create_database("floor")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(board.SCHEMA)
    port = free_port()
    variables = {
        **process_environment(),
        board.DATABASE: database_url,
        board.NATS: servers.nats_url,
        board.PORT: str(port),
    }
    processes = {
        f"floor-{name}": start_process(
            f"floor-{name}",
            (sys.executable, "-m", f"bench.floor.{module}"),
            variables,
            folder,
            exits,
        )
        for name, module in FLOOR.items()
    }
    pids = _server_pids(servers) | _pids(processes)
    return Side(f"http://127.0.0.1:{port}", database_url, pids), processes


def start_process(
    name: str,
    command: tuple[str, ...],
    environment: Mapping[str, str],
    folder: Path,
    exits: ExitStack,
) -> subprocess.Popen[bytes]:
    """A process that logs into *folder* and is stopped with *exits*."""
    log = exits.enter_context((folder / f"{name}.log").open("wb"))
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, cwd=Path(__file__).parents[1]
    )
    exits.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(url: str, processes: Mapping[str, subprocess.Popen[bytes]], folder: Path) -> None:
    """Return when *url* is ready. Raises ``StartupError`` where a process has ended instead."""
    wait_ready(url)
    for name, process in processes.items():
        if process.poll() is not None:
            said = (folder / f"{name}.log").read_text(errors="replace")[-2000:]
            raise StartupError(f"{name} ended with {process.returncode}: {said}")
