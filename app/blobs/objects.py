"""Blobs in an object store (S3, Google Cloud Storage, Azure), by its URL. Needs ``obstore``."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from app.blobs.given import Given
from app.errors import StartupError, UnavailableError

#: Bytes of a large object that are read at once, about.
PIECE = 1 << 20

#: What a reference calls the store, by the scheme of its URL.
KINDS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
    "file": "disk",
    "memory": "memory",
}


class ObjectBlobs:
    """Objects below *url*; its credentials are those of the environment. See ``BlobStore``."""

    def __init__(self, url: str) -> None:
        scheme = urlsplit(url).scheme
        if scheme not in KINDS:
            raise StartupError(
                f"CALLBOARD_BLOBS begins with {scheme}://, which is no kind of store we know",
                remedy=f"use a folder, or one of {', '.join(f'{name}://' for name in KINDS)}",
            )
        try:
            from_url = import_module("obstore.store").from_url
        except ImportError as exc:
            raise StartupError(
                f"CALLBOARD_BLOBS is a URL ({scheme}://…), and the package for that is not installed",
                remedy="pip install 'callboard[objects]', or name a folder",
            ) from exc
        self.kind = KINDS[scheme]
        try:
            self._store: Any = from_url(url)
        except Exception as exc:
            raise StartupError(
                f"the blob store cannot be used: {type(exc).__name__}", remedy="see CALLBOARD_BLOBS"
            ) from exc

    def put(self, key: str, data: bytes) -> None:
        with _telling("written"):
            self._store.put(_path(key), data)

    def put_stream(self, key: str, pieces: Iterable[bytes]) -> None:
        given = Given(pieces)
        with given.own_errors(), _telling("written"):
            self._store.put(_path(key), given, use_multipart=True)

    def get(self, key: str) -> bytes | None:
        with _telling("read"):
            try:
                return bytes(self._store.get(_path(key)).bytes())
            except FileNotFoundError:
                return None

    def get_stream(self, key: str) -> Generator[bytes, None, None] | None:
        with _telling("read"):
            try:
                found = self._store.get(_path(key))
            except FileNotFoundError:
                return None
        return _read(found)

    def size(self, key: str) -> int | None:
        with _telling("read"):
            try:
                return int(self._store.head(_path(key))["size"])
            except FileNotFoundError:
                return None

    def delete(self, key: str) -> None:
        with _telling("deleted"):
            try:
                self._store.delete(_path(key))
            except FileNotFoundError:
                return

    def names(self, execution_id: int) -> list[str]:
        prefix = f"{_path(str(execution_id))}/"
        with _telling("listed"):
            found = [each["path"] for page in self._store.list(prefix) for each in page]
        return [_key(path.removeprefix(prefix)) for path in found]

    def delete_all(self, execution_id: int) -> None:
        prefix = f"{_path(str(execution_id))}/"
        with _telling("deleted"):
            while found := [each["path"] for page in self._store.list(prefix) for each in page]:
                # Whoever deletes the same at the same time took it: the others are still there.
                with suppress(FileNotFoundError):
                    self._store.delete(found)


def _read(found: Any) -> Generator[bytes, None, None]:
    pieces = iter(found.stream(min_chunk_size=PIECE))
    while True:
        with _telling("read"):
            piece = next(pieces, None)
        if piece is None:
            return
        yield bytes(piece)


def _path(key: str) -> str:
    # A store on disk would read '..' and '//' in a path its own way.
    parts = key.split("/")
    return "/".join(quote(part, safe="") if part.strip(".") else f"%{part}" for part in parts)


def _key(path: str) -> str:
    """What ``_path`` made *path* of."""
    parts = path.split("/")
    return "/".join(part[1:] if not part.strip(".%") else unquote(part) for part in parts)


@contextmanager
def _telling(what: str) -> Iterator[None]:
    known: type[Exception] = import_module("obstore.exceptions").BaseError
    try:
        yield
    except (known, OSError) as exc:
        if isinstance(exc, FileNotFoundError):
            raise
        raise UnavailableError(
            f"a blob cannot be {what}: {type(exc).__name__}",
            remedy="is the object store reachable, and may we use it? see CALLBOARD_BLOBS",
        ) from exc
