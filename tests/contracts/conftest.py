"""Every store twin: the tests that ask for ``store`` run once in memory and once on Postgres."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.engine.ports import Catalog, EventLog, RuntimeRegistry
from app.engine.retention import RetentionStore
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.memory import MemoryCatalog, MemoryLog, MemoryRuntime
from app.store.memory_retention import MemoryRetention
from app.store.retention import PostgresRetention
from app.store.runtime import PostgresRuntime
from app.store.tables import metadata

_EMPTY = (
    "ALTER TABLE noetl.event DISABLE TRIGGER USER",
    "TRUNCATE " + ", ".join(table.fullname for table in metadata.sorted_tables),
    "ALTER TABLE noetl.event ENABLE TRIGGER USER",
)


@dataclass(frozen=True, slots=True)
class Store:
    """The ports of one twin. ``age(seconds)`` makes all it holds that much older."""

    log: EventLog
    catalog: Catalog
    runtime: RuntimeRegistry
    age: Callable[[float], None]
    retention: RetentionStore


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest) -> Store:
    """One twin after the other, empty."""
    if request.param == "memory":
        return in_memory()
    database: Database = request.getfixturevalue("shared_database")
    with database.begin() as connection:
        for statement in _EMPTY:
            connection.exec_driver_sql(statement)
    return on_postgres(database)


@pytest.fixture(scope="session")
def shared_database(
    postgres_server: EmbeddedPostgres, migrated_template: str
) -> Iterator[Database]:
    """One database for all these tests, emptied before each: cheaper than one for each."""
    url = postgres_server.create_database("contracts", template=migrated_template)
    database = Database(url, pool_size=20)
    yield database
    database.close()
    postgres_server.drop_database("contracts")


def in_memory() -> Store:
    late = [0.0]

    def age(seconds: float) -> None:
        late[0] += seconds

    def clock() -> float:
        return time.time() + late[0]

    runtime = MemoryRuntime(clock=clock)
    log = MemoryLog(runtime, clock=clock)
    return Store(log, MemoryCatalog(clock=clock), runtime, age, MemoryRetention(log))


def on_postgres(database: Database) -> Store:
    def age(seconds: float) -> None:
        with database.raw() as connection:
            connection.execute("ALTER TABLE noetl.event DISABLE TRIGGER USER")
            for table, column in (("event", "created_at"), ("runtime", "heartbeat")):
                connection.execute(
                    f"UPDATE noetl.{table} SET {column} = {column} - make_interval(secs => %s)",
                    [seconds],
                )
            connection.execute("ALTER TABLE noetl.event ENABLE TRIGGER USER")

    return Store(
        PostgresLog(database),
        PostgresCatalog(database),
        PostgresRuntime(database),
        age,
        PostgresRetention(database),
    )


@pytest.fixture
def log(store: Store) -> EventLog:
    return store.log


@pytest.fixture
def catalog(store: Store) -> Catalog:
    return store.catalog


@pytest.fixture
def runtime(store: Store) -> RuntimeRegistry:
    return store.runtime


@pytest.fixture
def retention(store: Store) -> RetentionStore:
    return store.retention


@pytest.fixture
def age(store: Store) -> Callable[[float], None]:
    return store.age
