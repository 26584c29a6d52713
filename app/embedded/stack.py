"""Both servers together: what ``callboard up`` and the demo stand on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from app.embedded.nats import EmbeddedNats
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.private import make_folder, write_private
from app.settings import Settings

NOTE = "stack.json"


@dataclass(frozen=True, slots=True)
class RunningStack:
    """What another process needs to reach the servers of a home; ``pid`` is their owner."""

    pid: int
    started: float
    database_url: str
    nats_url: str
    warehouse_url: str | None


class EmbeddedStack:
    """Postgres and NATS of one *home*, each started unless the URL of another is given.

    A context manager. The servers stop with it, and with this process however it dies.
    """

    def __init__(
        self,
        home: Path,
        *,
        database_url: str | None = None,
        nats_url: str | None = None,
        durable: bool = True,
    ) -> None:
        self.home = home.expanduser().absolute()
        self._database_url = database_url
        self._nats_url = nats_url
        self._noted = False
        self.postgres = (
            None if database_url else EmbeddedPostgres(self.home / "postgres", durable=durable)
        )
        self.nats = None if nats_url else EmbeddedNats(self.home / "nats")

    @classmethod
    def for_settings(cls, settings: Settings) -> Self:
        """The stack that *settings* ask for: where both URLs are set it starts nothing."""
        return cls(
            settings.home,
            database_url=settings.external_database_url,
            nats_url=settings.nats_url,
        )

    # ------------------------------------------------------------------ life
    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start what is needed, side by side; all or nothing. Raises ``StartupError``."""
        if not self._servers:
            return
        make_folder(self.home)
        try:
            self._for_each(lambda server: server.start())
        except BaseException:
            self._for_each(lambda server: server.stop())
            raise
        self._write_note()

    def stop(self) -> None:
        """Stop what was started."""
        if self._noted:
            (self.home / NOTE).unlink(missing_ok=True)
            self._noted = False
        self._for_each(lambda server: server.stop())

    def alive(self, name: str) -> bool:
        """Whether the server *name* (``postgres`` or ``nats``) runs."""
        return self._servers[name].alive

    def kill(self, name: str) -> None:
        """Kill -9 the server *name*, as a crash would."""
        self._servers[name].kill()

    def restart(self, name: str) -> None:
        """Start the server *name* again where it died; same data, same URL."""
        self._servers[name].start()
        self._write_note()

    # ------------------------------------------------------------------ where they are
    @property
    def database_url(self) -> str:
        """libpq URL of the log's database."""
        if self.postgres is not None:
            return self.postgres.url
        assert self._database_url is not None
        return self._database_url

    @property
    def nats_url(self) -> str:
        if self.nats is not None:
            return self.nats.url
        assert self._nats_url is not None
        return self._nats_url

    @property
    def warehouse_url(self) -> str | None:
        """libpq URL of the database that playbooks load into; None where Postgres is not ours."""
        return self.postgres.warehouse_url if self.postgres is not None else None

    def environment(self) -> dict[str, str]:
        """The variables that tell our processes where the servers are."""
        return {"DATABASE_URL": self.database_url, **self.worker_environment()}

    def worker_environment(self) -> dict[str, str]:
        """The same for workers, who get no credentials of the log's database."""
        variables = {"NATS_URL": self.nats_url}
        if self.warehouse_url is not None:
            variables["NOETL_SECRET_WAREHOUSE"] = self.warehouse_url
        return variables

    # ------------------------------------------------------------------ inside
    @property
    def _servers(self) -> Mapping[str, EmbeddedPostgres | EmbeddedNats]:
        pairs = {"postgres": self.postgres, "nats": self.nats}
        return {name: server for name, server in pairs.items() if server is not None}

    def _for_each(self, act: Callable[[EmbeddedPostgres | EmbeddedNats], None]) -> None:
        """Do it to all servers at once; the first error is raised when all are through."""
        with ThreadPoolExecutor(max_workers=2) as pool:
            runs = [pool.submit(act, server) for server in self._servers.values()]
        for run in runs:
            run.result()

    def _write_note(self) -> None:
        running = RunningStack(
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            database_url=self.database_url,
            nats_url=self.nats_url,
            warehouse_url=self.warehouse_url,
        )
        write_private(self.home / NOTE, json.dumps(asdict(running)))
        self._noted = True


def running_stack(home: Path) -> RunningStack | None:
    """The stack that a living process owns in *home*; None where there is none."""
    stack = _read_note(home)
    if stack is None:
        return None
    try:
        # The id alone may be another process's by now; id and time of birth are not.
        alive = abs(psutil.Process(stack.pid).create_time() - stack.started) < 1.0
    except psutil.NoSuchProcess:
        return None
    return stack if alive else None


def _read_note(home: Path) -> RunningStack | None:
    try:
        return RunningStack(**json.loads((home / NOTE).read_text()))
    except FileNotFoundError:
        return None
