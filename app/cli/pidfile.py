"""Files that say which process of a home runs, and where its API is."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import psutil

from app.embedded.private import make_folder, write_private
from app.errors import ConflictError
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Running:
    """A process: its id, when it was born (an id alone may be another's by now), its API's URL."""

    pid: int
    started: float
    url: str | None = None

    @classmethod
    def of(cls, pid: int, url: str | None = None) -> Self:
        """The living process *pid*. Raises ``psutil.NoSuchProcess``."""
        return cls(pid, psutil.Process(pid).create_time(), url)

    def process(self) -> psutil.Process | None:
        """That very process; None where it is gone."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1.0
            dead = process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if same and not dead else None


@dataclass(frozen=True, slots=True)
class PidFile:
    """``HOME/run/NAME.pid``. Whoever reads it checks that the process lives."""

    path: Path

    @classmethod
    def of(cls, settings: Settings, name: str) -> Self:
        return cls(settings.home / "run" / f"{name}.pid")

    def read(self) -> Running | None:
        """The process that is written there, while it lives. A file of a dead one counts for none."""
        try:
            noted = Running(**json.loads(self.path.read_text()))
        except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
            return None  # none, or half a file after a power cut
        return noted if noted.process() else None

    def write(self, running: Running) -> None:
        make_run_folder(self.path.parent)
        write_private(self.path, json.dumps(asdict(running)))

    def claim(self, what: str, remedy: str) -> None:
        """Raise ``ConflictError`` where the process runs already; forget a dead one."""
        running = self.read()
        if running is not None and running.pid != os.getpid():
            where = f" at {running.url}" if running.url else ""
            raise ConflictError(
                f"{what} runs already (process {running.pid}{where})", remedy=remedy
            )
        self.remove()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def make_run_folder(folder: Path) -> None:
    """Make ``HOME/run`` and the home, private to us."""
    make_folder(folder.parent)
    make_folder(folder)
