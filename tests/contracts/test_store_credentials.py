"""What every store of credentials promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from app.engine.custody import CredentialDraft, CredentialStore
from app.store.credentials import PostgresCredentials
from app.store.database import Database
from app.store.memory_custody import MemoryCredentials

DRAFT = CredentialDraft("pg", "postgres", "cb1.a.b.c")


@pytest.fixture(params=["memory", "postgres"])
def credentials(request: pytest.FixtureRequest) -> CredentialStore:
    if request.param == "memory":
        return MemoryCredentials()
    database: Database = request.getfixturevalue("shared_database")
    with database.begin() as connection:
        connection.exec_driver_sql("TRUNCATE noetl.credential")
    return PostgresCredentials(database)


def test_a_credential_comes_back_as_it_was_put(credentials: CredentialStore) -> None:
    before = datetime.now(UTC)
    draft = CredentialDraft(
        name="pg",
        type="postgres",
        sealed="cb1.a.b.c",
        meta={"owner": ["data", 1]},
        tags=["prod", "dw"],
        description="the warehouse",
        scope={"paths": ["etl/*"], "pools": []},
    )
    row = credentials.put(draft)
    assert credentials.named("pg") == row
    assert credentials.numbered(row.id) == row
    assert (row.name, row.type, row.sealed) == ("pg", "postgres", "cb1.a.b.c")
    assert (row.meta, list(row.tags)) == ({"owner": ["data", 1]}, ["prod", "dw"])
    assert (row.description, row.scope) == ("the warehouse", {"paths": ["etl/*"], "pools": []})
    # Clocks of two machines are not the same to the second.
    assert abs((row.created_at - before).total_seconds()) < 60
    assert row.created_at == row.updated_at


def test_what_was_not_given_is_empty(credentials: CredentialStore) -> None:
    row = credentials.put(DRAFT)
    assert (row.meta, list(row.tags), row.description, row.scope) == (None, [], None, None)


def test_one_of_the_same_name_is_replaced_and_keeps_its_id(credentials: CredentialStore) -> None:
    first = credentials.put(replace(DRAFT, description="old", tags=["x"], scope={"paths": ["a"]}))
    second = credentials.put(replace(DRAFT, type="nats", sealed="cb1.other"))
    assert (second.id, second.created_at) == (first.id, first.created_at)
    assert second.updated_at > first.updated_at
    assert (second.type, second.sealed) == ("nats", "cb1.other")
    assert (second.description, list(second.tags), second.scope) == (None, [], None)
    assert len(credentials.rows()) == 1


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        pytest.param({}, ["Zeta", "api", "pg"], id="all, by name as bytes"),
        pytest.param({"type": "postgres"}, ["Zeta", "pg"], id="of a type"),
        pytest.param({"q": "ZET"}, ["Zeta"], id="in the name"),
        pytest.param({"q": "weather"}, ["api"], id="in the description"),
        pytest.param({"q": "prod"}, ["Zeta", "pg"], id="in a tag"),
        pytest.param({"type": "bearer", "q": "prod"}, [], id="both"),
        pytest.param({"q": "100%"}, ["api"], id="no wildcards"),
        pytest.param({"q": "_"}, [], id="nor those for one sign"),
        pytest.param({"type": "none"}, [], id="none"),
    ],
)
def test_lists(credentials: CredentialStore, wanted: dict[str, Any], names: list[str]) -> None:
    credentials.put(replace(DRAFT, tags=["prod"]))
    credentials.put(replace(DRAFT, name="api", type="bearer", description="Weather, 100% of it"))
    credentials.put(replace(DRAFT, name="Zeta", tags=["PRODUCTION"]))
    assert [row.name for row in credentials.rows(**wanted)] == names


def test_what_was_deleted_is_gone(credentials: CredentialStore) -> None:
    row = credentials.put(DRAFT)
    assert credentials.delete(row.id)
    assert not credentials.delete(row.id)
    assert credentials.named("pg") is None
    assert credentials.numbered(row.id) is None
    assert credentials.put(DRAFT).id != row.id


@pytest.mark.parametrize(
    "look",
    [
        pytest.param(lambda store: store.named("nobody"), id="by name"),
        pytest.param(lambda store: store.numbered(2**40), id="by id"),
    ],
)
def test_what_is_not_there(
    credentials: CredentialStore, look: Callable[[CredentialStore], Any]
) -> None:
    credentials.put(DRAFT)
    assert look(credentials) is None


def test_a_row_does_not_show_what_it_seals(credentials: CredentialStore) -> None:
    assert "cb1" not in repr(credentials.put(DRAFT)) + repr(DRAFT)
