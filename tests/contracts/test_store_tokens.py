"""What every store of a keychain's values promises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from app.engine.ports import Catalog
from app.engine.tokens import TokenPlace, TokenRow, TokenStore
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.memory_tokens import MemoryTokens
from app.store.tokens import PostgresTokens


@dataclass(frozen=True, slots=True)
class Kept:
    """A store, a playbook to keep values for, and the way to let time pass."""

    store: TokenStore
    catalog_id: int
    age: Callable[[float], None]

    def row(
        self, name: str = "api", *, life: float = 3600.0, sealed: str = "cb1.a.b.c"
    ) -> TokenRow:
        now = datetime.now(UTC)
        place = TokenPlace(name, self.catalog_id)
        return TokenRow(place, sealed, now + timedelta(seconds=life), now)


@pytest.fixture(params=["memory", "postgres"])
def kept(request: pytest.FixtureRequest) -> Kept:
    if request.param == "memory":
        offset = [0.0]
        clock = lambda: datetime.now(UTC).timestamp() + offset[0]  # noqa: E731 (one clock)
        return Kept(
            MemoryTokens(clock=clock), 1, lambda seconds: offset.append(_add(offset, seconds))
        )
    database: Database = request.getfixturevalue("shared_database")
    with database.begin() as connection:
        connection.exec_driver_sql("TRUNCATE noetl.keychain, noetl.keychain_lease")
    catalog: Catalog = PostgresCatalog(database)
    entry = catalog.add("tests/tokens", "Playbook", "x", meta={})

    def age(seconds: float) -> None:
        with database.begin() as connection:
            for table, column in (("keychain", "expires_at"), ("keychain_lease", "until")):
                connection.exec_driver_sql(
                    f"UPDATE noetl.{table} SET {column} = {column} - make_interval(secs => {seconds})"
                )

    return Kept(PostgresTokens(database), entry.catalog_id, age)


def _add(offset: list[float], seconds: float) -> float:
    offset[0] += seconds
    return seconds


def test_a_value_comes_back_as_it_was_put(kept: Kept) -> None:
    row = replace(
        kept.row(),
        place=TokenPlace("api", kept.catalog_id, "shared", 7, "0" * 24 + ":pool:other"),
        credential_type="oauth2",
        cache_type="secret",
        auto_renew=True,
        parent_execution_id=6,
    )
    kept.store.put(row)
    found = kept.store.get(row.cache_key)
    assert found is not None
    assert found.accessed_at is not None
    assert replace(found, accessed_at=None, access_count=0) == row
    assert row.cache_key == f"api:{kept.catalog_id}:shared:7:{'0' * 24}:pool:other"


def test_accesses_are_counted_and_looking_at_all_is_none(kept: Kept) -> None:
    kept.store.put(kept.row())
    key = kept.row().cache_key
    kept.store.get(key)
    kept.store.rows(kept.catalog_id)
    kept.store.put(kept.row(sealed="cb1.new"))
    found = kept.store.get(key)
    assert found is not None
    assert (found.access_count, found.sealed) == (2, "cb1.new")


def test_values_are_listed_by_playbook_and_name_the_newest_first(kept: Kept) -> None:
    old, new = kept.row("api"), kept.row("api")
    old = replace(old, place=replace(old.place, scope="local", execution_id=1))
    kept.store.put(replace(old, created_at=old.created_at - timedelta(hours=1)))
    kept.store.put(new)
    kept.store.put(replace(kept.row("other"), created_at=new.created_at - timedelta(hours=2)))
    names = [row.cache_key for row in kept.store.rows(kept.catalog_id)]
    assert names == [new.cache_key, old.cache_key, kept.row("other").cache_key]
    assert [r.cache_key for r in kept.store.rows(kept.catalog_id, "api")] == names[:2]
    assert list(kept.store.rows(kept.catalog_id + 1)) == []


def test_a_value_is_forgotten_once(kept: Kept) -> None:
    kept.store.put(kept.row())
    assert kept.store.delete(kept.row().cache_key)
    assert not kept.store.delete(kept.row().cache_key)
    assert kept.store.get(kept.row().cache_key) is None


def test_one_holds_the_lease_until_it_is_given_back(kept: Kept) -> None:
    store = kept.store
    assert store.lease("k", "one", seconds=30)
    assert store.lease("k", "one", seconds=30)  # an answer that was lost is asked for again
    assert not store.lease("k", "two", seconds=30)
    assert store.lease("other", "two", seconds=30)
    store.release("k", "two")
    assert not store.lease("k", "two", seconds=30)
    store.release("k", "one")
    assert store.lease("k", "two", seconds=30)


def test_a_lease_runs_out(kept: Kept) -> None:
    assert kept.store.lease("k", "one", seconds=30)
    kept.age(31)
    assert kept.store.lease("k", "two", seconds=30)
    assert not kept.store.lease("k", "one", seconds=30)


def test_only_who_holds_the_lease_puts(kept: Kept) -> None:
    row = kept.row()
    assert kept.store.lease(row.cache_key, "one", seconds=30)
    assert not kept.store.settle(row, "two")
    assert kept.store.get(row.cache_key) is None
    assert kept.store.settle(row, "one")
    assert not kept.store.settle(replace(row, sealed="cb1.again"), "one")
    found = kept.store.get(row.cache_key)
    assert found is not None
    assert found.sealed == row.sealed
    assert kept.store.lease(row.cache_key, "two", seconds=30)


def test_of_many_at_once_one_gets_the_lease(kept: Kept) -> None:
    got: list[str] = []
    start = threading.Barrier(8)

    def take(holder: str) -> None:
        start.wait()
        if kept.store.lease("k", holder, seconds=30):
            got.append(holder)

    threads = [threading.Thread(target=take, args=(f"h{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


def test_what_ended_long_ago_is_pruned(kept: Kept) -> None:
    kept.store.put(kept.row("old", life=10))
    kept.store.put(kept.row("new", life=3600))
    kept.store.lease("k", "one", seconds=10)
    kept.age(120)
    assert kept.store.prune(older_than=60) == 1
    assert [row.place.name for row in kept.store.rows(kept.catalog_id)] == ["new"]


def test_what_belongs_to_executions_alone_is_forgotten_with_them(kept: Kept) -> None:
    rows = [
        replace(kept.row(), place=TokenPlace("api", kept.catalog_id, "local", 1)),
        replace(kept.row(), place=TokenPlace("api", kept.catalog_id, "local", 2)),
        kept.row(),
    ]
    for row in rows:
        kept.store.put(row)
        assert kept.store.lease(row.cache_key, "w1", seconds=60)
    kept.store.forget([1, 3])
    left = {row.cache_key for row in kept.store.rows(kept.catalog_id)}
    assert left == {row.cache_key for row in rows[1:]}
    taken = [kept.store.lease(row.cache_key, "w2", seconds=60) for row in rows]
    assert taken == [True, False, False]
