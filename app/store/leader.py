"""Who of several equal processes leads: the one whose connection holds an advisory lock."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import conninfo_to_dict

from app.store.database import NETWORK, libpq_url


class Leadership:
    """A session-level lock on a connection of its own; it goes with the connection."""

    def __init__(self, url: str, key: int) -> None:
        self._url = libpq_url(url)
        self._key = key
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None
        self._leads = False

    def holds(self) -> bool:
        """Whether this process leads now; takes the lead where it is free. False while Postgres is away."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            if self._leads:
                self._connection.execute("SELECT 1")
            else:
                row = self._connection.execute(
                    "SELECT pg_try_advisory_lock(%s)", (self._key,)
                ).fetchone()
                self._leads = bool(row and row[0])
        except psycopg.Error:
            self.close()
        return self._leads

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        parameters = {
            "application_name": "callboard leader",
            **NETWORK,
            **conninfo_to_dict(self._url),
        }
        connection = psycopg.connect(**parameters, autocommit=True)
        # A leader that cannot tell within seconds whether it leads is none.
        connection.execute("SET statement_timeout = '10s'")
        return connection

    def close(self) -> None:
        """Give the lead away."""
        connection, self._connection, self._leads = self._connection, None, False
        if connection is not None:
            connection.close()
