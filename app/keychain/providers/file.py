"""``file``: the files below one folder of the worker, as orchestrators mount secrets there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import ToolError
from app.keychain.providers import Surroundings, Wanted

#: Bytes of one secret.
MOST = 1_048_576


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder that secrets are read from; links may not lead out of it."""

    folder: Path

    def read(self, wanted: Wanted) -> str | dict[str, Any]:
        path = self._path(wanted.name)
        try:
            with path.open("rb") as file:
                content = file.read(MOST + 1)
        except OSError as exc:
            raise ToolError(
                f"the file of secret {wanted.name!r} cannot be read ({type(exc).__name__})",
                kind="not_found" if isinstance(exc, FileNotFoundError) else "auth",
            ) from None
        if len(content) > MOST:
            raise ToolError(f"secret {wanted.name!r} is larger than {MOST} bytes", kind="resource")
        try:
            return content.decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise ToolError(f"secret {wanted.name!r} is not text in UTF-8", kind="auth") from None

    def _path(self, name: str) -> Path:
        root = self.folder.resolve()
        try:
            path = (root / name).resolve()
        except (OSError, ValueError):
            path = root
        # Both must hold before anything is opened: a pipe or a device would wait for ever.
        if not path.is_relative_to(root) or path == root:
            raise ToolError(
                f"{name!r} is not below the folder of secrets (CALLBOARD_SECRETS_DIR)", kind="auth"
            )
        if not path.is_file():
            raise ToolError(
                f"there is no file {name!r} in the folder of secrets (CALLBOARD_SECRETS_DIR)",
                kind="not_found",
            )
        return path


def open(  # noqa: A001 (the port's)
    access: Mapping[str, Any],  # noqa: ARG001 (nothing opens it)
    about: Mapping[str, Any],  # noqa: ARG001 (the port's)
    surroundings: Surroundings,
) -> Folder:
    """See ``Provider.open``."""
    if surroundings.folder is None:
        raise ToolError(
            "provider 'file' has no folder: set CALLBOARD_SECRETS_DIR for the worker", kind="auth"
        )
    return Folder(surroundings.folder)
