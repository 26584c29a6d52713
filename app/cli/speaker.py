"""Where ``callboard up`` speaks to: a terminal, or whatever collects the logs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

import click

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "bright_cyan", "bright_magenta")
ALARMING = frozenset({"process.died", "server.down", "not_ready"})


class _Stream:
    """Writes whole lines; where nobody reads any more, says so once and stays silent."""

    def __init__(self, stream: TextIO | None, on_lost: Callable[[], None]) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._on_lost = on_lost
        self._lost = False

    def write(self, line: str) -> None:
        if self._lost:
            return
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except OSError:
            self._lost = True
            self._on_lost()


class TerminalSpeaker:
    """One line per line of a process, with the name of the process in its colour before it."""

    def __init__(
        self,
        on_lost: Callable[[], None],
        *,
        colour: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self._out = _Stream(stream, on_lost)
        self._colour = colour
        self._colours: dict[str, str] = {}

    def line(self, name: str, text: str) -> None:
        self._out.write(f"{self._prefix(name)} {text}")

    def say(self, event: str, text: str, **facts: object) -> None:  # noqa: ARG002 (facts are for programs)
        colour = "red" if event in ALARMING else None
        for part in text.splitlines():
            self._out.write(f"{self._prefix('up')} {self._styled(part, colour, bold=True)}")

    def _prefix(self, name: str) -> str:
        # Workers share a colour: worker.1 and worker.2 do the same.
        kind = name.partition(".")[0]
        colour = self._colours.setdefault(kind, COLOURS[len(self._colours) % len(COLOURS)])
        return self._styled(f"{name:<12} |", colour)

    def _styled(self, text: str, colour: str | None, *, bold: bool = False) -> str:
        return click.style(text, fg=colour, bold=bold or None) if self._colour else text


class JsonSpeaker:
    """The lines of the processes as they are (JSON), and what we have to say in the same form."""

    def __init__(self, on_lost: Callable[[], None], *, stream: TextIO | None = None) -> None:
        self._out = _Stream(stream, on_lost)

    def line(self, name: str, text: str) -> None:  # noqa: ARG002 (the line names its process itself)
        self._out.write(text)

    def say(self, event: str, text: str, **facts: object) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        level = "warning" if event in ALARMING else "info"
        record = {"timestamp": now, "level": level, "event": event, "message": text, **facts}
        self._out.write(json.dumps(record, default=str))
