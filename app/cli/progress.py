"""Steps as they go: a table that redraws itself on a terminal, one line per change elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TextIO

import click

from app.cli.output import seconds

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Redraws per second; each costs a few milliseconds of a core that the steps need.
REFRESH = 8
MARKS = {
    "running": ("▶", "cyan"),
    "retrying": ("↻", "yellow"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("↷", "bright_black"),
    "cancelled": ("■", "yellow"),
    "pending": ("·", "bright_black"),
    "waiting": ("·", "bright_black"),
}
#: Not worth a line of their own where lines cannot be taken back.
QUIET = frozenset({"pending", "waiting"})


@dataclass(frozen=True, slots=True)
class Row:
    """One step. ``total``, ``ended``, ``failed`` count iterations of a loop, else they are 0.

    ``growing``: the total is not known yet. ``note`` says what it waits for, or why it was skipped.
    """

    name: str
    status: str = "running"
    visit: int = 1
    total: int = 0
    ended: int = 0
    failed: int = 0
    error: str | None = None
    seconds: float | None = None
    growing: bool = False
    note: str | None = None

    @property
    def label(self) -> str:
        return f"{self.name} #{self.visit}" if self.visit > 1 else self.name

    @property
    def counts(self) -> str:
        """``37/1000, 2 failed`` for loops, ``37 so far`` for one that does not know its end."""
        if not self.total:
            return ""
        failed = f", {self.failed} failed" if self.failed else ""
        whole = " so far" if self.growing else f"/{self.total}"
        return f"{self.ended}{whole}{failed}"


class Progress(Protocol):
    """Where rows are shown."""

    def update(self, row: Row) -> None:
        """The step of that name is now like this."""

    def output(self, name: str, text: str) -> None:
        """What a step printed."""


@contextmanager
def progress(stream: TextIO, *, quiet: bool = False) -> Iterator[Progress]:
    """Show steps on *stream* until leaving: live on a terminal, as lines elsewhere."""
    if quiet:
        yield Silence()
    elif stream.isatty():
        with _live(stream) as shown:
            yield shown
    else:
        yield Lines(stream)


class Silence:
    """Shows nothing."""

    def update(self, row: Row) -> None: ...

    def output(self, name: str, text: str) -> None: ...


class Lines:
    """A line when a step begins and ends, and one per tenth of a loop."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said: dict[str, tuple[str, int, int, str | None]] = {}

    def update(self, row: Row) -> None:
        # What a loop waits for changes with every iteration; of a skipped step the status says most.
        note = row.note if row.status == "running" and not row.total else None
        said = (row.status, row.visit, _stretch(row), note)
        if row.status in QUIET or self._said.get(row.name) == said:
            return
        self._said[row.name] = said
        told = (row.error or "", row.note or "")
        parts = (f"{row.status:<9} {row.label}", row.counts, seconds(row.seconds), *told)
        click.echo("  ".join(part for part in parts if part), file=self._stream)

    def output(self, name: str, text: str) -> None:
        for line in text.splitlines():
            click.echo(f"  {name} | {line}", file=self._stream)


def _stretch(row: Row) -> int:
    """Changes where a loop has come far enough for another line: ten times, or twice as far."""
    if row.growing:
        return row.ended.bit_length()
    return row.ended * 10 // row.total if row.total else 0


class Live:
    """A table of all steps; rich draws it again as time goes by."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, Row] = {}
        self._since: dict[str, float] = {}

    def update(self, row: Row) -> None:
        before = self._rows.get(row.name)
        if before is None or (before.visit, before.status) != (row.visit, row.status):
            self._since[row.name] = time.monotonic()
        self._rows[row.name] = row

    def output(self, name: str, text: str) -> None:
        for line in text.splitlines():
            self._console.print(f"  {name} | {line}", style="bright_black", markup=False)

    def __rich__(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        rows = list(self._rows.values())
        # What does not fit on the screen is not drawn: the newest steps matter.
        for row in rows[-max(4, self._console.height - 3) :]:
            mark, colour = MARKS.get(row.status, ("?", "white"))
            grid.add_row(
                Text(f"{mark} {row.label}", style=colour),
                Text(_bar(row)),
                Text(seconds(self._elapsed(row)), style="bright_black"),
                Text(
                    row.error or row.note or "",
                    style="red" if row.error else "bright_black",
                    overflow="ellipsis",
                    no_wrap=True,
                ),
            )
        return grid

    def _elapsed(self, row: Row) -> float | None:
        if row.seconds is not None or row.status not in {"running", "retrying"}:
            return row.seconds
        return time.monotonic() - self._since[row.name]


@contextmanager
def _live(stream: TextIO) -> Iterator[Progress]:
    from rich.console import Console
    from rich.live import Live as Screen

    console = Console(file=stream)
    shown = Live(console)
    with Screen(
        shown,
        console=console,
        refresh_per_second=REFRESH,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield shown


def _bar(row: Row, width: int = 20) -> str:
    if not row.total:
        return row.status if row.status in {"retrying", "skipped", "cancelled"} else ""
    if row.growing:
        return row.counts
    full = row.ended * width // row.total
    return f"{'█' * full}{'░' * (width - full)} {row.counts}"
