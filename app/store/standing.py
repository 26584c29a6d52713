"""How a database is: whether it takes writes, at which revision it is, and what its clock says."""

from __future__ import annotations

import time
from dataclasses import dataclass

from app.store.database import Database
from app.store.tables import SCHEMA

_LOOK = f"""
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
    extract(epoch FROM clock_timestamp())::float8,
    to_regclass('{SCHEMA}.alembic_version') IS NOT NULL
"""  # noqa: S608 (a constant)
_REVISION = f"SELECT version_num FROM {SCHEMA}.alembic_version"  # noqa: S608 (a constant)


@dataclass(frozen=True, slots=True)
class Standing:
    """``revision`` None: never migrated. ``clock_ahead``: our clock minus the database's, seconds."""

    read_only: bool
    revision: str | None
    clock_ahead: float


def standing(database: Database) -> Standing:
    """Ask. Raises ``UnavailableError`` where Postgres does not answer."""
    with database.raw() as connection:
        before = time.time()
        row = connection.execute(_LOOK).fetchone()
        after = time.time()
        assert row is not None
        read_only, clock, migrated = row
        found = connection.execute(_REVISION).fetchone() if migrated else None
    # It looked at its clock somewhere in between.
    return Standing(read_only, found[0] if found else None, (before + after) / 2 - clock)
