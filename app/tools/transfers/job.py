"""What both sides of a transfer share: its limits, its folder, and the seam between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from app.errors import ToolError
from app.tools import Context
from app.tools.transfers.stream import Piece


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and the DuckDB type that its values are written for."""

    name: str
    kind: str = "VARCHAR"

    @property
    def is_nested(self) -> bool:
        """Whether it is a list or structure of DuckDB's; such travel as JSON."""
        return self.kind.endswith("]") or self.kind.startswith(("STRUCT", "MAP", "UNION"))

    @property
    def is_json(self) -> bool:
        return self.kind == "JSON" or self.is_nested


@dataclass(slots=True)
class Job:
    """One transfer. *folder* is private, and gone afterwards; *chunk* the rows of a piece.

    *mapping* says for each column of the target where its value is in the source's rows.
    """

    context: Context
    timeout: float
    folder: Path
    chunk: int
    mapping: dict[str, str] | None = None
    deadline: float = field(init=False)
    stopped: threading.Event = field(default_factory=threading.Event)
    _stops: dict[int, Callable[[], None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.timeout

    @contextmanager
    def stoppable(self, stop: Callable[[], None]) -> Iterator[None]:
        """Inside the block *stop* is called, from another thread, when the transfer must end."""
        key = id(stop)
        with self._lock:
            self._stops[key] = stop
        try:
            yield
        finally:
            with self._lock:
                del self._stops[key]

    def check(self) -> None:
        """Raise ``ToolError`` where the transfer must end: not all that it does can be interrupted."""
        if self.stopped.is_set():
            raise ToolError("the transfer was stopped", kind="cancelled")

    def stop(self) -> None:
        """Stop what both sides are doing. Does not wait."""
        self.stopped.set()
        with self._lock:
            for stop in self._stops.values():
                stop()


@dataclass(frozen=True, slots=True)
class Stream:
    """What a source gives: its columns, and its rows, which may be read once."""

    columns: Sequence[Column]
    pieces: Iterator[Piece]


class Source(Protocol):
    """Where rows come from."""

    def opened(self, job: Job) -> AbstractContextManager[Stream]:
        """Its rows. Raises ``ToolError``, also while they are read."""


class Target(Protocol):
    """Where rows go."""

    @property
    def place(self) -> dict[str, str]:
        """How the result names it."""

    def opened(
        self, job: Job, columns: Sequence[Column]
    ) -> AbstractContextManager[Callable[[bytes], None]]:
        """A function that takes pieces. What it took is kept when the block ends, and nothing of it
        where an exception ends the block. Raises ``ToolError``."""
