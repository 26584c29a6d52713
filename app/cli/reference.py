"""What the word after ``callboard run`` means: a file, a step of the folder's playbook, a path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.errors import NotFoundError

SUFFIXES = (".yaml", ".yml")
#: The playbook of a folder, as a Makefile is: its steps are called by their names.
DEFAULT_FILES = ("callboard.yaml", "noetl.yaml", "main.yaml")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A playbook file, and the step to begin with."""

    path: Path
    target: str | None = None


@dataclass(frozen=True, slots=True)
class CatalogPath:
    """A registered playbook; ``version`` None is the newest."""

    path: str
    version: int | None = None


def resolve(text: str, folder: Path) -> LocalFile | CatalogPath:
    """What *text* refers to, seen from *folder*. Raises ``NotFoundError`` for a missing file.

    In this order: ``catalog://path@version``; an existing file; a file without its suffix, here or
    in ``automation/``; a step of the folder's default playbook; a path in the catalog.
    """
    if text.startswith("catalog://"):
        return _catalog_path(text.removeprefix("catalog://"))
    path = folder / text
    if path.is_file():
        return LocalFile(path)
    if path.suffix in SUFFIXES or text.startswith((".", "/", "~")):
        raise NotFoundError(f"there is no file {text}")
    for base in (folder, folder / "automation"):
        for suffix in SUFFIXES:
            found = base / f"{text}{suffix}"
            if found.is_file():
                return LocalFile(found)
    for name in DEFAULT_FILES:
        if (folder / name).is_file():
            return LocalFile(folder / name, target=text)
    return _catalog_path(text)


def _catalog_path(text: str) -> CatalogPath:
    path, _, version = text.partition("@")
    return CatalogPath(path, int(version) if version.isdigit() else None)
