"""The connections of one process to Postgres: a pool, sensible timeouts, errors in our words."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import set_json_loads
from sqlalchemy import Connection, Engine, create_engine

from app.engine import encoding
from app.errors import UnavailableError
from app.store.failures import translated
from app.store.pipelined import Pipelined
from app.store.pool import Pool

# What goes wrong inside a pipeline is raised, and told by us; psycopg would say it a second time.
logging.getLogger("psycopg").setLevel(logging.ERROR)

#: Seconds to wait for a free connection of the pool.
POOL_TIMEOUT = 10

#: What a URL does not say itself: give up on a dead network within seconds, not hours.
NETWORK: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
#: What every session is set to, whatever the server's defaults are.
_SESSION = {
    "default_transaction_isolation": "read committed",
    "timezone": "UTC",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "idle_in_transaction_session_timeout": "60s",
    # Each statement has one right plan, through an index made for it. Postgres shall make it once
    # (planning costs more than running it), and not be misled by a table that is small as yet.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
}
_SETTINGS = "SELECT " + ", ".join(f"set_config('{k}', '{v}', false)" for k, v in _SESSION.items())


_DRIVER = re.compile(r"^postgres(ql)?(\+\w+)?://")


def libpq_url(url: str) -> str:
    """*url* as libpq reads it: ``postgres://`` and SQLAlchemy's ``postgresql+driver://`` too."""
    return _DRIVER.sub("postgresql://", url)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Postgres would not do something, at ``at`` (monotonic seconds); ``state`` is its SQLSTATE."""

    at: float
    state: str
    error: UnavailableError

    @property
    def is_shortage(self) -> bool:
        """It ran out of something: connections, memory, room on its disk."""
        return self.state.startswith("53")


class Database:
    """A pool of connections to the database at *url*; connects on first use, never at creation.

    Every method raises ``UnavailableError`` where Postgres does not answer or all connections are
    busy, and works again as soon as it does: a connection that died is noticed and replaced.
    """

    def __init__(
        self, url: str, *, pool_size: int = 8, application_name: str = "callboard"
    ) -> None:
        self._url = libpq_url(url)
        self._application_name = application_name
        # One for all connections, which look into it: setting this on each would copy the tables
        # of all types every time, and leave a fragmented heap behind wherever connections die.
        self._adapters = AdaptersMap(psycopg.adapters)
        set_json_loads(encoding.loads, self._adapters)
        self._own = threading.local()
        #: The last time that Postgres answered with an error that passes.
        self.refusal: Refusal | None = None
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self._open,
            poolclass=Pool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=POOL_TIMEOUT,
            pool_use_lifo=True,
            isolation_level="AUTOCOMMIT",
            use_native_hstore=False,
            json_serializer=_json_text,
            json_deserializer=encoding.loads,
        )
        self._transactions: Engine = self._engine.execution_options(
            isolation_level="READ COMMITTED"
        )

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A SQLAlchemy connection in a transaction, committed on leaving."""
        with self._translated(), self._transactions.begin() as connection:
            yield connection

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A SQLAlchemy connection on which every statement is a transaction: one round trip."""
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def raw(self) -> Iterator[psycopg.Connection[Any]]:
        """A psycopg connection in autocommit mode; what is left uncommitted is rolled back.

        While this thread has one of its ``own``, it is that: what is read on the way to a commit
        sees what was written, and waits for no second connection.
        """
        own: psycopg.Connection[Any] | None = getattr(self._own, "connection", None)
        if own is not None:
            if own.pgconn.pipeline_status != pq.PipelineStatus.OFF:
                raise UnavailableError("the log cannot be read while its commit is under way")
            yield own
            return
        with self._borrowed() as connection:
            yield connection

    @contextmanager
    def own(self) -> Iterator[Pipelined]:
        """A connection for one transaction; until its end this thread reads through it, too."""
        before = getattr(self._own, "connection", None)
        with self._borrowed() as connection:
            self._own.connection = connection
            try:
                yield connection
            finally:
                self._own.connection = before

    @contextmanager
    def _borrowed(self) -> Iterator[Pipelined]:
        pool = self._engine.pool
        assert isinstance(pool, Pool)
        with self._translated(), pool.lent() as connection:
            yield connection

    def ping(self) -> None:
        """Return if Postgres answers."""
        with self.raw() as connection:
            connection.execute("SELECT 1")

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors in our words; what Postgres refused is remembered, for whoever asks how it is."""
        try:
            with translated():
                yield
        except UnavailableError as exc:
            state = getattr(exc.__cause__, "sqlstate", None)
            if state:
                self.refusal = Refusal(time.monotonic(), state, exc)
            raise

    def _open(self) -> Pipelined:
        parameters = {
            "application_name": self._application_name,
            **NETWORK,
            **conninfo_to_dict(self._url),
        }
        connection = Pipelined.connect(**parameters, autocommit=True, context=self._adapters)
        try:
            connection.execute(_SETTINGS)
        except BaseException:
            connection.close()
            raise
        return connection


def _json_text(value: Any) -> str:
    return encoding.dumps(value).decode()
