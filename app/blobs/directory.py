"""Blobs as files below one folder, which every process of the control plane must see.

A file has its name from the moment it is complete and on disk: what is being written has another
one, and a crash leaves at most such a leftover behind.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import FileIO
from pathlib import Path
from urllib.parse import quote, unquote

from app.blobs.given import Given
from app.errors import UnavailableError

#: The longest name of a file that common file systems take, less what the temporary name adds.
LONGEST = 255 - 32
#: Bytes of a large blob that are read at once.
PIECE = 1 << 20
#: Files that do not tell a name: of very long ones, of dots, and what was never finished.
_NAMELESS = re.compile(r"[0-9a-f]{64}(-.*)?|.*\.[0-9a-f]{16}\.part", re.DOTALL)


class DirectoryBlobs:
    """One file per blob, readable for its owner alone; see ``BlobStore``.

    Each execution has a folder of its own, and those are in 65,536 others.
    """

    kind = "disk"

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, key: str, data: bytes) -> None:
        self.put_stream(key, (data,))

    def put_stream(self, key: str, pieces: Iterable[bytes]) -> None:
        path = self._path(key)
        given = Given(pieces)
        with given.own_errors(), self._telling("written"):
            self._make(path.parent)
            part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
            try:
                _write(part, given)
                part.replace(path)
                _sync_folder(path.parent)
            finally:
                part.unlink(missing_ok=True)

    def get(self, key: str) -> bytes | None:
        with self._telling("read"):
            try:
                return self._found(key).read_bytes()
            except FileNotFoundError:
                return None

    def get_stream(self, key: str) -> Generator[bytes, None, None] | None:
        with self._telling("read"):
            try:
                file = self._found(key).open("rb", buffering=0)
            except FileNotFoundError:
                return None
        return self._read(file)

    def _read(self, file: FileIO) -> Generator[bytes, None, None]:
        with file:
            while True:
                with self._telling("read"):
                    piece = file.read(PIECE)
                if not piece:
                    return
                yield piece

    def size(self, key: str) -> int | None:
        with self._telling("read"):
            try:
                return self._found(key).stat().st_size
            except FileNotFoundError:
                return None

    def delete(self, key: str) -> None:
        with self._telling("deleted"):
            self._found(key).unlink(missing_ok=True)

    def names(self, execution_id: int) -> list[str]:
        with self._telling("listed"):
            try:
                found = [path.name for path in self._folder(str(execution_id)).iterdir()]
            except FileNotFoundError:
                return []
        return [unquote(name) for name in found if not _NAMELESS.fullmatch(name)]

    def delete_all(self, execution_id: int) -> None:
        folder = self._folder(str(execution_id))
        with self._telling("deleted"):
            try:
                for path in folder.iterdir():
                    path.unlink(missing_ok=True)
                folder.rmdir()
            except FileNotFoundError:
                return
            _sync_folder(folder.parent)

    def _found(self, key: str) -> Path:
        """Where the blob is: where it belongs, or where earlier versions put it."""
        path = self._path(key)
        if path.exists():
            return path
        digest = sha256(key.encode()).hexdigest()
        former = self._root / digest[:2] / digest[2:4] / _file_name(key)
        return former if former.exists() else path

    def _path(self, key: str) -> Path:
        """Keys may hold any character: no two have the same file, and none leads out of the root."""
        owner, slash, name = key.partition("/")
        # Nothing else is named '%', which would be written %25.
        return (
            self._folder(owner) / _file_name(name) if slash else self._root / "%" / _file_name(key)
        )

    def _folder(self, owner: str) -> Path:
        digest = sha256(owner.encode()).hexdigest()
        return self._root / digest[:2] / digest[2:4] / _file_name(owner)

    def _make(self, folder: Path) -> None:
        """*folder* and its parents, each entry of them on disk."""
        if folder.is_dir():
            return
        missing = [folder]
        while not missing[-1].parent.is_dir():
            missing.append(missing[-1].parent)
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(path.parent)

    @contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise UnavailableError(
                f"a blob cannot be {what} in {self._root}: {exc.strerror or exc}",
                remedy="make room, or see to the rights of the folder (setting CALLBOARD_BLOBS)",
            ) from exc


def _file_name(text: str) -> str:
    """A name for *text* that no other text has."""
    name = quote(text, safe="")
    if name.strip(".") and len(name) <= LONGEST:
        return name
    digest = sha256(text.encode()).hexdigest()
    # The end tells more than the beginning, which is the same for a whole step.
    return f"{digest}-{name[-(LONGEST - len(digest) - 1) :]}" if name.strip(".") else digest


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    # Exclusive: nobody else can have made a file of this name, nor a link in its place.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "wb", buffering=0) as file:  # noqa: PTH123 (a descriptor has no path)
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse this and keep the entry without it.
        with contextlib.suppress(OSError):
            os.fsync(fd)
    finally:
        os.close(fd)
