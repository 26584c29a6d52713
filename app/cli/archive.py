"""A file of executions that are about to be removed: JSON Lines in gzip, on disk before they go."""

from __future__ import annotations

import gzip
import os
import secrets
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from app.client import Client
from app.errors import CallboardError, NotFoundError

#: What the names of artifacts begin with, after their execution's id.
_ARTIFACT = "artifact/"
_SCHEME = "noetl://execution/"
#: The longest name of a file that common file systems take.
LONGEST = 255


class BrokenArchiveError(CallboardError):
    """An execution came only in part."""

    code = "broken_archive"
    status = 502


class Archive:
    """One file below *folder* for each call; large values and artifacts lie beside it.

    Every batch is a gzip member of its own: a file that breaks off can be read up to there.
    """

    def __init__(self, folder: Path, client: Client) -> None:
        self._folder = folder
        self._client = client
        self._file: FileIO | None = None
        #: The file; None where nothing was written.
        self.path: Path | None = None
        #: Large values that the server did not have any more.
        self.lost: list[str] = []

    def write(self, execution_ids: Sequence[str]) -> list[str]:
        """Write these executions and wait for the disk; those that were there to be written."""
        file = self._open()
        written = []
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as member:
            for each in execution_ids:
                try:
                    line = b"".join(self._client.archive(each))
                except NotFoundError:
                    continue  # somebody else has removed it
                self._keep_blobs(_checked(each, line)["blobs"])
                member.write(line)
                written.append(each)
        file.flush()
        os.fsync(file.fileno())
        return written

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> FileIO:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            self.path = self._folder / f"executions-{now}-{secrets.token_hex(4)}.jsonl.gz"
            self._file = _create(self.path)
        return self._file

    def _keep_blobs(self, blobs: Iterable[dict[str, Any]]) -> None:
        for blob in blobs:
            owner, _, name = str(blob["ref"]).removeprefix(_SCHEME).partition("/")
            folder = self._folder / "values" / owner
            path = folder / name_of(name)
            if path.exists():
                continue
            folder.mkdir(parents=True, exist_ok=True)
            is_artifact = name.startswith(_ARTIFACT)
            ask = self._client.download if is_artifact else self._client.resolve
            part = path.with_name(f".{secrets.token_hex(8)}.part")
            try:
                with _create(part) as file:
                    for piece in ask(blob["ref"]):
                        file.write(piece)
                    os.fsync(file.fileno())
                part.replace(path)
                _sync(folder)
            except NotFoundError:
                # Gone, or damaged, before: it cannot be saved, and must not keep all else waiting.
                self.lost.append(blob["ref"])
            finally:
                part.unlink(missing_ok=True)


def name_of(name: str) -> str:
    """The file that a value of this name, as its reference writes it, is in."""
    return quote(name, safe="%")[-LONGEST:]


def _checked(execution_id: str, line: bytes) -> Any:
    """*line* as data. Raises ``BrokenArchiveError`` where it is not all of the execution."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = {}
    seqs = [event["seq"] for event in found.get("events", ())]
    if not line.endswith(b"\n") or not seqs or seqs != list(range(1, len(seqs) + 1)):
        raise BrokenArchiveError(
            f"execution {execution_id} came only in part", remedy="try again; nothing of it is lost"
        )
    return found


def _create(path: Path) -> FileIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    _sync(path.parent)
    return FileIO(descriptor, "wb")


def _sync(folder: Path) -> None:
    """Have the names in *folder* on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
