"""The first event of an execution: what it begins with, merged once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine.events import ExecutionStarted
from app.engine.names import execution_names
from app.engine.playbook import Playbook
from app.engine.ports import CatalogEntry
from app.engine.state import Execution
from app.engine.workload import merged


def opening(
    execution_id: int,
    entry: CatalogEntry,
    playbook: Playbook,
    payload: Mapping[str, Any] | None,
    *,
    now: float,
    **family: Any,
) -> ExecutionStarted:
    """The event that starts *execution_id* of *playbook*, registered as *entry*, at *now* (unix s).

    *payload* overrides top-level workload keys and may bring others; a mapping under its key
    ``ctx`` is spread over them. *family* are ``parent_execution_id``, ``depth`` and ``caller``.
    """
    given = dict(payload or {})
    spread = given.get("ctx")
    if isinstance(spread, Mapping):
        given = {**given, **spread}
    timeout = playbook.executor.timeout
    state = Execution(catalog_id=entry.catalog_id, path=entry.path, playbook_version=entry.version)
    names = execution_names(execution_id, state, {*playbook.workload, *given})
    return ExecutionStarted(
        catalog_id=entry.catalog_id,
        path=entry.path,
        version=entry.version,
        workload=merged(playbook.workload, given, names, now=now),
        deadline=None if timeout is None else now + timeout,
        **family,
    )
