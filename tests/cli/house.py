"""``callboard up`` as its users run it: a process of its own, on embedded servers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import psutil

from app.cli.programs import variables_of
from app.cli.ready import free_port
from app.settings import Settings, process_environment


def clean_environment(home: Path) -> dict[str, str]:
    """The environment without any setting of ours, but for the home."""
    known = variables_of(*(item.name for item in fields(Settings)))
    kept = {name: value for name, value in process_environment().items() if name not in known}
    return {**kept, "CALLBOARD_HOME": str(home)}


@dataclass
class Up:
    """A running ``callboard up``; ``records`` are the lines it has printed so far."""

    process: subprocess.Popen[str]
    home: Path
    port: int
    records: list[Mapping[str, Any]] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def read(self) -> None:
        """Take its lines until it ends; run in a thread."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.records.append(_record(line))
                self._news.notify_all()
        with self._news:
            self.records.append({"event": "end of output"})
            self._news.notify_all()

    def wait_for(self, event: str, *, seconds: float = 90, **facts: Any) -> Mapping[str, Any]:
        """The first record of *event* with these *facts*, once there is one."""

        def found() -> Mapping[str, Any] | None:
            return next((row for row in self.records if _fits(row, event, facts)), None)

        with self._news:
            self._news.wait_for(
                lambda: found() or self.records[-1:] == [{"event": "end of output"}], seconds
            )
            record = found()
        assert record is not None, f"no {event} {facts} in {self.records}"
        return record

    def processes(self, word: str) -> list[psutil.Process]:
        """Its processes with *word* in their command line, the guards left out."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                words = " ".join(process.cmdline())
            except psutil.NoSuchProcess:
                continue
            if word in words and "guard.py" not in words:
                found.append(process)
        return found

    def stop(self) -> int:
        """Ctrl-C, and wait; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@contextmanager
def up(home: Path, *words: str, port: int | None = None) -> Iterator[Up]:
    """Start it; what is left of it is killed on leaving."""
    port = port or free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up", "--port", str(port), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=clean_environment(home),
        start_new_session=True,
    )
    running = Up(process, home, port)
    reader = threading.Thread(target=running.read)
    reader.start()
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        reader.join(30)
        assert process.stdout is not None
        process.stdout.close()


def _record(line: str) -> Mapping[str, Any]:
    try:
        data = json.loads(line)
    except ValueError:
        data = None
    return data if isinstance(data, dict) else {"event": "text", "message": line.rstrip()}


def _fits(row: Mapping[str, Any], event: str, facts: Mapping[str, Any]) -> bool:
    return row["event"] == event and all(row.get(name) == fact for name, fact in facts.items())
