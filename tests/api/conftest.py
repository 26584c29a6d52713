"""Fixtures: the real API on the memory twins, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.client import Client
from tests.api.plane import CHAIN, Plane, build, served

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Ignore what FastAPI ignores while it builds a route, which it does at the first request.

    It does so with ``warnings.catch_warnings``, which another thread's may undo at any moment.
    """
    known = "ignore::pydantic.warnings.UnsupportedFieldAttributeWarning"
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.filterwarnings(known))


@pytest.fixture
def plane() -> Plane:
    """An open plane with the playbook ``tests/chain`` registered."""
    built = build()
    built.control.catalog.register(CHAIN)
    return built


@pytest.fixture
def http(plane: Plane) -> TestClient:
    return plane.client()


@pytest.fixture(scope="session")
def looker() -> TestClient:
    """A client of an open plane that its tests only look at: making one each takes most of the time."""
    return build().client()


@pytest.fixture
def client(plane: Plane) -> Iterator[Client]:
    """Our own client, on a real connection to the plane."""
    with served(plane.app) as url, Client(url) as connected:
        yield connected
