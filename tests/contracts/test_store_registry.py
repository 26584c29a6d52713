"""What every catalog and every registry of live processes promises."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.engine.ports import Catalog, RuntimeEntry, RuntimeRegistry
from app.errors import BadRequestError


def test_versions_of_a_path_count_from_one(catalog: Catalog) -> None:
    first = catalog.add("a/b", "Playbook", "one", meta={"tags": ["x"]})
    second = catalog.add("a/b", "Playbook", "two", meta={})
    other = catalog.add("a/c", "Playbook", "one", meta={})
    assert (first.version, second.version, other.version) == (1, 2, 1)
    assert len({first.catalog_id, second.catalog_id, other.catalog_id}) == 3
    assert catalog.get(first.catalog_id) == first
    assert (first.content, first.kind, first.meta) == ("one", "Playbook", {"tags": ["x"]})
    assert first.created_at.utcoffset() is not None
    assert catalog.find("a/b") == second
    assert catalog.newest("a/b") == second.catalog_id
    assert catalog.find("a/b", 1) == first


def test_what_is_not_in_the_catalog(catalog: Catalog) -> None:
    catalog.add("a", "Playbook", "", meta={})
    assert catalog.get(2**40) is None
    assert catalog.find("b") is None
    assert catalog.newest("b") is None
    assert catalog.find("a", 2) is None
    assert catalog.entries(path="b") == []


def test_entries_are_the_newest_of_each_path_or_every_version_of_one(catalog: Catalog) -> None:
    for path, kind in [("b", "Playbook"), ("a", "Agent"), ("b", "Agent"), ("c", "Playbook")]:
        catalog.add(path, kind, "", meta={})

    def listed(**arguments: Any) -> list[tuple[str, int]]:
        return [(entry.path, entry.version) for entry in catalog.entries(**arguments)]

    assert listed() == [("a", 1), ("b", 2), ("c", 1)]
    assert listed(kind="Playbook") == [("c", 1)]
    assert listed(kind="Agent") == [("a", 1), ("b", 2)]
    assert listed(path="b") == [("b", 1), ("b", 2)]
    assert listed(path="b", kind="Playbook") == [("b", 1)]
    assert listed(limit=2) == [("a", 1), ("b", 2)]


def test_concurrent_registrations_get_versions_of_their_own(catalog: Catalog) -> None:
    def add(number: int) -> int:
        return catalog.add(f"path/{number % 2}", "Playbook", str(number), meta={}).version

    with ThreadPoolExecutor(8) as pool:
        versions = sorted(pool.map(add, range(40)))
    assert versions == sorted([*range(1, 21)] * 2)


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_text_that_cannot_be_stored_is_refused(catalog: Catalog, text: str) -> None:
    with pytest.raises(BadRequestError):
        catalog.add("a", "Playbook", text, meta={})
    assert catalog.find("a") is None


def test_nobody_reaches_into_the_catalog_through_an_object(catalog: Catalog) -> None:
    meta = {"tags": ["x"]}
    entry = catalog.add("a", "Playbook", "", meta=meta)
    meta["tags"].append("y")
    entry.meta["tags"].append("z")
    found = catalog.get(entry.catalog_id)
    assert found is not None
    assert found.meta == {"tags": ["x"]}


def test_a_beat_registers_once_and_then_refreshes(
    runtime: RuntimeRegistry, age: Callable[[float], None]
) -> None:
    labels = {"zone": ["a"]}
    told = RuntimeEntry("w1", "worker_pool", uri="x", labels=labels, capacity=8, runtime={"v": 1})
    first, new = runtime.beat(told)
    assert new
    assert (first.name, first.labels, first.capacity, first.runtime) == (
        "w1",
        {"zone": ["a"]},
        8,
        {"v": 1},
    )
    labels["zone"].append("changed")
    age(60)
    again, new = runtime.beat(RuntimeEntry("w1", "worker_pool", status="draining"))
    assert not new
    assert again.runtime_id == first.runtime_id
    assert (again.status, again.labels, again.capacity) == ("draining", {}, None)
    assert runtime.entries() == [again]
    assert again.heartbeat is not None
    assert first.heartbeat is not None
    assert again.heartbeat > first.heartbeat
    assert again.created_at == first.created_at


def test_entries_by_kind_status_and_name(runtime: RuntimeRegistry) -> None:
    for name, kind, status in [
        ("w2", "worker_pool", "ready"),
        ("w1", "worker_pool", "draining"),
        ("w1", "server_api", "ready"),
    ]:
        runtime.beat(RuntimeEntry(name, kind, status=status))

    def listed(**arguments: Any) -> list[tuple[str, str]]:
        return [(entry.kind, entry.name) for entry in runtime.entries(**arguments)]

    assert listed() == [("server_api", "w1"), ("worker_pool", "w1"), ("worker_pool", "w2")]
    assert listed(kind="worker_pool") == [("worker_pool", "w1"), ("worker_pool", "w2")]
    assert listed(kind="worker_pool", status="ready") == [("worker_pool", "w2")]
    assert listed(name="w1", status="ready") == [("server_api", "w1")]


def test_remove(runtime: RuntimeRegistry) -> None:
    runtime.beat(RuntimeEntry("w1", "worker_pool"))
    assert not runtime.remove("server_api", "w1")
    assert runtime.remove("worker_pool", "w1")
    assert not runtime.remove("worker_pool", "w1")
    assert runtime.entries() == []
    assert runtime.beat(RuntimeEntry("w1", "worker_pool"))[1]


def test_prune_forgets_the_silent(runtime: RuntimeRegistry, age: Callable[[float], None]) -> None:
    runtime.beat(RuntimeEntry("old", "worker_pool"))
    age(60)
    runtime.beat(RuntimeEntry("new", "worker_pool"))
    assert runtime.prune(older_than=90) == 0
    assert runtime.prune(older_than=30) == 1
    assert [entry.name for entry in runtime.entries()] == ["new"]


def test_processes_that_beat_at_once(runtime: RuntimeRegistry) -> None:
    def beat(number: int) -> bool:
        return runtime.beat(RuntimeEntry(f"w{number % 4}", "worker_pool"))[1]

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(beat, range(64))) == 4
    assert len(runtime.entries()) == 4


def test_heartbeats_are_stamped_with_the_clock_that_the_registry_tells(
    runtime: RuntimeRegistry,
) -> None:
    before = runtime.now()
    entry, _ = runtime.beat(RuntimeEntry("w", "worker_pool"))
    assert entry.heartbeat is not None
    assert before <= entry.heartbeat <= runtime.now()
