"""The ``auth:`` of a tool: given inline, or named and kept as a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.engine import auth as engine
from app.engine.auth import fields_of, first
from app.tools import Context

__all__ = ["called", "fields_of", "first", "resolve"]


def resolve(auth: Any, context: Context) -> dict[str, Any]:
    """The fields of *auth*; see ``engine.auth.resolve``."""
    return engine.resolve(auth, context.secrets)


def called(auth: Any, fields: Mapping[str, Any]) -> str:
    """The credential that *auth* means, in words for messages: its name and type, no value."""
    kind = f" (type {fields['type']})" if isinstance(fields.get("type"), str) else ""
    name = _name(auth)
    return f"credential {name!r}{kind}" if name else f"credential{kind}"


def _name(auth: Any) -> str | None:
    if not isinstance(auth, Mapping):
        return str(auth)
    if len(auth) == 1 and isinstance(only := next(iter(auth.values())), Mapping):
        return _name(only)
    said = auth.get("credential") or auth.get("name")
    return said if isinstance(said, str) else None
