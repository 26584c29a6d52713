"""Postgres connections of this process, kept open for the next step that uses the same database."""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

#: Idle connections are closed when they are older than this, in seconds.
KEEP = 60.0
#: Idle connections kept per database.
MOST = 8

Connection = psycopg.Connection[tuple[object, ...]]


class Connections:
    """A stack of idle connections per conninfo. Any number may be in use: one per running step."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[str, list[tuple[float, Connection]]] = defaultdict(list)
        self._owner = os.getpid()

    @contextmanager
    def borrowed(self, conninfo: str, *, pooled: bool, timeout: float) -> Iterator[Connection]:
        """A connection in autocommit mode, as fresh as a new one. Raises ``psycopg.Error``."""
        connection = self._take(conninfo) if pooled else None
        if connection is None:
            connection = psycopg.connect(
                conninfo,
                autocommit=True,
                # libpq takes whole seconds, and 1 as 2.
                connect_timeout=max(2, min(int(timeout), 30)),
                # DISCARD ALL forgets prepared statements, itself included.
                prepare_threshold=None,
            )
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if pooled:
            self._give_back(conninfo, connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            stacks = list(self._idle.values())
            self._idle.clear()
        for stack in stacks:
            for _, connection in stack:
                connection.close()

    def _take(self, conninfo: str) -> Connection | None:
        self._close_old()
        while True:
            with self._lock:
                stack = self._idle.get(conninfo)
                if not stack:
                    return None
                _, connection = stack.pop()
            if _is_quiet(connection):
                return connection
            connection.close()

    def _give_back(self, conninfo: str, connection: Connection) -> None:
        """Forget all that the step left in the session, then keep the connection.

        One that is inside a transaction cannot do so, and is closed.
        """
        try:
            connection.execute("DISCARD ALL")
        except psycopg.Error:
            connection.close()
            return
        with self._lock:
            stack = self._idle[conninfo]
            if len(stack) < MOST:
                stack.append((time.monotonic(), connection))
                return
        connection.close()

    def _close_old(self) -> None:
        limit = time.monotonic() - KEEP
        old = []
        with self._lock:
            if self._owner != os.getpid():
                # They belong to the process we were forked from; closing would end its sessions.
                self._idle.clear()
                self._owner = os.getpid()
            for conninfo, stack in list(self._idle.items()):
                old += [connection for at, connection in stack if at < limit]
                self._idle[conninfo] = [entry for entry in stack if entry[0] >= limit]
                if not self._idle[conninfo]:
                    del self._idle[conninfo]
        for connection in old:
            connection.close()


def _is_quiet(connection: Connection) -> bool:
    """Whether the server said nothing while nobody asked; what it says then is good-bye."""
    if connection.closed or connection.broken:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


connections = Connections()
atexit.register(connections.close)
