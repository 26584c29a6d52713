"""Migrations on real databases: from nothing, twice, at once, and where it cannot work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.base import ischema_names

from app.embedded.postgres import EmbeddedPostgres
from app.errors import StartupError, UnavailableError
from app.store import migrations
from app.store.database import Database
from app.store.tables import SCHEMA, Xid8, metadata

TABLES = {
    "catalog",
    "event",
    "credential",
    "keychain",
    "keychain_lease",
    "runtime",
    "schedule",
    "step_log",
    "transient",
}


@pytest.fixture
def empty(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """URL of a database that was never migrated."""
    yield postgres_server.create_database("unmigrated")
    postgres_server.drop_database("unmigrated")


def tables(url: str) -> set[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'noetl'"
    with psycopg.connect(url) as connection:
        return {name for (name,) in connection.execute(query)}


def test_from_nothing_and_then_again(empty: str) -> None:
    assert migrations.current(empty) is None
    migrations.upgrade(empty)
    assert migrations.current(empty) == migrations.head()
    assert tables(empty) == TABLES | {"execution", "pruned", "alembic_version"}
    with psycopg.connect(empty) as connection:
        connection.execute(
            "INSERT INTO noetl.catalog (path, version, kind, content) VALUES ('a', 1, 'x', '')"
        )
    migrations.upgrade(empty)
    with psycopg.connect(empty) as connection:
        row = connection.execute("SELECT count(*) FROM noetl.catalog").fetchone()
    assert row == (1,)


def test_several_processes_at_once(empty: str) -> None:
    program = "import sys; from app.store.migrations import upgrade; upgrade(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, empty], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert migrations.current(empty) == migrations.head()


def test_a_failed_upgrade_leaves_nothing_behind(empty: str) -> None:
    # A view of that name is in the way of the last statement of the first revision.
    with psycopg.connect(empty) as connection:
        connection.execute("CREATE SCHEMA noetl")
        connection.execute("CREATE VIEW noetl.event_log AS SELECT 1 AS one")
    with pytest.raises(StartupError, match="event_log"):
        migrations.upgrade(empty)
    assert tables(empty) == set()


def test_a_database_of_a_newer_version_is_left_alone(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE noetl.alembic_version SET version_num = '9999'")
    with pytest.raises(StartupError, match="newer version"):
        migrations.upgrade(database)
    assert migrations.current(database) == "9999"


def test_the_tables_in_code_are_those_of_the_migrations(
    pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SQLAlchemy does not know the type by itself.
    monkeypatch.setitem(ischema_names, "xid8", Xid8)
    with pool.begin() as connection:
        # A schema named as the user would be the default one, and compared without its name.
        connection.dialect.default_schema_name = "public"
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "version_table_schema": SCHEMA,
                "compare_type": True,
                "compare_server_default": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
            },
        )
        assert compare_metadata(context, metadata) == []


def test_the_head_is_one_and_its_files_are_found() -> None:
    assert (migrations.folder() / "env.py").is_file()
    assert migrations.head() == "0006"


@pytest.mark.parametrize(
    ("url", "said", "remedy"),
    [
        ("postgresql://noetl@127.0.0.1:1/noetl", "refused", "check that it runs"),
        ("postgresql://noetl@/noetl?host=/nowhere", "No such file", "check that it runs"),
        ("postgresql://noetl@host.invalid/noetl", "host.invalid", "host and port"),
    ],
)
def test_unreachable(url: str, said: str, remedy: str) -> None:
    for use in (migrations.upgrade, migrations.current):
        with pytest.raises(StartupError, match=said) as caught:
            use(url)
        assert remedy in (caught.value.remedy or "")
    database = Database(url)
    with pytest.raises(UnavailableError, match=said):
        database.ping()
    database.close()


def with_part(url: str, name: str, value: str) -> str:
    """*url* with another database or user; libpq reads what is said last."""
    return f"{url}{'&' if '?' in url else '?'}{name}={value}"


def test_refused(postgres: str) -> None:
    with pytest.raises(StartupError) as caught:
        migrations.upgrade(with_part(postgres, "dbname", "nope"))
    assert "create it" in (caught.value.remedy or "") or "pg_hba" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ('FATAL:  password authentication failed for user "x"', "check user and password"),
        ("fe_sendauth: no password supplied", "put a password"),
        ('FATAL:  role "x" does not exist', "create the role"),
        ('FATAL:  database "x" does not exist', "create it"),
        ('FATAL:  no pg_hba.conf entry for host "::1"', "pg_hba.conf"),
        ("something else", "check that it runs"),
    ],
)
def test_every_refusal_has_its_remedy(said: str, remedy: str) -> None:
    from app.store.failures import startup_error

    error = startup_error(psycopg.OperationalError(f"connection failed:\n{said}"))
    assert remedy in (error.remedy or "")
    assert said in error.message
    assert "\n" not in error.message


def test_an_unmigrated_database_says_so(empty: str) -> None:
    from app.store.events import PostgresLog

    database = Database(empty)
    with pytest.raises(UnavailableError, match="callboard db upgrade"):
        PostgresLog(database).count(1)
    database.close()


def test_the_log_cannot_be_changed_even_by_its_owner(pool: Database) -> None:
    insert = "INSERT INTO noetl.event (execution_id, seq, type, payload) VALUES (1, 1, 'x', '{}')"
    attempts = ["UPDATE noetl.event SET step = 'x'", "DELETE FROM noetl.event"]
    with pool.begin() as connection:
        connection.exec_driver_sql(insert)
    for statement in [*attempts, "TRUNCATE noetl.event"]:
        with pool.raw() as raw, pytest.raises(psycopg.errors.RestrictViolation, match="append"):
            raw.execute(statement)
    with pool.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM noetl.event")) == 1


def test_only_pruning_may_delete(pool: Database) -> None:
    insert = "INSERT INTO noetl.event (execution_id, seq, type, payload) VALUES (1, 1, 'x', '{}')"
    with pool.begin() as connection:
        connection.exec_driver_sql(insert)
        connection.exec_driver_sql("SET LOCAL callboard.prune = 'on'")
        connection.exec_driver_sql("DELETE FROM noetl.event")
    with pool.raw() as raw, suppress(psycopg.errors.RestrictViolation):
        raw.execute("DELETE FROM noetl.event")
        pytest.fail("the permission outlived its transaction")


def test_the_view_has_the_names_users_know(pool: Database) -> None:
    with pool.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO noetl.event (execution_id, seq, type, step, payload, duration_ms)"
            """ VALUES (1, 1, 'step.done', 'a', '{"result": [1]}', 1500)"""
        )
        row = connection.execute(
            text("SELECT event_type, node_name, result, duration FROM noetl.event_log")
        ).one()
    assert row == ("step.done", "a", [1], 1.5)
