"""What every Postgres session of a step begins with, and how its work is stopped."""

from __future__ import annotations

import contextlib
import math
import threading

import psycopg
from psycopg import sql

from app.tools import Context
from app.tools.pg.connections import Connection

#: The name under which SQL finds the key that all attempts of the step share:
#: ``current_setting('callboard.idempotency_key', true)``.
KEY = "callboard.idempotency_key"


def begin(
    connection: Connection, context: Context, timeout: float, search_path: str | None = None
) -> None:
    """Tell the session its time limit, the step's idempotency key and where names are looked up.

    All in one round trip. The watcher stops a statement that is late; the server does, a second
    later, where this process died meanwhile. Its clock counts each statement, ours the whole step.
    """
    limit = min(math.ceil(timeout * 1000) + 1000, 2**31 - 1)
    key = sql.Literal(context.idempotency_key).as_string(connection)
    text = f"SET statement_timeout = {limit}; SET {KEY} = {key}"
    if search_path:
        # SET would take "a, b" for one name.
        path = sql.Literal(search_path).as_string(connection)
        text += f"; SELECT set_config('search_path', {path}, false)"
    connection.execute(text.encode())


def cancel(connection: Connection) -> None:
    """Ask the server to cancel what runs on *connection*, without waiting for it to do so."""

    def ask() -> None:
        # Where the server cannot be reached, the statement's own connection finds out, too.
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=5)

    threading.Thread(target=ask, name="cancel", daemon=True).start()
