"""Folders of the tests: for servers that nobody reads after a power cut, and for steps to write to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")
#: Bytes that must be free there; all test processes together take a small part of it.
ROOM = 4 * 2**30


def in_memory() -> Path | None:
    """A folder in memory for data directories, or None: the usual one.

    They are made, copied and removed again and again, which is slow on some disks. Nothing
    that a step of a playbook opens by its path belongs here: its jail has a ``/dev/shm`` of its own.
    """
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        return None
    free = min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available)
    return MEMORY if free >= ROOM else None


@contextmanager
def reachable(mode: int = 0o777) -> Iterator[Path]:
    """A folder that steps reach, too: as root they run as users of their own."""
    with tempfile.TemporaryDirectory(prefix="callboard-test-") as made:
        path = Path(made)
        path.chmod(mode)
        yield path
