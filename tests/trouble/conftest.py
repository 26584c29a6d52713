"""A control plane on real servers, in this process, and what its readiness says."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded.nats import EmbeddedNats
from app.readiness import Examination, examination
from app.services.health import Check
from app.settings import load
from app.wiring import Plane, control_plane
from tests.waits import until

SOON = 60.0


@pytest.fixture(scope="session")
def own_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """A server for these tests; whoever stops it starts it again."""
    with EmbeddedNats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def plane(database: str, own_nats: EmbeddedNats, tmp_path: Path) -> Iterator[Plane]:
    """The control plane of a database of its own; its streams are there."""
    key = "one=" + "A" * 43 + "="
    loaded = load(
        {}, home=tmp_path, database_url=database, nats_url=own_nats.url, encryption_keys=key
    )
    with control_plane(loaded.settings, f"test {uuid.uuid4().hex[:6]}") as plane:
        plane.ports.dispatcher.wake([1])
        yield plane


@pytest.fixture
def health(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> Iterator[Examination]:
    """What readiness asks, each time anew."""
    monkeypatch.setattr("app.readiness.FRESH", 0.0)
    with examination(plane) as made:
        until(lambda: not wrong(made.checks()))
        yield made


def wrong(checks: list[Check]) -> dict[str, Check]:
    """What is not ok, by name; everything of it has a remedy."""
    found = [check for check in checks if not check.ok]
    assert all(check.remedy for check in found), found
    return {check.name: check for check in found}
