"""Where the tests keep the data of servers that nobody reads after a power cut."""

from __future__ import annotations

import os
import shutil
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
