"""A file of executions that are about to be removed: JSON Lines in gzip, on disk before they go."""

from __future__ import annotations

import gzip
import os
import secrets
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import orjson

from app.client import BrokenStreamError, Client
from app.errors import CallboardError, NotFoundError
from app.wire.retention import EVENTS

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
        self._file: BinaryIO | None = None
        #: The file; None where nothing was written.
        self.path: Path | None = None
        #: Large values that the server did not have any more, or not as they were.
        self.lost: list[str] = []

    def write(self, members: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write these executions and wait for the disk; those that are whole in the file.

        One that somebody else has removed, or that has got another event, is left out. Raises
        ``BrokenArchiveError``, ``UnavailableError`` and ``OSError``: nothing may be removed then.
        """
        file = self._open()
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as gz:
            written = [member for member in members if self._write_one(gz, member)]
        # Before the disk is waited for: what is only in this process is not on it.
        file.flush()
        os.fsync(file.fileno())
        return written

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> BinaryIO:
        if self._file is None:
            _make(self._folder)
            now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            self.path = self._folder / f"executions-{now}-{secrets.token_hex(4)}.jsonl.gz"
            self._file = _create(self.path)
        return self._file

    # ------------------------------------------------------------------ one execution
    def _write_one(self, gz: gzip.GzipFile, member: dict[str, Any]) -> bool:
        execution_id, events = member["execution_id"], member["events"]
        try:
            line, found = self._line(execution_id, events)
            if len(found["events"]) > events:
                return False  # it is not what was chosen any more, and would not be removed
            lost = [blob["ref"] for blob in found["blobs"] if not self._keep(blob)]
            if lost:
                # Not lost, but removed by somebody else?
                self._client.execution(execution_id, include_events=False)
        except NotFoundError:
            return False
        self.lost += lost
        gz.write(line)
        return True

    def _line(self, execution_id: str, events: int) -> tuple[bytes, Any]:
        """The line of the execution, and as data. Raises ``NotFoundError`` for one that is gone."""
        try:
            line = b"".join(self._client.archive(execution_id))
            return line, _checked(execution_id, line, events)
        except (BrokenStreamError, BrokenArchiveError):
            # Removed while it came, or changed: it is asked for once more.
            line = b"".join(self._client.archive(execution_id))
            return line, _checked(execution_id, line, events)

    # ------------------------------------------------------------------ a large value
    def _keep(self, blob: dict[str, Any]) -> bool:
        """Write the value to its file; whether the server has it as it was."""
        owner, _, name = str(blob["ref"]).removeprefix(_SCHEME).partition("/")
        folder = self._folder / "values" / owner
        path = folder / name_of(name)
        if path.exists():
            return True
        _make(folder)
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            came, whole = self._fetch(blob, part)
            if not whole:
                again, whole = self._fetch(blob, part)
                if not whole and again == came:
                    return False  # it breaks at the same place: it is damaged
            if not whole:
                raise BrokenArchiveError(
                    f"{blob['ref']} came only in part", remedy="try again; nothing of it is lost"
                )
            part.replace(path)
            _sync(folder)
        except NotFoundError:
            # Gone, or damaged, before: it cannot be saved, and must not keep all else waiting.
            return False
        finally:
            part.unlink(missing_ok=True)
        return True

    def _fetch(self, blob: dict[str, Any], part: Path) -> tuple[int, bool]:
        """Write the value to the file *part*; the bytes that came, and whether those are all."""
        name = str(blob["ref"]).removeprefix(_SCHEME).partition("/")[2]
        ask = self._client.download if name.startswith(_ARTIFACT) else self._client.resolve
        came = 0
        part.unlink(missing_ok=True)
        with _create(part) as file:
            try:
                for piece in ask(blob["ref"]):
                    came += file.write(piece)
            except BrokenStreamError:
                return came, False
            file.flush()
            os.fsync(file.fileno())
        # The server, and the disk here, agree about how much there is.
        whole = came == part.stat().st_size and blob["size"] in {None, came}
        return came, whole


def batches(members: list[dict[str, Any]], most: int) -> Iterator[list[dict[str, Any]]]:
    """*members* in their order, by *most*, and not by more events than one transaction takes."""
    batch: list[dict[str, Any]] = []
    events = 0
    for member in members:
        if batch and (len(batch) == most or events + member["events"] > EVENTS):
            yield batch
            batch, events = [], 0
        batch.append(member)
        events += member["events"]
    if batch:
        yield batch


def name_of(name: str) -> str:
    """The file that a value of this name, as its reference writes it, is in."""
    return quote(name, safe="%")[-LONGEST:]


def _checked(execution_id: str, line: bytes, events: int) -> Any:
    """*line* as data. Raises ``BrokenArchiveError`` where it is not all of the *events*."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = {}
    seqs = [event["seq"] for event in found.get("events", ())]
    all_of_it = len(seqs) >= events and seqs == list(range(1, len(seqs) + 1))
    if not line.endswith(b"\n") or not all_of_it:
        raise BrokenArchiveError(
            f"execution {execution_id} came only in part", remedy="try again; nothing of it is lost"
        )
    return found


def _create(path: Path) -> BinaryIO:
    # Buffered: a write to the bare file may write only a part, and gzip does not look.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    _sync(path.parent)
    return os.fdopen(descriptor, "wb")


def _make(folder: Path) -> None:
    """*folder* and its parents, each name of them on disk."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        _sync(path.parent)


def _sync(folder: Path) -> None:
    """Have the names in *folder* on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
