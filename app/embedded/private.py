"""Files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_private(path: Path, text: str) -> None:
    """Replace *path* by *text*, mode 0600; after a power cut it is the old file or the new one."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def make_folder(path: Path) -> None:
    """Make *path* where it is missing, for us alone; as root others may pass through, not look in.

    As root the server runs as another user, which has to reach its own folder below.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
