"""``auth:`` as values: what it names, and the fields behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from app.engine.credentials import Credential, parsed, secret_texts
from app.errors import ToolError

#: What may name a credential, and what may be said about it beside.
_NAMES = {"name", "key", "secret_name", "credential"}
_ABOUT = {"type", "service", "scope", "fields", "inject"}


class Lookup(Protocol):
    """What an attempt may be told. Whatever is handed out is masked in all that it reports."""

    def credential(self, name: str) -> Credential:
        """The credential of that name. Raises ``ToolError`` (kind auth)."""

    def variable(self, name: str) -> str:
        """The worker's ``NOETL_SECRET_<NAME>``. Raises ``ToolError`` (kind auth)."""

    def conceal(self, *values: str) -> None:
        """Mask *values*, too."""


def resolve(auth: Any, secrets: Lookup) -> dict[str, Any]:
    """The fields of *auth*, with the credential's type as ``type`` where it says none itself.

    *auth* is the name of a secret, or a mapping: the fields themselves, ``{source: secret | env |
    credential | inline, name: …}``, or one of these under an alias. ``source`` may be missing
    beside ``credential``, and where there is nothing but the name and the ``type``.
    """
    if isinstance(auth, str):
        return fields_of(secrets.credential(auth))
    if not isinstance(auth, Mapping):
        raise ToolError(
            "auth is neither the name of a credential nor a mapping of its fields", kind="auth"
        )
    if len(auth) == 1 and isinstance(only := next(iter(auth.values())), Mapping):
        return resolve(only, secrets)
    fields = dict(auth)
    source = fields.pop("source", None) or ("credential" if is_reference(fields) else "inline")
    if source == "inline":
        secrets.conceal(*secret_texts(fields))
        return fields
    name = next((fields.pop(key) for key in _NAMES if key in fields), None)
    if not isinstance(name, str) or not name:
        raise ToolError(f"auth from {source} needs the name of the secret", kind="auth")
    if source in {"env", "secret"}:
        return {**fields, **parsed(secrets.variable(name))}
    credential = secrets.credential(name)
    return {**fields_of(credential), **fields, **credential.data}


def is_inline(auth: Any) -> bool:
    """Whether *auth* holds the fields themselves: the playbook's words, and nobody else's."""
    if not isinstance(auth, Mapping):
        return False
    if len(auth) == 1 and isinstance(only := next(iter(auth.values())), Mapping):
        return is_inline(only)
    return (auth.get("source") or ("" if is_reference(auth) else "inline")) == "inline"


def is_reference(fields: Mapping[str, Any]) -> bool:
    """Whether *fields* only say which credential is meant. The ``key`` of an API is one itself."""
    if fields.get("credential") or fields.get("secret_name"):
        return True
    is_api_key = str(fields.get("type", "api_key")) in {"api_key", "apikey", "header"}
    return not is_api_key and len(_NAMES & fields.keys()) == 1 and fields.keys() <= _NAMES | _ABOUT


def first(fields: Mapping[str, Any], *names: str) -> str | None:
    """The first of *names* that is set, as text."""
    return next((str(fields[name]) for name in names if fields.get(name) not in (None, "")), None)


def fields_of(credential: Credential) -> dict[str, Any]:
    """What *credential* holds, its type beside."""
    about = {"type": credential.type} if credential.type else {}
    return {**about, **credential.data}
