"""Open DuckDB databases: one step at a time on each, the executions' own kept open for a moment.

Opening costs some 20 ms, a statement under one. The file that an execution has for itself therefore
stays open for ``KEEP`` seconds after a step, for the next one; a file that the playbook names is
closed at once, because others may want it.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from app.errors import ToolError
from app.tools import Context

MEMORY = ":memory:"
KEEP = 1.0
#: How often an attempt to get a database that others hold is repeated, in seconds.
RETRY = 0.02
#: Nothing is fetched from the network unless the SQL says so.
CONFIG = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}


@dataclass(slots=True)
class Slot:
    """A database file of this process. ``connection`` is only touched by who holds ``lock``."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    connection: duckdb.DuckDBPyConnection | None = None
    idle_since: float = 0.0


class Databases:
    """All databases open in this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._slots: dict[str, Slot] = {}
        self._timer: threading.Timer | None = None

    @contextmanager
    def opened(
        self, place: str, context: Context, deadline: float, *, keep: bool
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to the database at *place*, which is ours alone until the block ends.

        Waits for others until *deadline* (monotonic); raises ``ToolError`` then.
        """
        if place == MEMORY:
            connection = _connect(place, context, deadline)
            try:
                yield connection
            finally:
                connection.close()
            return
        with self._held(str(Path(place).absolute()), context, deadline, keep=keep) as slot:
            if slot.connection is None:
                slot.connection = _connect(place, context, deadline)
            cursor = slot.connection.cursor()
            try:
                yield cursor
            finally:
                cursor.close()

    @contextmanager
    def _held(self, key: str, context: Context, deadline: float, *, keep: bool) -> Iterator[Slot]:
        with self._guard:
            slot = self._slots.setdefault(key, Slot())
            slot.users += 1
        try:
            while not slot.lock.acquire(timeout=RETRY):
                _give_up_if_due(context, deadline, key)
            try:
                yield slot
            finally:
                if not keep:
                    _close(slot)
                slot.idle_since = time.monotonic()
                slot.lock.release()
        finally:
            with self._guard:
                slot.users -= 1
                self._forget_closed()
                self._arm()

    def close(self) -> None:
        """Close what no step uses."""
        self._sweep(everything=True)

    def _arm(self) -> None:
        if self._timer is None and self._slots:
            self._timer = threading.Timer(KEEP, self._sweep)
            self._timer.daemon = True
            self._timer.start()

    def _sweep(self, *, everything: bool = False) -> None:
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            now = time.monotonic()
            for slot in self._slots.values():
                due = everything or now - slot.idle_since >= KEEP
                if not slot.users and due:
                    _close(slot)
            self._forget_closed()
            self._arm()

    def _forget_closed(self) -> None:
        self._slots = {
            key: slot for key, slot in self._slots.items() if slot.users or slot.connection
        }


def _close(slot: Slot) -> None:
    if slot.connection is not None:
        slot.connection.close()
        slot.connection = None


def _connect(place: str, context: Context, deadline: float) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            return duckdb.connect(place, config=dict(CONFIG))
        except duckdb.IOException as exc:
            # Another process has it open; nobody else has a lock to conflict with.
            if "lock" not in str(exc).lower():
                raise ToolError(f"{place} cannot be opened: {exc}", kind="not_found") from exc
            _give_up_if_due(context, deadline, place)
            context.cancelled.wait(RETRY)
        except duckdb.Error as exc:
            raise ToolError(f"{place} cannot be opened: {exc}") from exc


def _give_up_if_due(context: Context, deadline: float, place: str) -> None:
    if context.cancelled.is_set():
        raise ToolError("the step was cancelled while it waited for its database", kind="cancelled")
    if time.monotonic() >= deadline:
        raise ToolError(
            f"{place} was in use by others until the time was up", kind="timeout", retryable=True
        )


databases = Databases()
atexit.register(databases.close)
