"""The ``auth:`` of a tool: given inline, or named and kept as a secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.errors import ToolError
from app.tools import Context


def resolve(auth: Any, context: Context) -> dict[str, Any]:
    """The fields of *auth*. A secret that is not a JSON object is under ``value``.

    *auth* is the name of a secret, or a mapping: the fields themselves, ``{source: secret | env |
    credential | inline, name: …}``, or one of these under an alias.
    """
    if isinstance(auth, str):
        return _fields(context.secret(auth))
    if not isinstance(auth, Mapping):
        raise ToolError(
            "auth is neither the name of a credential nor a mapping of its fields", kind="auth"
        )
    if len(auth) == 1 and isinstance(only := next(iter(auth.values())), Mapping):
        return resolve(only, context)
    fields = dict(auth)
    source = fields.pop("source", None)
    if source in {None, "inline"}:
        return fields
    keys = ("name", "key", "secret_name", "credential")
    name = next((fields.pop(key) for key in keys if key in fields), None)
    if not isinstance(name, str) or not name:
        raise ToolError(f"auth from {source} needs the name of the secret", kind="auth")
    return {**fields, **_fields(context.secret(name))}


def first(fields: Mapping[str, Any], *names: str) -> str | None:
    """The first of *names* that is set, as text."""
    return next((str(fields[name]) for name in names if fields.get(name) not in {None, ""}), None)


def _fields(secret: str) -> dict[str, Any]:
    text = secret.strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except ValueError:
            # Without the cause: it holds the secret.
            raise ToolError(
                "the secret is not the JSON object it looks like", kind="auth"
            ) from None
        # A credential as the catalog keeps it has its fields under data.
        return dict(found["data"]) if isinstance(found.get("data"), Mapping) else dict(found)
    return {"value": text}
