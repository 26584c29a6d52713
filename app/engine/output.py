"""What steps print: its pieces, where they are kept, and how they read as lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from app.engine.events import NO_LOOP
from app.engine.ports import Pointer

Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class Printed:
    """A piece of what the attempt at ``pointer`` printed; ``index`` counts its pieces from 0.

    ``at`` is the moment by the clock of the worker. Most pieces are
    whole lines, several of them; only a very long line comes in more than one.
    """

    pointer: Pointer
    index: int
    stream: Stream
    text: str
    at: datetime


class Kept(NamedTuple):
    """A piece with the number to go on after it: what is kept later has a greater one."""

    cursor: int
    printed: Printed


@dataclass(frozen=True, slots=True)
class Selection:
    """Whose output is asked for: that of the whole execution, where all is None."""

    step: str | None = None
    visit: int | None = None
    iteration: int | None = None
    attempt: int | None = None
    stream: str | None = None


class OutputStore(Protocol):
    """What attempts printed. Every method raises ``UnavailableError`` where the store is away."""

    def append(self, pieces: Sequence[Printed]) -> int:
        """Keep them; one that is kept already (by attempt and index) stays. How many were new.

        They may be lost in a crash of the database: they are no part of the truth.
        """

    def read(
        self, execution_id: int, which: Selection, *, after: int = 0, limit: int = 1000
    ) -> list[Kept]:
        """Pieces with a cursor above *after*, in the order in which they came.

        Whoever goes on after the last one of them misses none, however many write.
        """

    def newest(self, execution_id: int, which: Selection, *, limit: int) -> list[Kept]:
        """The last *limit* pieces, in the order in which they came."""

    def forget(self, execution_ids: Iterable[int]) -> None:
        """Forget all that these executions printed."""


def last_lines(pieces: Sequence[Kept], most: int) -> list[Kept]:
    """The end of *pieces* that has at most so many lines; the first one may lose its beginning."""
    found: list[Kept] = []
    for kept in reversed(pieces):
        if most <= 0:
            break
        lines = kept.printed.text.splitlines(keepends=True)
        text = "".join(lines[-most:])
        found.append(kept._replace(printed=replace(kept.printed, text=text)))
        most -= len(lines)
    return found[::-1]


class Lines:
    """Puts the pieces of many attempts together, so that no line is made of two attempts' words.

    With *named* each line begins with the name of its step.
    """

    def __init__(self, *, named: bool) -> None:
        self._named = named
        self._source: tuple[Pointer, str] | None = None
        self._is_open = False

    def of(self, pointer: Pointer, stream: str, text: str) -> str:
        """*text* as it follows what came before."""
        if not text:
            return ""
        source = (pointer, stream)
        goes_on = self._is_open and self._source == source
        broken = "\n" if self._is_open and not goes_on else ""
        self._source, self._is_open = source, not text.endswith("\n")
        if not self._named:
            return broken + text
        name = f"{label(pointer)} | "
        lines = text.split("\n")
        ended = lines.pop() if not lines[-1] else None
        shown = "\n".join(
            line if goes_on and not n else name + line for n, line in enumerate(lines)
        )
        return broken + shown + ("" if ended is None else "\n")


def label(pointer: Pointer) -> str:
    """What people call the attempt: ``load``, ``load[3]`` in a loop, ``load #2`` at its second visit."""
    name = pointer.step
    if pointer.iteration != NO_LOOP:
        name += f"[{pointer.iteration}]"
    if pointer.visit > 1:
        name += f" #{pointer.visit}"
    return name
