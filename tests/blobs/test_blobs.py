"""Every blob store keeps bytes by key, exactly, and the one on disk survives what disks do."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest

from app.blobs.directory import DirectoryBlobs
from app.blobs.memory import MemoryBlobs
from app.engine.ports import BlobStore
from app.errors import StartupError, UnavailableError
from app.settings import load
from app.wiring import blob_store


@pytest.fixture(params=["memory", "directory", "objects"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "memory":
        return MemoryBlobs()
    if request.param == "directory":
        return DirectoryBlobs(tmp_path / "blobs")
    pytest.importorskip("obstore", reason="the extra 'objects' is not installed")
    return blob_store(load({}, blobs="memory:///").settings)


KEYS = [
    "1/result/a/1/-1/0123",
    "1/../../etc/passwd",
    "..",
    ".",
    "1//x/",
    "1/a b%2F\u00e4\u0000\n" + "\U0001f600",
    "1/" + "x" * 5000,
    "1/" + "x" * 4999 + "y",
]


@pytest.mark.parametrize("data", [b"", b"\0\xff" * 10, b"x" * 2_000_003], ids=len)
def test_what_was_put_comes_back(blobs: BlobStore, data: bytes) -> None:
    blobs.put("1/a", data)
    assert blobs.get("1/a") == data
    assert blobs.size("1/a") == len(data)


def test_no_key_is_another_one(blobs: BlobStore) -> None:
    for number, key in enumerate(KEYS):
        blobs.put(key, str(number).encode())
    assert [blobs.get(key) for key in KEYS] == [str(number).encode() for number in range(len(KEYS))]


def test_what_was_never_put_is_not_there(blobs: BlobStore) -> None:
    assert blobs.get("1/a") is None
    assert blobs.size("1/a") is None
    blobs.delete("1/a")


def test_what_was_deleted_is_gone(blobs: BlobStore) -> None:
    blobs.put("1/a", b"1")
    blobs.put("1/b", b"2")
    blobs.delete("1/a")
    assert blobs.get("1/a") is None
    assert blobs.get("1/b") == b"2"


def test_all_of_one_execution_can_be_deleted(blobs: BlobStore) -> None:
    gone = ["12/result/a/1/-1/0123", "12/a b", "12/" + "x" * 5000, "12/..", "12/"]
    stay = ["1/2", "123/a", "12", "2/12/a"]
    for key in gone + stay:
        blobs.put(key, key[:9].encode())
    blobs.delete_all(12)
    assert [key for key in gone if blobs.get(key) is not None] == []
    assert [blobs.get(key) for key in stay] == [key.encode() for key in stay]
    blobs.delete_all(12)
    blobs.put("12/a", b"again")
    assert blobs.get("12/a") == b"again"


def test_the_names_of_one_execution_are_told(blobs: BlobStore) -> None:
    names = ["result/a/1/-1/0123", "artifact/image/png/a b%2F\u00e4.png/01", "a/../b", "a//."]
    for name in names:
        blobs.put(f"12/{name}", b"x")
    for key in ["1/2", "123/a", "12", "2/12/a"]:
        blobs.put(key, b"x")
    assert sorted(blobs.names(12)) == sorted(names)
    assert blobs.names(7) == []


def test_two_may_delete_all_at_once(tmp_path: Path) -> None:
    blobs = blob_store(load({}, blobs=f"file://{tmp_path}").settings)
    for number in range(300):
        blobs.put(f"12/{number}", b"x")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(blobs.delete_all, [12] * 3))
    assert blobs.names(12) == []


def test_a_name_that_a_file_cannot_tell_is_left_out(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "blobs")
    for key in ["12/" + "x" * 5000, "12/..", "12/a"]:
        blobs.put(key, b"x")
    assert blobs.names(12) == ["a"]


def test_the_same_may_be_put_twice_and_at_once(blobs: BlobStore) -> None:
    data = b"x" * 300_000
    threads = [threading.Thread(target=blobs.put, args=("1/a", data)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blobs.get("1/a") == data


@pytest.mark.parametrize("pieces", [[], [b""], [b"\0\xff" * 10], [b"x" * 700_001] * 9], ids=len)
def test_what_was_put_in_pieces_comes_back_either_way(
    blobs: BlobStore, pieces: list[bytes]
) -> None:
    blobs.put_stream("1/a", iter(pieces))
    assert blobs.get("1/a") == b"".join(pieces)
    found = blobs.get_stream("1/a")
    assert found is not None
    assert b"".join(found) == b"".join(pieces)
    blobs.put("1/b", b"whole")
    whole = blobs.get_stream("1/b")
    assert whole is not None
    assert b"".join(whole) == b"whole"


@pytest.mark.parametrize("place", ["{}", "file://{}"])
def test_a_large_blob_is_read_in_pieces(tmp_path: Path, place: str) -> None:
    blobs = blob_store(load({}, blobs=place.format(tmp_path)).settings)
    blobs.put("1/a", b"x" * 5_000_000)
    found = blobs.get_stream("1/a")
    assert found is not None
    assert len(next(found)) < 5_000_000
    found.close()


def test_there_are_no_pieces_of_what_was_never_put(blobs: BlobStore) -> None:
    assert blobs.get_stream("1/a") is None


class Broken(Exception):  # noqa: N818 (what a sender that goes away raises)
    pass


@pytest.mark.parametrize("error", [Broken("gone"), OSError(5, "not the store's")], ids=str)
def test_pieces_that_end_in_an_error_leave_nothing(blobs: BlobStore, error: Exception) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x" * 7_000_000
        raise error

    with pytest.raises(type(error)) as caught:
        blobs.put_stream("1/a", pieces())
    assert caught.value is error
    assert blobs.get("1/a") is None
    assert blobs.size("1/a") is None


# ---------------------------------------------------------------------- on disk
def test_pieces_that_end_in_an_error_leave_no_file(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"x"
        raise Broken

    with pytest.raises(Broken):
        DirectoryBlobs(tmp_path / "blobs").put_stream("1/a", pieces())
    assert files(tmp_path) == []


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_nothing_leads_out_of_the_folder(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "in" / "blobs")
    for key in KEYS:
        blobs.put(key, b"x")
    assert len(files(tmp_path / "in" / "blobs")) == len(KEYS) == len(files(tmp_path))


def test_what_earlier_versions_wrote_is_found(tmp_path: Path) -> None:
    key = "804742653550272512/a/1/-1/" + "0" * 64
    digest = hashlib.sha256(key.encode()).hexdigest()
    former = tmp_path / digest[:2] / digest[2:4] / quote(key, safe="")
    former.parent.mkdir(parents=True)
    former.write_bytes(b"old")
    blobs = DirectoryBlobs(tmp_path)
    assert (blobs.get(key), blobs.size(key)) == (b"old", 3)
    assert b"".join(blobs.get_stream(key) or ()) == b"old"
    blobs.put(key, b"new")
    assert blobs.get(key) == b"new"
    blobs.delete(key)
    blobs.delete(key)
    assert blobs.get(key) is None


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path / "blobs")
    blobs.put("1/a", b"x")
    made = [tmp_path / "blobs", *(tmp_path / "blobs").rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700, 0o600}


@pytest.mark.parametrize("dies", ["fsync", "rename"])
def test_a_write_that_dies_leaves_no_half_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    blobs = DirectoryBlobs(tmp_path / "blobs")
    blobs.put("1/a", b"old")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if dies == "fsync":
            patch.setattr(os, "fsync", broken)
        else:
            patch.setattr(Path, "replace", broken)
        with pytest.raises(UnavailableError, match=r"No space left.*CALLBOARD_BLOBS"):
            blobs.put("1/a", b"new")
    assert blobs.get("1/a") == b"old"
    assert len(files(tmp_path / "blobs")) == 1


def test_a_blob_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def noting(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object) -> object:
            order.append(name)
            return real(*args)

        return call

    blobs = DirectoryBlobs(tmp_path / "blobs")
    blobs.put("1/a", b"x")
    monkeypatch.setattr(os, "fsync", noting("fsync", os.fsync))
    monkeypatch.setattr(Path, "replace", noting("rename", Path.replace))
    blobs.put("1/a", b"y")
    assert order == ["fsync", "rename", "fsync"]


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    blobs = DirectoryBlobs(tmp_path / "file")
    with pytest.raises(UnavailableError, match="CALLBOARD_BLOBS"):
        blobs.put("1/a", b"x")


# ---------------------------------------------------------------------- which one
def test_the_home_is_where_blobs_go_unless_told(tmp_path: Path) -> None:
    blobs = blob_store(load({}, home=tmp_path).settings)
    blobs.put("1/a", b"x")
    assert blobs.kind == "disk"
    assert len(files(tmp_path / "blobs")) == 1


def test_the_setting_names_a_folder(tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    environ = {"CALLBOARD_BLOBS": str(place)}
    blob_store(load(environ, home=tmp_path).settings).put("1/a", b"x")
    assert len(files(place)) == 1


def test_a_url_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(StartupError, match=r"ftp://.*s3://"):
        blob_store(load({}, blobs="ftp://host/x").settings)
