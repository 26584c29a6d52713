"""Memory of processes as their proportional set size: shared pages count once over all of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

#: Seconds between two looks.
INTERVAL = 0.2


def pss(pid: int) -> int:
    """Bytes of one process; 0 where it has ended. Linux only."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(
        (int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0
    )


def family(pid: int) -> Iterator[psutil.Process]:
    """A process and all below it that live."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        yield from (root, *root.children(recursive=True))


def memory(pids: Mapping[str, int]) -> dict[str, int]:
    """Bytes by name, of each process and its children together."""
    return {name: sum(pss(one.pid) for one in family(pid)) for name, pid in pids.items()}


class Watch:
    """Looks at the memory of *pids* while its block runs; ``peak`` is the most of each, in bytes."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.peak: dict[str, int] = {}
        self._pids = pids
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._done.wait(INTERVAL):
            self._look()

    def _look(self) -> None:
        for name, size in memory(self._pids).items():
            self.peak[name] = max(size, self.peak.get(name, 0))
