"""Trying credentials of servers that one logs in to: Postgres and NATS."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import nats.errors
import psycopg

from app.tools import Context
from app.tools.bus.connections import Connected, Connections
from app.tools.bus.errors import classify as classify_nats
from app.tools.bus.servers import server_of
from app.tools.credential_services import Tried
from app.tools.pg.conninfo import conninfo_of
from app.tools.pg.errors import classify as classify_postgres


def postgres(fields: Mapping[str, Any], _: Context, timeout: float) -> Tried:
    """Log in and select something."""
    info = conninfo_of(fields)
    # libpq takes whole seconds, and 1 as 2.
    limit = max(2, int(timeout))
    try:
        with closing(
            psycopg.connect(info.text, autocommit=True, connect_timeout=limit)
        ) as connection:
            connection.execute(f"SET statement_timeout = {limit * 1000}".encode())
            connection.execute("SELECT 1")
            version = connection.info.parameter_status("server_version")
    except psycopg.Error as exc:
        raise classify_postgres(exc, secret=info.password) from None
    return Tried("logged in and ran SELECT 1", f"PostgreSQL {version}")


def nats_server(fields: Mapping[str, Any], context: Context, timeout: float) -> Tried:
    """Connect, and wait for the answer to a ping."""
    server = server_of(fields)

    async def ping(connected: Connected) -> tuple[str, float]:
        began = time.perf_counter()
        await connected.client.flush(timeout=max(1, int(timeout)))
        taken = (time.perf_counter() - began) * 1000
        found = connected.client.connected_server_version
        return f"{found.major}.{found.minor}.{found.patch}", taken

    # Not the connections of the steps: one of them may be open since before the password changed.
    own = Connections()
    try:
        version, taken = own.run(server, ping, context, timeout)
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as exc:
        raise classify_nats(exc, server, "the test") from None
    finally:
        own.close()
    return Tried(f"connected; a round trip took {taken:.1f} ms", f"NATS {version}")


LOGINS = {"postgres": postgres, "nats": nats_server}
