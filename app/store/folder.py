"""A catalog that also finds what lies in files: for ``callboard run``, where nothing is registered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from app.engine.language.source import MAX_BYTES, read
from app.engine.ports import CatalogEntry
from app.errors import InvalidPlaybookError
from app.store.memory import MemoryCatalog

SUFFIXES = (".yaml", ".yml")
#: Files looked into for a catalog path; a folder with more is no folder of playbooks.
MOST = 5_000


class FolderCatalog(MemoryCatalog):
    """Resources in memory; a path that is not there is looked for in *folders*, in their order.

    ``sub/child`` is the file ``sub/child``, ``sub/child.yaml`` or ``sub/child.yml`` below a folder,
    or any YAML file below it whose ``metadata.path`` (or name) says so. What was found stays.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        super().__init__()
        self._folders = list(dict.fromkeys(folder.resolve() for folder in folders))

    def find(self, path: str, version: int | None = None) -> CatalogEntry | None:
        found = super().find(path, version)
        if found is None and version in {None, 1} and super().find(path) is None:
            file = self._file(path)
            if file is not None:
                content = file.read_text(encoding="utf-8")
                found = self.add(path, "Playbook", content, meta={"file": file.name})
        return found

    def _file(self, path: str) -> Path | None:
        for folder in self._folders:
            for name in (path, *(path + suffix for suffix in SUFFIXES)):
                file = (folder / name).resolve()
                if file.is_file() and file.is_relative_to(folder):
                    return file
        return next((file for file in self._files() if path == _path_of(file)), None)

    def _files(self) -> Iterator[Path]:
        seen = 0
        for folder in self._folders:
            for file in sorted(folder.rglob("*")):
                hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
                if file.suffix not in SUFFIXES or hidden or not file.is_file():
                    continue
                seen += 1
                if seen > MOST:
                    return
                yield file


def _path_of(file: Path) -> str | None:
    """The catalog path that a file's playbook declares; None where it is no playbook."""
    try:
        if file.stat().st_size > MAX_BYTES:
            return None
        text = file.read_text(encoding="utf-8")
        if "workflow" not in text:
            return None
        document: Any = read(text, name=file.name).data
    except (OSError, UnicodeDecodeError, yaml.YAMLError, InvalidPlaybookError):
        return None  # another file's fault is none of this run's
    if not isinstance(document, dict):
        return None
    meta = document.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    for holder, key in ((meta, "path"), (document, "path"), (meta, "name"), (document, "name")):
        if holder.get(key):
            return str(holder[key])
    return None
