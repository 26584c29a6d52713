"""The JSON Schema of playbooks, for editors: what may stand where, tools included."""

from __future__ import annotations

from typing import Any

from app.engine.language.examine import CheckedKinds
from app.engine.language.grammar.schema import document_schema, tool_schema
from app.errors import NotFoundError


def schema_of(kinds: CheckedKinds, kind: str | None = None) -> dict[str, Any]:
    """Of a whole playbook, or of the tool *kind*. Raises ``NotFoundError`` for an unknown one."""
    if kind is None:
        return document_schema({name: kinds[name].schema() for name in kinds})
    if kind not in kinds:
        raise NotFoundError(
            f"there is no tool of the kind {kind!r}",
            remedy=f"known kinds: {', '.join(sorted(kinds))}",
        )
    return tool_schema(kind, kinds[kind].schema())
