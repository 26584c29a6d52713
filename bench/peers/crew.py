"""All peers that can be run here, started on one Postgres; the others, each with the reason."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from app.embedded.postgres import EmbeddedPostgres
from bench.peers.catalogue import Spec
from bench.peers.environments import EnvironmentFailedError, make
from bench.peers.peer import Peer, started
from bench.peers.valkey import valkey
from bench.sides import FailedRunError

#: What keeps one peer from running, and no other.
FAILURES = (
    EnvironmentFailedError,
    FailedRunError,
    OSError,
    RuntimeError,
    psycopg.Error,
    subprocess.SubprocessError,
)


@dataclass(frozen=True, slots=True)
class Crew:
    """The peers that run, and why others do not, by their names."""

    peers: list[Peer] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)

    def account(self) -> dict[str, Any]:
        """Who is missing and what failed, for the report."""
        failed = {peer.spec.name: peer.failed for peer in self.peers if peer.failed}
        return {"absent": self.absent, "failed": failed}


@contextlib.contextmanager
def crew(
    specs: Iterable[Spec], postgres: EmbeddedPostgres, folder: Path, say: Callable[[str], None]
) -> Iterator[Crew]:
    """The peers of *specs*, a database each, asleep until their turn; stopped on leaving."""
    found = Crew()
    with ExitStack() as exits:
        for spec in specs:
            say(f"{spec.title}: starting")
            with ExitStack() as own:
                try:
                    peer = _start(spec, postgres, folder, own)
                except FAILURES as error:
                    found.absent[spec.name] = f"{error}"
                    say(f"{spec.title} is left out: {error}")
                    continue
                exits.push(own.pop_all())
            with peer.turn():
                """It has run one step already; from here on it sleeps."""
            found.peers.append(peer)
        yield found


def _start(spec: Spec, postgres: EmbeddedPostgres, folder: Path, exits: ExitStack) -> Peer:
    python = make(spec.environment)
    database_url = postgres.create_database(f"peer_{spec.name.replace('-', '_')}")
    server = None
    if spec.needs_valkey:
        found = exits.enter_context(valkey(python, folder / f"{spec.name}-valkey"))
        server = found.socket, found.pid
    return exits.enter_context(started(spec, python, database_url, folder, server))
