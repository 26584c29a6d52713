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


@dataclass(frozen=True, slots=True)
class Limits:
    """What SQL may use: memory, threads, a folder to spill to, and files of one *folder* only (or,
    where that is None, any that the worker can reach)."""

    memory: str
    threads: int
    spill: Path
    folder: Path | None = None


def limits_of(context: Context, memory: str | None = None, threads: int | None = None) -> Limits:
    """The limits of a step that asks for *memory* and *threads*; else those of the settings.

    Raises ``ToolError`` where CALLBOARD_DUCKDB_FILES is neither all nor workspace.
    """
    settings = context.settings
    if settings.duckdb_files not in {"all", "workspace"}:
        raise ToolError(
            f"CALLBOARD_DUCKDB_FILES is {settings.duckdb_files!r}; set it to all or workspace"
        )
    return Limits(
        memory or settings.duckdb_memory,
        threads or settings.duckdb_threads,
        context.workspace / "spill",
        context.workspace if settings.duckdb_files == "workspace" else None,
    )


def check_path(path: Path, limits: Limits) -> Path:
    """*path*, where *limits* allow it. Raises ``ToolError`` (kind auth)."""
    folder = limits.folder
    if folder is not None and not path.resolve().is_relative_to(folder.resolve()):
        raise ToolError(
            f"{path} is outside the execution's folder, and CALLBOARD_DUCKDB_FILES is workspace",
            kind="auth",
        )
    return path


@dataclass(slots=True)
class Slot:
    """A database file of this process. ``connection`` is only touched by who holds ``lock``."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    connection: duckdb.DuckDBPyConnection | None = None
    limits: Limits | None = None
    idle_since: float = 0.0


class Databases:
    """All databases open in this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._slots: dict[str, Slot] = {}
        self._timer: threading.Timer | None = None

    @contextmanager
    def opened(
        self, place: str, limits: Limits, context: Context, deadline: float, *, keep: bool
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to the database at *place*, which is ours alone until the block ends.

        Waits for others until *deadline* (monotonic); raises ``ToolError`` then.
        """
        if place == MEMORY:
            connection = _connect(place, limits, context, deadline)
            try:
                yield connection
            finally:
                connection.close()
            return
        path = check_path(Path(place).absolute(), limits)
        with self._held(str(path), context, deadline, keep=keep) as slot:
            if slot.limits != limits:
                # Limits may be locked: only a new instance takes others.
                _close(slot)
            if slot.connection is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                slot.connection, slot.limits = _connect(place, limits, context, deadline), limits
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


def _connect(
    place: str, limits: Limits, context: Context, deadline: float
) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            connection = duckdb.connect(place, config=dict(CONFIG))
        except duckdb.IOException as exc:
            # Another process has it open; nobody else has a lock to conflict with.
            if "lock" not in str(exc).lower():
                raise ToolError(f"{place} cannot be opened: {exc}", kind="not_found") from exc
            _give_up_if_due(context, deadline, place)
            context.cancelled.wait(RETRY)
        except duckdb.Error as exc:
            raise ToolError(f"{place} cannot be opened: {exc}") from exc
        else:
            try:
                _limit(connection, limits)
            except BaseException:
                connection.close()
                raise
            return connection


def _limit(connection: duckdb.DuckDBPyConnection, limits: Limits) -> None:
    settings = [
        # What does not fit into memory is spilled there; by default, to the worker's folder.
        f"temp_directory={quoted(str(limits.spill))}",
        f"memory_limit={quoted(limits.memory)}",
        f"threads={limits.threads}",
    ]
    if limits.folder is not None:
        limits.folder.mkdir(parents=True, exist_ok=True)
        folder = quoted(str(limits.folder.resolve()))
        settings += [
            f"allowed_directories=[{folder}]",
            "enable_external_access=false",
            "lock_configuration=true",
        ]
    try:
        for setting in settings:
            connection.execute(f"SET {setting}")
    except duckdb.Error as exc:
        raise ToolError(f"duckdb does not take SET {setting}: {exc}", kind="schema") from exc


def quoted(text: str) -> str:
    """*text* as a string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """*name* as the name of a table or column in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _give_up_if_due(context: Context, deadline: float, place: str) -> None:
    if context.cancelled.is_set():
        raise ToolError("the step was cancelled while it waited for its database", kind="cancelled")
    if time.monotonic() >= deadline:
        raise ToolError(
            f"{place} was in use by others until the time was up", kind="timeout", retryable=True
        )


databases = Databases()
atexit.register(databases.close)
