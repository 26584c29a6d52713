"""Logs as files: what an execution, and its family, left behind in the database and the blob store.

One JSON document per line; the first says who wrote it. Beside it lies what the log folds to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import orjson

from app.blobs.memory import MemoryBlobs
from app.engine.ports import CatalogEntry
from app.store.memory import MemoryCatalog, MemoryLog
from app.store.rows import Row
from app.store.shelf import Book, Stored
from app.store.shelf import _summary_after as summary_after

FOLDER = Path(__file__).parent
#: Form of the lines below; another one would get a number of its own and a reader beside this.
FORMAT = 1


def folder() -> Path:
    """Where this version keeps what it writes."""
    return FOLDER / version("callboard")


def recorded() -> list[Path]:
    """The logs of all versions."""
    return sorted(FOLDER.glob("*/*.jsonl"))


@dataclass(slots=True)
class Recording:
    """Everything kept of the executions of one scenario."""

    header: Mapping[str, Any]
    catalog: list[CatalogEntry] = field(default_factory=list)
    events: dict[int, list[Stored]] = field(default_factory=dict)
    values: dict[int, dict[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, says: str, log: MemoryLog, catalog: MemoryCatalog, blobs: MemoryBlobs
    ) -> Self:
        """What *log* and those beside it hold now."""
        header = {
            "golden": FORMAT,
            "version": version("callboard"),
            "scenario": name,
            "says": says,
        }
        books = dict(sorted(log._shelf._books.items()))
        return cls(
            header,
            catalog._all(),
            {i: book.rows for i, book in books.items()},
            {i: book.values for i, book in books.items() if book.values},
            dict(blobs._blobs),
        )

    # ------------------------------------------------------------------ files
    def lines(self) -> Iterable[bytes]:
        yield orjson.dumps(self.header)
        for entry in self.catalog:
            yield orjson.dumps({"catalog": entry._asdict()})
        for execution_id, stored in self.events.items():
            for each in stored:
                row = {**each.row._asdict(), "payload": orjson.loads(each.row.payload)}
                kept = {key: value for key, value in row.items() if value is not None}
                given = {"event_id": each.event_id, "created_at": each.at}
                yield orjson.dumps({"event": {"execution_id": execution_id, **kept, **given}})
        for execution_id, values in self.values.items():
            for name, text in values.items():
                value = {"execution_id": execution_id, "name": name, "value": orjson.loads(text)}
                yield orjson.dumps({"value": value})
        for key, data in self.blobs.items():
            yield orjson.dumps({"blob": {"key": key, "data": data.decode()}})

    @classmethod
    def read(cls, path: Path) -> Self:
        first, *lines = map(orjson.loads, path.read_bytes().splitlines())
        assert first["golden"] == FORMAT, f"{path} has another form"
        found = cls(first)
        for line in lines:
            ((kind, data),) = line.items()
            getattr(found, f"_read_{kind}")(data)
        return found

    def _read_catalog(self, data: dict[str, Any]) -> None:
        made = datetime.fromisoformat(data.pop("created_at"))
        self.catalog.append(CatalogEntry(**data, created_at=made))

    def _read_event(self, data: dict[str, Any]) -> None:
        execution_id, event_id = data.pop("execution_id"), data.pop("event_id")
        at = datetime.fromisoformat(data.pop("created_at"))
        data["payload"] = orjson.dumps(data["payload"]).decode()
        columns = {name: data.pop(name, None) for name in Row._fields}
        assert not data, f"columns that no row has any more: {sorted(data)}"
        row = Row(**columns)
        self.events.setdefault(execution_id, []).append(Stored(row, event_id, at))

    def _read_value(self, data: dict[str, Any]) -> None:
        kept = self.values.setdefault(data["execution_id"], {})
        kept[data["name"]] = orjson.dumps(data["value"])

    def _read_blob(self, data: dict[str, Any]) -> None:
        self.blobs[data["key"]] = data["data"].encode()

    # ------------------------------------------------------------------ putting it back
    def shelve(self, log: MemoryLog, catalog: MemoryCatalog, blobs: MemoryBlobs) -> None:
        """Make these fresh ones hold what was recorded."""
        catalog._entries.extend(self.catalog)
        blobs._blobs.update(self.blobs)
        for execution_id, rows in self.events.items():
            book = Book(values=dict(self.values.get(execution_id, {})))
            for stored in rows:
                book.add(stored)
                book.summary = summary_after(book.summary, stored.entry(execution_id))
            log._shelf._books[execution_id] = book
