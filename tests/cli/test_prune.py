"""``callboard prune`` on a real API, with the archive it writes."""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.blobs.memory import MemoryBlobs
from app.cli.archive import batches, name_of
from app.client import BrokenStreamError, Client
from app.errors import UnavailableError
from app.services.large import DIGEST
from app.settings import Settings
from app.wire.retention import EVENTS
from tests.cli.fakes import Call, serving

PLAYBOOK = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: old, path: tests/old}
workload: {size: 1}
workflow:
- {step: a, tool: {kind: python, code: 'return {"text": "x" * size}', input: {size: "{{ size }}"}}}
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """An API whose executions are this test's alone."""
    settings = replace(Settings(), home=tmp_path / "server", blob_bytes=100_000)
    with serving(settings) as url:
        yield url


@pytest.fixture
def client(server: str) -> Iterator[Client]:
    with Client(server) as connected:
        connected.register(PLAYBOOK)
        yield connected


@pytest.fixture
def prune(call: Call, server: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The answer of the command as data."""
    monkeypatch.setenv("NOETL_SERVER_URL", server)

    def run(*words: str) -> Any:
        result = call("prune", "--json", *words)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def ran(client: Client, size: int = 1, count: int = 1) -> list[str]:
    """Executions that have ended."""
    ids = [client.execute("tests/old", {"size": size}).execution_id for _ in range(count)]
    for each in ids:
        while not client.status(each)["completed"]:
            client.output(each, wait=1)
    return [str(each) for each in ids]


def there(client: Client) -> set[str]:
    return {row["execution_id"] for row in client.executions(limit=500)}


def lines(folder: Path) -> list[Any]:
    found = []
    for path in sorted(folder.glob("*.jsonl.gz")):
        found += [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    return found


def test_a_dry_run_counts_and_removes_nothing(client: Client, prune: Callable[..., Any]) -> None:
    ids = ran(client, count=3)
    counted = prune("--older-than", "0s", "--dry-run")
    events = sum(len(client.events(each, page_size=500)) for each in ids)
    assert counted == {"executions": 3, "events": events, "dry_run": True}
    assert there(client) == set(ids)
    assert prune("--older-than", "1h", "--dry-run")["executions"] == 0


def test_old_ones_go_and_the_newest_stay(client: Client, prune: Callable[..., Any]) -> None:
    ids = ran(client, count=5)
    assert prune("--older-than", "0s", "--keep", "2", "--batch", "2")["executions"] == 3
    assert there(client) == set(ids[3:])
    assert prune("--keep", "0")["executions"] == 0, "they ended within the hour"
    assert prune("--older-than", "0s", "--status", "failed")["executions"] == 0
    assert prune("--older-than", "0s", "--path", "tests/other")["executions"] == 0
    assert prune("--older-than", "0", "--path", "tests/old")["executions"] == 2


def test_people_are_told(
    call: Call, server: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOETL_SERVER_URL", server)
    ran(client)
    told = call("prune", "--older-than", "0s", "--dry-run")
    assert told.stdout.startswith("would go: 1 execution with ")
    told = call("prune", "--older-than", "0s")
    assert told.stdout.startswith("removed: 1 execution with ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "--older-than, or --keep"),
        (["--older-than", "soon"], "write 30d"),
        (["--older-than", "-3d"], "write 30d"),
        (["--older-than", "9999999d"], "write 30d"),
        (["--older-than", "1d", "--batch", "0"], "--batch"),
        (["--older-than", "1d", "--status", "RUNNING"], "--status"),
    ],
)
def test_what_makes_no_sense_is_refused_with_code_2(
    call: Call, words: list[str], told: str
) -> None:
    result = call("prune", *words)
    assert (result.exit_code, told in result.stderr) == (2, True), result.stderr


def test_what_is_archived_is_complete_and_readable(
    client: Client, prune: Callable[..., Any], tmp_path: Path
) -> None:
    small, (large,) = ran(client, count=2), ran(client, size=200_000)
    before = {each: client.events(each, page_size=500) for each in (*small, large)}
    folder = tmp_path / "backup"
    answer = prune("--older-than", "0s", "--archive", str(folder), "--batch", "2")
    assert (answer["executions"], answer["lost"]) == (3, [])
    assert there(client) == set()
    found = {str(line["execution"]["execution_id"]): line for line in lines(folder)}
    assert set(found) == set(before)
    for each, line in found.items():
        assert [e["seq"] for e in line["events"]] == [e["seq"] for e in before[each]]
        assert line["execution"]["path"] == "tests/old"
    (blob,) = found[large]["blobs"]
    owner, _, name = blob["ref"].removeprefix("noetl://execution/").partition("/")
    kept = folder / "values" / owner / name_of(name)
    assert json.loads(kept.read_bytes()) == {"text": "x" * 200_000}
    modes = {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o600}


def test_it_is_on_disk_before_it_goes(
    client: Client, prune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran(client, count=2)
    order: list[str] = []
    fsync, remove = os.fsync, Client.prune

    def noted_fsync(descriptor: int) -> None:
        order.append("disk")
        fsync(descriptor)

    def noted_prune(self: Client, **request: Any) -> Any:
        if request.get("executions"):
            order.append(f"remove {len(lines(tmp_path))}")
        return remove(self, **request)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Client, "prune", noted_prune)
    prune("--older-than", "0s", "--archive", str(tmp_path), "--batch", "1")
    # The file's name, then each batch: readable before it is removed.
    assert order == ["disk", "disk", "remove 1", "disk", "remove 2"]


def test_a_file_that_takes_only_a_part_at_a_time_is_whole(
    client: Client, prune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (large,) = ran(client, size=200_000)

    class Short(FileIO):
        """Writes as a disk that is nearly full does."""

        def write(self, data: Any, /) -> int:
            return super().write(bytes(data[:1000]))

    monkeypatch.setattr(os, "fdopen", lambda fd, mode: io.BufferedWriter(Short(fd, mode)))
    folder = tmp_path / "a" / "b"
    answer = prune("--older-than", "0s", "--archive", str(folder))
    assert (answer["executions"], answer["lost"]) == (1, [])
    (line,) = lines(folder)
    (blob,) = line["blobs"]
    sizes = [path.stat().st_size for path in (folder / "values" / large).iterdir()]
    assert sizes == [blob["size"]]


def test_a_damaged_artifact_is_told_and_keeps_nothing_waiting(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = MemoryBlobs()
    monkeypatch.setattr("app.blobs.memory.MemoryBlobs", lambda: blobs)
    with serving(replace(Settings(), home=tmp_path / "server")) as url, Client(url) as client:
        monkeypatch.setenv("NOETL_SERVER_URL", url)
        client.register(PLAYBOOK)
        damaged, whole = ran(client, count=2)
        content = b"x" * 3_000_000
        digest = sha256(content).hexdigest()[:DIGEST]
        for each, data in ((damaged, content[1:]), (whole, content)):
            blobs.put(f"{each}/artifact/image/png/plot.png/{digest}", data)
        folder = tmp_path / "to"
        result = call("prune", "--older-than", "0s", "--archive", str(folder))
        ref = f"noetl://execution/{damaged}/artifact/image/png/plot.png/{digest}"
        assert (result.exit_code, there(client)) == (0, set()), result.output
        assert f"warning: {ref} was gone or damaged" in result.stderr
        files = [path for path in folder.glob("values/*/*") if path.is_file()]
        assert [path.read_bytes() == content for path in files] == [True]
        assert blobs.names(int(whole)) == []


def test_one_that_somebody_else_removes_while_it_comes_is_left_out(
    client: Client, prune: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = ran(client, count=2)
    archive, remove = Client.archive, Client.prune

    def late(self: Client, execution_id: int | str) -> Iterator[bytes]:
        if execution_id == first and first in there(self):
            remove(self, older_than=0, batch=1)
            yield b"{"
            raise BrokenStreamError("it broke off")
        yield from archive(self, execution_id)

    monkeypatch.setattr(Client, "archive", late)
    assert prune("--older-than", "0s", "--archive", str(tmp_path))["executions"] == 1
    assert [str(line["execution"]["execution_id"]) for line in lines(tmp_path)] == [second]


def test_a_batch_is_bounded_by_its_events_too() -> None:
    members = [{"execution_id": str(n), "events": e} for n, e in enumerate([1, EVENTS, 5, 6, 7])]
    found = [[each["events"] for each in batch] for batch in batches(members, 2)]
    assert found == [[1], [EVENTS], [5, 6], [7]]


def test_a_crash_between_archive_and_removal_loses_nothing(
    call: Call,
    client: Client,
    prune: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = ran(client, count=3)
    remove = Client.prune

    def dying(self: Client, **request: Any) -> Any:
        if request.get("executions") and len(lines(tmp_path)) > 1:
            raise UnavailableError("it died")
        return remove(self, **request)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "prune", dying)
        words = ("--older-than", "0s", "--archive", str(tmp_path), "--batch", "1")
        result = call("prune", *words)
    assert (result.exit_code, "it died" in result.stderr) == (1, True)
    archived = {str(line["execution"]["execution_id"]) for line in lines(tmp_path)}
    assert archived | there(client) == set(ids)
    assert there(client) == set(ids[1:])
    assert prune(*words)["executions"] == 2
    assert [str(line["execution"]["execution_id"]) for line in lines(tmp_path)].count(ids[1]) == 2
    assert {str(line["execution"]["execution_id"]) for line in lines(tmp_path)} == set(ids)


def test_an_execution_that_came_in_part_is_not_removed(
    call: Call, client: Client, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOETL_SERVER_URL", server)
    (only,) = ran(client)
    archive = Client.archive

    def cut(self: Client, execution_id: int | str) -> Iterator[bytes]:
        line = orjson.loads(b"".join(archive(self, execution_id)))
        line["events"].pop(1)
        yield orjson.dumps(line) + b"\n"

    monkeypatch.setattr(Client, "archive", cut)
    result = call("prune", "--older-than", "0s", "--archive", str(tmp_path))
    assert (result.exit_code, "only in part" in result.stderr) == (1, True)
    assert there(client) == {only}
