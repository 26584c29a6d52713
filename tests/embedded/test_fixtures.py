"""The servers that all tests share."""

from __future__ import annotations

import psycopg

from app.embedded.postgres import EmbeddedPostgres


def test_every_test_gets_a_migrated_database_of_its_own(
    database: str, postgres: str, postgres_server: EmbeddedPostgres
) -> None:
    with psycopg.connect(database) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'noetl'")
        assert {"catalog", "event", "runtime"} <= {name for (name,) in tables}
    with psycopg.connect(postgres) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'noetl'")
        assert tables.fetchall() == []
