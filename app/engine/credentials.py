"""Credentials as values: what they hold, and which of it must never be shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from app.engine.credential_types import secrecy_of
from app.engine.masking import MASK
from app.errors import ToolError

#: Fields of any credential that say where and who, not how to get in.
PUBLIC = frozenset(
    {
        "account", "algorithm", "audience", "auth_type", "auth_url", "aws_access_key_id",
        "access_key_id", "bucket", "client_email", "client_id", "cluster", "database", "db",
        "db_host", "db_name", "db_port", "db_schema", "db_user", "dbname", "description", "driver",
        "endpoint", "grant_type", "header", "header_name", "host", "hosts", "in", "kind", "login",
        "method", "name", "param_name", "path", "port", "project", "project_id", "provider",
        "region", "role", "schema", "scheme", "scope", "scopes", "server", "service", "sslmode",
        "subject", "tenant", "tenant_id", "token_field", "token_type", "token_uri", "token_url",
        "type", "universe_domain", "user", "username", "vault_addr", "warehouse",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Credential:
    """A named secret: *data* are its fields. Its text form tells the name and the type alone."""

    name: str
    type: str = "generic"
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def secrets(self) -> set[str]:
        """The texts in it that must be masked wherever they turn up.

        A value that one of its public fields has, too, is none: masking it would take that field's
        value out of ordinary data, and protect nothing.
        """
        public = {str(value) for name, value in self.data.items() if _is_public(name, self.type)}
        texts = set(secret_texts(self.data, type=self.type))
        # A key file kept as text is used by its fields.
        for text in [text for text in texts if text.lstrip().startswith("{")]:
            texts.update(secret_texts(_object(text), type=self.type))
        return texts - public

    def shown(self) -> dict[str, Any]:
        """Its data with every secret masked: what may be seen by whoever may see credentials."""
        shown: dict[str, Any] = _masked(self.data, "", self.type)
        return shown


def secret_texts(data: Any, name: str = "", *, type: str = "") -> Iterator[str]:  # noqa: A002 (its name everywhere)
    """Every text and number below *data* that is not under a public name of that type."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from secret_texts(value, str(key), type=type)
    elif isinstance(data, list | tuple):
        for item in data:
            yield from secret_texts(item, name, type=type)
    elif isinstance(data, bool):
        return
    elif _is_public(name, type):
        # Of an address that may be shown the login may not.
        if password := _password_in(data):
            yield from (password, unquote(password))
    elif isinstance(data, str | int | float):
        yield str(data)


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _masked(data: Any, name: str, type_: str) -> Any:
    if isinstance(data, Mapping):
        return {key: _masked(value, str(key), type_) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_masked(item, name, type_) for item in data]
    keep = data is None or isinstance(data, bool) or _is_public(name, type_)
    if keep and (password := _password_in(data)):
        return data.replace(f":{password}@", f":{MASK}@", 1)
    return data if keep else MASK


def _password_in(data: Any) -> str | None:
    """The password in *data*, where that is a URL with one, as it is written there."""
    if not isinstance(data, str) or "://" not in data:
        return None
    try:
        return urlsplit(data).password
    except ValueError:
        return None


def _is_public(name: str, type_: str = "") -> bool:
    secret = secrecy_of(type_).get(name.lower())
    if secret is not None:
        return not secret
    return name.lower().removeprefix("sf_").removeprefix("pg_") in PUBLIC


def parsed(secret: str) -> dict[str, Any]:
    """The fields in the text of a secret; one that is no JSON object is under ``value``."""
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
