"""Brings the schema ``noetl`` up to date; safe when several processes do it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

import app
from app.errors import StartupError
from app.store.database import libpq_url
from app.store.failures import startup_error
from app.store.tables import SCHEMA

#: Two numbers, because advisory locks on one 64-bit number belong to executions.
_LOCK = text("SELECT pg_advisory_xact_lock(20240101, 1)")
_SCHEMA_EXISTS = text("SELECT to_regnamespace(:schema) IS NOT NULL")
_VERSION_TABLE = text("SELECT to_regclass(:table) IS NOT NULL")
_VERSION = text(f"SELECT version_num FROM {SCHEMA}.alembic_version")  # noqa: S608 (a constant)


def upgrade(url: str) -> None:
    """Migrate the database at *url* to ``head()``, all revisions in one transaction.

    A second process waits for the first and then finds nothing to do. Raises ``StartupError``
    where the database cannot be reached, refuses, or was migrated by a newer version.
    """
    config = _config()
    with _connect(url) as connection:
        connection.execute(_LOCK)
        if not connection.execute(_SCHEMA_EXISTS, {"schema": SCHEMA}).scalar_one():
            connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as exc:
            raise StartupError(
                f"the database cannot be migrated: {exc}",
                remedy="it was probably migrated by a newer version; upgrade this one",
            ) from exc


@cache
def head() -> str:
    """The revision this version of the code needs."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def is_known(revision: str) -> bool:
    """Whether this version of the code has *revision*; else a newer one made it."""
    try:
        return ScriptDirectory.from_config(_config()).get_revision(revision) is not None
    except CommandError:
        return False


def current(url: str) -> str | None:
    """The revision the database at *url* is at; None where it was never migrated."""
    with _connect(url) as connection:
        table = f"{SCHEMA}.alembic_version"
        if not connection.execute(_VERSION_TABLE, {"table": table}).scalar_one():
            return None
        version: str | None = connection.execute(_VERSION).scalar_one_or_none()
        return version


@cache
def folder() -> Path:
    """Where the migrations are: inside an installed package, beside ``app`` in a checkout."""
    package = Path(app.__file__).parent
    for candidate in (package / "_migrations", package.parent / "alembic"):
        if (candidate / "env.py").is_file():
            return candidate
    raise StartupError(
        "the database migrations are missing from this installation",
        remedy="install the package 'callboard' again",
    )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


@contextmanager
def _connect(url: str) -> Iterator[Connection]:
    """One connection in one transaction, committed on leaving."""
    dsn = libpq_url(url)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(
            dsn, connect_timeout=10, application_name="callboard migrations"
        ),
        poolclass=NullPool,
    )
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as exc:
        raise startup_error(exc.orig) from exc
    except psycopg.Error as exc:
        raise startup_error(exc) from exc
    finally:
        engine.dispose()
