"""The ``auth:`` of a tool: given inline, or named and kept as a secret."""

from __future__ import annotations

from typing import Any

from app.engine import auth as engine
from app.engine.auth import fields_of, first
from app.tools import Context

__all__ = ["fields_of", "first", "resolve"]


def resolve(auth: Any, context: Context) -> dict[str, Any]:
    """The fields of *auth*; see ``engine.auth.resolve``."""
    return engine.resolve(auth, context.secrets)
