"""A pool on a fresh database, closed after the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.store.database import Database


@pytest.fixture
def pool(database: str) -> Iterator[Database]:
    opened = Database(database, pool_size=4)
    yield opened
    opened.close()
