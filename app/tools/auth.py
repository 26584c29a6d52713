"""The ``auth:`` of a tool: given inline, or named and kept as a secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.errors import ToolError
from app.tools import Context

#: What may name a credential, and what may be said about it beside.
_NAMES = {"name", "key", "secret_name", "credential"}
_ABOUT = {"type", "service", "scope", "fields", "inject"}


def resolve(auth: Any, context: Context) -> dict[str, Any]:
    """The fields of *auth*. A secret that is not a JSON object is under ``value``.

    *auth* is the name of a secret, or a mapping: the fields themselves, ``{source: secret | env |
    credential | inline, name: …}``, or one of these under an alias. ``source`` may be missing
    beside ``credential``, and where there is nothing but the name and the ``type``.
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
    source = fields.pop("source", None) or ("credential" if _is_reference(fields) else "inline")
    if source == "inline":
        return fields
    name = next((fields.pop(key) for key in _NAMES if key in fields), None)
    if not isinstance(name, str) or not name:
        raise ToolError(f"auth from {source} needs the name of the secret", kind="auth")
    return {**fields, **_fields(context.secret(name))}


def _is_reference(fields: Mapping[str, Any]) -> bool:
    """Whether *fields* only say which credential is meant. The ``key`` of an API is one itself."""
    if fields.get("credential") or fields.get("secret_name"):
        return True
    is_api_key = str(fields.get("type", "api_key")) in {"api_key", "apikey", "header"}
    return not is_api_key and len(_NAMES & fields.keys()) == 1 and fields.keys() <= _NAMES | _ABOUT


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
