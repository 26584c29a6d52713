"""Files below a folder that steps write to themselves: no link and no ``..`` leads out of it.

What is checked is what is opened: user code may change the folder at any moment.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from app.errors import ToolError

_LINKS = getattr(os, "O_NOFOLLOW", 0)
#: A pipe in the place of a file must not hold us up.
_READ = os.O_RDONLY | _LINKS | getattr(os, "O_NONBLOCK", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _LINKS | getattr(os, "O_NONBLOCK", 0)


def read(root: Path, path: str, most: int) -> bytes:
    """The bytes of the file *path* below *root*; no more than *most*. Raises ``ToolError``."""
    with _opened(root, path, _READ, "read") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ToolError(
            f"the file {path} has more than {most} bytes; read less, or raise CALLBOARD_RESULT_BYTES",
            kind="resource",
        )
    return content


def write(root: Path, path: str, content: bytes) -> None:
    """Write the file *path* below *root*, its folders included. Raises ``ToolError``."""
    with _opened(root, path, _WRITE, "written", make=True) as file:
        file.write(content)


@contextmanager
def _opened(
    root: Path, path: str, flags: int, what: str, *, make: bool = False
) -> Iterator[BinaryIO]:
    parts = _parts(root, path)
    try:
        if make:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = _descend(root, parts[:-1], make=make)
        try:
            found = os.open(parts[-1], flags, 0o600, dir_fd=fd)
        finally:
            os.close(fd)
        with os.fdopen(found, "rb" if flags == _READ else "wb") as file:
            if not stat.S_ISREG(os.fstat(found).st_mode):
                raise ToolError(f"{path} is no file", kind="schema")
            if make:
                _hand_over(found, root)
            yield file
    except OSError as exc:
        missing = isinstance(exc, FileNotFoundError)
        raise ToolError(
            f"the file {path} cannot be {what} in the workspace: {exc.strerror}",
            kind="not_found" if missing else "storage_access",
        ) from exc


def _descend(root: Path, folders: tuple[str, ...], *, make: bool) -> int:
    """A descriptor of the folder *folders* lead to, one by one and through no link."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for name in folders:
        try:
            if make and not _exists(name, fd):
                os.mkdir(name, 0o700, dir_fd=fd)
                _hand_over(name, root, folder=fd)
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _LINKS, dir_fd=fd)
        finally:
            os.close(fd)
        fd = inner
    return fd


def _hand_over(file: int | str, root: Path, *, folder: int | None = None) -> None:
    """What we make as root belongs to whom the workspace belongs to, like all else there."""
    if os.geteuid() == 0:
        owner = root.stat()
        os.chown(file, owner.st_uid, owner.st_gid, dir_fd=folder)


def _exists(name: str, fd: int) -> bool:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _parts(root: Path, path: str) -> tuple[str, ...]:
    given = PurePosixPath(path)
    if given.is_absolute() and given.is_relative_to(root):
        given = given.relative_to(root)
    if given.is_absolute() or ".." in given.parts or not given.parts or "\0" in path:
        raise ToolError(
            f"{path} is not below the workspace of this execution; only files there can be named",
            kind="schema",
        )
    return given.parts
