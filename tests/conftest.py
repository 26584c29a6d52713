"""Real servers for the tests: an embedded Postgres and NATS per test process, started on demand."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from app.embedded.nats import EmbeddedNats
from app.embedded.postgres import EmbeddedPostgres
from tests.places import in_memory

if TYPE_CHECKING:
    from tests.system.plane import System

TEMPLATE = "callboard_template"

# The processes that the tests start import the same modules: keep their bytecode, whatever the
# machine has set. Before test processes are started, which read it at their start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spread the files over the test processes; see ``tests.turns``."""
    if config.option.dist != "loadfile":
        return None
    from tests.turns import Turns

    config.option.loadscopereorder = False
    return Turns(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under xdist the long ones come first; otherwise the order stays as it is read."""
    if hasattr(config, "workerinput"):
        from tests.turns import in_turn

        items[:] = in_turn(items)


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Logging as nobody configured it, whatever the test before did.

    Lines as text without the values of local variables: to draw those takes minutes.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    structlog.reset_defaults()
    structlog.configure(
        processors=[
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(repr_native_str=False),
        ],
        # Not stdout, which tests of the command line compare.
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@dataclass(frozen=True, slots=True)
class Servers:
    """The URLs of both servers; ``warehouse_url`` is the database that playbooks load into."""

    database_url: str
    warehouse_url: str
    nats_url: str


@pytest.fixture(scope="session")
def embedded_home() -> Iterator[Path]:
    """A folder of this session's servers, gone afterwards (a data directory is 40 MB)."""
    with tempfile.TemporaryDirectory(prefix="callboard-", dir=in_memory()) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_server(embedded_home: Path) -> Iterator[EmbeddedPostgres]:
    """The session's Postgres itself. Not durable: nobody reads it after a power cut."""
    with EmbeddedPostgres(embedded_home / "postgres", durable=False) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(postgres_server: EmbeddedPostgres) -> str:
    """URL of the session's shared database; it is empty at first. See ``database``."""
    return postgres_server.url


@pytest.fixture(scope="session")
def nats_server(embedded_home: Path) -> Iterator[EmbeddedNats]:
    """The session's NATS itself."""
    with EmbeddedNats(embedded_home / "nats") as server:
        yield server


@pytest.fixture(scope="session")
def nats(nats_server: EmbeddedNats) -> str:
    """URL of the session's NATS, JetStream on. Streams outlive a test: name them uniquely."""
    return nats_server.url


@pytest.fixture(scope="session")
def stack(postgres_server: EmbeddedPostgres, nats_server: EmbeddedNats) -> Servers:
    """Both servers."""
    return Servers(
        database_url=postgres_server.url,
        warehouse_url=postgres_server.warehouse_url,
        nats_url=nats_server.url,
    )


@pytest.fixture(scope="session")
def migrated_template(postgres_server: EmbeddedPostgres) -> str:
    """Name of a database at the newest migration, made once and copied by ``database``."""
    from app.store.migrations import upgrade

    upgrade(postgres_server.create_database(TEMPLATE))
    return TEMPLATE


@pytest.fixture
def database(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[str]:
    """libpq URL of a fresh database at the newest migration, dropped after the test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield postgres_server.create_database(name, template=migrated_template)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def system() -> Iterator[System]:
    """All of Callboard as processes, for tests that leave it running as they found it.

    They may register and run what they like, and kill what they start again. Their files are listed
    in ``tests.turns``, so that there is one of it.
    """
    from tests.system.plane import System, readable_home

    with (
        tempfile.TemporaryDirectory(prefix="cb-") as home,
        System(readable_home(Path(home))) as running,
    ):
        yield running
