"""The folders that steps work in, as far as they are on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)


class Workspaces:
    """A folder for each execution below *root*."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def forget(self, execution_id: int) -> None:
        """Remove the execution's folder. Trouble is logged: a step may have left what is another user's."""
        try:
            shutil.rmtree(self._root / str(execution_id))
        except FileNotFoundError:
            return
        except OSError as exc:
            log.warning("workspace.not_removed", execution_id=execution_id, error=str(exc))
