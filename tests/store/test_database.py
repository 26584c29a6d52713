"""The pool where Postgres misbehaves: killed, restarted, busy, or refusing."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import text

from app.embedded.postgres import EmbeddedPostgres
from app.engine.events import CtxUpdated, ExecutionStarted
from app.engine.ports import Draft, EventLog
from app.errors import BadRequestError, UnavailableError
from app.store import database as module
from app.store.database import Database, libpq_url
from app.store.events import PostgresLog
from app.store.failures import translation
from app.store.migrations import upgrade
from app.store.transaction import PostgresTransaction
from tests.waits import until

STARTED = Draft(ExecutionStarted(7, "examples/demo", 3, {}))


def append(log: EventLog, execution_id: int) -> None:
    with log.transaction([execution_id]) as tx:
        tx.append(execution_id, [STARTED])


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A Postgres of the test's own, to be killed."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres")) as own:
        yield own


def test_killed_in_mid_transaction_and_back_again(server: EmbeddedPostgres) -> None:
    upgrade(server.url)
    pool = Database(server.url, pool_size=4)
    log = PostgresLog(pool)
    append(log, 1)

    def write_through_the_crash() -> None:
        with log.transaction([1]) as tx:
            tx.append(1, [Draft(CtxUpdated("a", 1, {}))])
            server.kill()
            # A backend may outlive its postmaster by a moment.
            until(lambda: not tx.read(1))

    with pytest.raises(UnavailableError):
        write_through_the_crash()
    with pytest.raises(UnavailableError, match="does not answer"):
        pool.ping()
    server.start()
    # At once: the pool notices by itself which of its connections died.
    assert [entry.seq for entry in log.read(1)] == [1]
    append(log, 2)
    assert log.count(2) == 1
    pool.close()


def test_connections_that_died_while_idle_are_replaced_unnoticed(
    pool: Database, database: str
) -> None:
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(pool.raw())
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(database, autocommit=True) as other:
        ended = other.execute(f"SELECT pg_terminate_backend(pid) {others}").fetchall()
        assert len(ended) == 4
        until(lambda: other.execute(f"SELECT {others}").fetchall() == [])
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(pool.raw()).execute("SELECT 1")


def test_a_connection_terminated_in_use_is_an_outage_not_a_bug(
    pool: Database, database: str
) -> None:
    def lose_it() -> None:
        with pool.raw() as connection:
            with psycopg.connect(database, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
            connection.execute("SELECT 1")

    with pytest.raises(UnavailableError):
        lose_it()
    pool.ping()


def test_all_connections_busy(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POOL_TIMEOUT", 0.05)
    pool = Database(database, pool_size=1)
    with pool.raw(), pytest.raises(UnavailableError, match="CALLBOARD_POOL_SIZE"):
        pool.ping()
    pool.ping()
    pool.close()


def test_a_lock_that_is_held_for_too_long_is_an_outage(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SETTINGS", module._SETTINGS.replace("'10s'", "'20ms'"))
    pool = Database(database)
    log = PostgresLog(pool)
    with log.transaction([1]), pytest.raises(UnavailableError, match="holds what this one needs"):
        append(log, 1)
    append(log, 1)
    assert log.count(1) == 1
    pool.close()


def test_locks_are_taken_in_ascending_order(pool: Database, database: str) -> None:
    log = PostgresLog(pool)
    query = "SELECT objid, granted FROM pg_locks WHERE locktype = 'advisory' AND pid <> %s"
    with psycopg.connect(database, autocommit=True) as watcher:
        watcher.execute("SELECT pg_advisory_lock(5)")
        thread = threading.Thread(target=append_to_all, args=(log, [9, 5, 1, 7]))
        thread.start()

        def locks() -> list[tuple[int, bool]]:
            return sorted(watcher.execute(query, [watcher.info.backend_pid]).fetchall())

        until(lambda: (5, False) in locks())
        assert locks() == [(1, True), (5, False)]
    thread.join()
    assert [log.count(i) for i in (1, 5, 7, 9)] == [1, 1, 1, 1]


def append_to_all(log: EventLog, ids: list[int]) -> None:
    with log.transaction(ids) as tx:
        for i in ids:
            tx.append(i, [STARTED])


def test_an_error_leaves_the_connection_clean(pool: Database) -> None:
    def fail() -> None:
        with pool.raw() as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT pg_advisory_xact_lock(1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pool.raw() as connection:
        assert connection.info.transaction_status is TransactionStatus.IDLE
    with pool.begin() as sql:
        assert sql.scalar(text("SHOW transaction_isolation")) == "read committed"
        assert sql.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")) == 0


def test_a_bug_of_ours_is_not_disguised(pool: Database) -> None:
    with pytest.raises(psycopg.errors.SyntaxError), pool.raw() as connection:
        connection.execute("SELEKT")
    with pytest.raises(psycopg.errors.SyntaxError), pool.begin() as sql:
        sql.exec_driver_sql("SELEKT")


def test_commit_without_waiting_for_the_disk_is_for_that_transaction_only(database: str) -> None:
    with psycopg.connect(database) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = on".encode())
    pool = Database(database)
    log = PostgresLog(pool)
    with log.transaction([1], durable=False) as tx:
        tx.append(1, [STARTED])
        assert isinstance(tx, PostgresTransaction)
        assert setting(tx.connection) == "off"
    with log.transaction([1]) as tx:
        assert isinstance(tx, PostgresTransaction)
        assert setting(tx.connection) == "on"
    pool.close()


def setting(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SHOW synchronous_commit").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.errors.DeadlockDetected(), UnavailableError),
        (psycopg.errors.SerializationFailure(), UnavailableError),
        (psycopg.errors.DiskFull(), UnavailableError),
        (psycopg.errors.TooManyConnections(), UnavailableError),
        (psycopg.errors.LockNotAvailable(), UnavailableError),
        (psycopg.errors.QueryCanceled(), UnavailableError),
        (psycopg.errors.AdminShutdown(), UnavailableError),
        (psycopg.errors.CannotConnectNow(), UnavailableError),
        (psycopg.errors.ReadOnlySqlTransaction(), UnavailableError),
        (psycopg.errors.UndefinedTable(), UnavailableError),
        (psycopg.OperationalError(), UnavailableError),
        (psycopg.InterfaceError(), UnavailableError),
        (psycopg.errors.NumericValueOutOfRange(), BadRequestError),
        (psycopg.errors.ProgramLimitExceeded(), BadRequestError),
        (psycopg.errors.SyntaxError(), psycopg.errors.SyntaxError),
        (psycopg.errors.UniqueViolation(), psycopg.errors.UniqueViolation),
    ],
)
def test_translation(error: psycopg.Error, expected: type[Exception]) -> None:
    assert type(translation(error)) is expected


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_every_spelling_of_the_scheme(scheme: str) -> None:
    assert libpq_url(f"{scheme}://u@h/d") == "postgresql://u@h/d"


def test_the_session_says_who_it_is(database: str) -> None:
    pool = Database(database, application_name="callboard web")
    with pool.begin() as sql:
        assert sql.scalar(text("SHOW application_name")) == "callboard web"
        assert sql.scalar(text("SHOW timezone")) == "UTC"
    pool.close()


def test_a_thread_reads_through_the_connection_of_its_transaction(database: str) -> None:
    pool = Database(database, pool_size=2)
    log = PostgresLog(pool)
    append(log, 1)

    def elsewhere() -> dict[str, Any]:
        found: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: found.append(log.values(1, ["large"])))
        thread.start()
        thread.join()
        return found[0]

    def write_and_give_up() -> None:
        with log.transaction([1]) as tx, pool.raw() as connection:
            tx.store_value(1, "large", [1, 2], source_step="a")
            assert isinstance(tx, PostgresTransaction)
            assert connection is tx.connection
            assert log.values(1, ["large"]) == {"large": [1, 2]}
            assert elsewhere() == {}
            raise BadRequestError("not after all")

    with pytest.raises(BadRequestError):
        write_and_give_up()
    assert log.values(1, ["large"]) == {}
    with log.transaction([1]) as outer, log.transaction([2]) as inner:
        assert isinstance(outer, PostgresTransaction)
        assert isinstance(inner, PostgresTransaction)
        assert outer.connection is not inner.connection
    pool.close()


def test_what_reads_json_is_one_for_all_connections(database: str) -> None:
    # To set it on each copies the tables of all types each time; where connections die often, as
    # they do while a network fails, the heap of a process grows with the holes that they leave.
    pool = Database(database, pool_size=4)
    bare = [psycopg.connect(libpq_url(database)) for _ in range(4)]
    with ExitStack() as stack:
        for other in bare:
            stack.enter_context(other)
        ours = [stack.enter_context(pool.raw()) for _ in range(4)]
        assert [copied_tables(each) for each in (bare, ours)] == [0, 0]
        # Infinity is what Python's own reader would take it for.
        with pytest.raises(ValueError, match="infinity"):
            ours[0].execute("""SELECT '{"n": 1e400}'::jsonb""").fetchone()
    pool.close()


def copied_tables(connections: list[psycopg.Connection[Any]]) -> int:
    """Bytes of type tables that *connections* do not share with the first of them."""
    first, *rest = (connection.adapters for connection in connections)
    return sum(
        sys.getsizeof(mine)
        for adapters in rest
        for name in ("_loaders", "_dumpers_by_oid")
        for mine, its in zip(getattr(adapters, name), getattr(first, name), strict=True)
        if mine is not its
    )


def test_during_a_commit_its_thread_cannot_read_and_afterwards_it_can(pool: Database) -> None:
    log = PostgresLog(pool)
    seen: list[str] = []

    def read() -> None:
        try:
            log.count(1)
        except UnavailableError as exc:
            seen.append(exc.message)

    with log.transaction([1]) as tx:
        tx.append(1, [STARTED])
        tx.meanwhile(read)
    assert seen == ["the log cannot be read while its commit is under way"]
    assert log.count(1) == 1
