"""One owner per folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

import psutil

from app.errors import StartupError

#: How long the servers of an owner that died may take to stop, in seconds.
PATIENCE = 20.0


class FolderLock:
    """An exclusive lock on a folder, held until ``release`` by us and by whoever inherits ``fd``.

    The kernel lets go of it when the last holder is gone, so it is never stale.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None

    @property
    def fd(self) -> int:
        """The locked descriptor. Only while held."""
        assert self._fd is not None
        return self._fd

    @property
    def held(self) -> bool:
        return self._fd is not None

    def acquire(self, *, patience: float = PATIENCE) -> None:
        """Take the lock; raises ``StartupError`` naming the owner where another process has it.

        Waits up to *patience* seconds where the owner is dead and its servers are still stopping.
        """
        fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + patience
        while not _try_lock(fd):
            owner = int(os.pread(fd, 32, 0) or b"0")
            if (owner and psutil.pid_exists(owner)) or time.monotonic() > deadline:
                os.close(fd)
                raise StartupError(
                    f"{self._folder} is in use by process {owner}",
                    remedy="stop that process, or set CALLBOARD_HOME to another folder",
                )
            time.sleep(0.01)
        # Of one length always: a reader never sees a half.
        os.pwrite(fd, b"%-20d\n" % os.getpid(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def owner_of(folder: Path) -> int | None:
    """The process that has the lock on *folder*; None where it is free. Leaves both as they were."""
    try:
        fd = os.open(folder / "lock", os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return None if _try_lock(fd) else int(os.pread(fd, 32, 0) or b"0")
    finally:
        os.close(fd)


def _try_lock(fd: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
