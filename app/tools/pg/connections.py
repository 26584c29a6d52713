"""Postgres connections of this process: bounded per database, kept open for the next step."""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from app.errors import ToolError
from app.tools import Context
from app.tools.pg.values import load_leniently

#: Idle connections are closed when they are older than this, in seconds.
KEEP = 60.0
#: How often a step that waits for a connection looks whether it was cancelled, in seconds.
GLANCE = 0.05

Connection = psycopg.Connection[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many connections there may be: *most* in use at once, *least* kept although idle for long.

    Up to *waiting* steps (None: any number) wait for one, each up to *patience* seconds. Databases
    of different *name* are counted apart.
    """

    most: int
    least: int = 0
    waiting: int | None = None
    patience: float = float("inf")
    name: str = ""


@dataclass(slots=True)
class _Shelf:
    idle: list[tuple[float, Connection]] = field(default_factory=list)
    used: int = 0
    waiting: int = 0
    least: int = 0


class Connections:
    """A stack of idle connections, and a count of those in use, per conninfo and name."""

    def __init__(self) -> None:
        self._turn = threading.Condition()
        self._shelves: dict[tuple[str, str], _Shelf] = {}
        self._owner = os.getpid()

    @contextmanager
    def borrowed(
        self, conninfo: str, bounds: Bounds | None, context: Context, timeout: float
    ) -> Iterator[Connection]:
        """A connection in autocommit mode, as fresh as a new one, for *timeout* seconds at most.

        Without *bounds* one of its own, closed afterwards. Raises ``psycopg.Error`` where there is
        none to be had, and ``ToolError`` where others kept theirs for too long.
        """
        if bounds is None:
            with opened(conninfo, timeout) as connection:
                yield connection
            return
        key = (conninfo, bounds.name)
        shelf = self._enter(key, bounds, context, timeout)
        try:
            connection = self._idle(shelf) or connect(conninfo, timeout)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            if _is_fresh(connection):
                with self._turn:
                    shelf.idle.append((time.monotonic(), connection))
        finally:
            with self._turn:
                shelf.used -= 1
                self._turn.notify_all()

    def close(self) -> None:
        """Close the idle connections."""
        with self._turn:
            idle = [connection for shelf in self._shelves.values() for _, connection in shelf.idle]
            for shelf in self._shelves.values():
                shelf.idle.clear()
        for connection in idle:
            connection.close()

    def _enter(
        self, key: tuple[str, str], bounds: Bounds, context: Context, timeout: float
    ) -> _Shelf:
        """The shelf, with the caller counted among those that use a connection of it."""
        self._close_old()
        with self._turn:
            shelf = self._shelves.setdefault(key, _Shelf())
            shelf.least = bounds.least
            if shelf.used >= bounds.most:
                self._wait(shelf, bounds, context, min(timeout, bounds.patience))
            shelf.used += 1
            return shelf

    def _idle(self, shelf: _Shelf) -> Connection | None:
        while True:
            with self._turn:
                if not shelf.idle:
                    return None
                _, connection = shelf.idle.pop()
            if is_quiet(connection):
                return connection
            connection.close()

    def _wait(self, shelf: _Shelf, bounds: Bounds, context: Context, patience: float) -> None:
        if bounds.waiting is not None and shelf.waiting >= bounds.waiting:
            raise _busy(
                f"all {bounds.most} connections to the database are in use, and "
                f"{shelf.waiting} steps wait for one already"
            )
        deadline = time.monotonic() + patience
        shelf.waiting += 1
        try:
            while shelf.used >= bounds.most:
                if context.cancelled.is_set():
                    raise ToolError(
                        "the step was cancelled while it waited for a connection", kind="cancelled"
                    )
                if time.monotonic() >= deadline:
                    raise _busy(
                        f"all {bounds.most} connections to the database were in use for "
                        f"{patience:g} seconds"
                    )
                self._turn.wait(GLANCE)
        finally:
            shelf.waiting -= 1

    def _close_old(self) -> None:
        limit = time.monotonic() - KEEP
        old = []
        with self._turn:
            if self._owner != os.getpid():
                # They belong to the process we were forked from; closing would end its sessions.
                self._shelves.clear()
                self._owner = os.getpid()
            for key, shelf in list(self._shelves.items()):
                while len(shelf.idle) > shelf.least and shelf.idle[0][0] < limit:
                    old.append(shelf.idle.pop(0)[1])
                if not (shelf.idle or shelf.used or shelf.waiting):
                    del self._shelves[key]
        for connection in old:
            connection.close()


def connect(conninfo: str, timeout: float) -> Connection:
    """A new connection in autocommit mode. Raises ``psycopg.Error``."""
    connection = psycopg.connect(
        conninfo,
        autocommit=True,
        # libpq takes whole seconds, and 1 as 2.
        connect_timeout=max(2, min(int(timeout), 30)),
        # DISCARD ALL forgets prepared statements, itself included.
        prepare_threshold=None,
    )
    load_leniently(connection)
    return connection


@contextmanager
def opened(conninfo: str, timeout: float) -> Iterator[Connection]:
    """A new connection, closed when the block ends; what it left uncommitted is undone."""
    connection = connect(conninfo, timeout)
    try:
        yield connection
    finally:
        connection.close()


def is_quiet(connection: Connection) -> bool:
    """Whether the server said nothing while nobody asked; what it says then is good-bye."""
    if connection.closed or connection.broken:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def _is_fresh(connection: Connection) -> bool:
    """Whether the session could forget all that the step left in it; else it is closed.

    One that is inside a transaction cannot.
    """
    try:
        connection.execute("DISCARD ALL")
    except psycopg.Error:
        connection.close()
        return False
    return True


def _busy(message: str) -> ToolError:
    return ToolError(
        f"{message}; run fewer at once (max_in_flight), or raise max_size of the pool or "
        "CALLBOARD_POSTGRES_CONNECTIONS",
        kind="db_connection",
        retryable=True,
    )


connections = Connections()
atexit.register(connections.close)
