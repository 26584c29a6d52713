"""The credentials of a step as its child gets them: variables, key files, and fields by name.

What other programs look for they find: ``AWS_*`` of an AWS key, ``PG*`` of a Postgres login, and of
a Google key the file that ``GOOGLE_APPLICATION_CREDENTIALS`` names. It is in the child's private
folder, for nobody else to read, and gone with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.tools import Context
from app.tools.auth import first, resolve

#: Which fields make which variable.
_AWS = {
    "AWS_ACCESS_KEY_ID": ("aws_access_key_id", "access_key_id", "access_key"),
    "AWS_SECRET_ACCESS_KEY": ("aws_secret_access_key", "secret_access_key", "secret_key"),
    "AWS_SESSION_TOKEN": ("aws_session_token", "session_token"),
    "AWS_REGION": ("aws_region", "region", "region_name"),
    "AWS_DEFAULT_REGION": ("aws_region", "region", "region_name"),
    "AWS_ENDPOINT_URL": ("aws_endpoint_url", "endpoint_url", "endpoint"),
}
_POSTGRES = {
    "PGHOST": ("db_host", "host"),
    "PGPORT": ("db_port", "port"),
    "PGUSER": ("db_user", "user", "username"),
    "PGPASSWORD": ("db_password", "password"),
    "PGDATABASE": ("db_name", "database", "dbname"),
    "PGSSLMODE": ("sslmode",),
}
_GOOGLE_KEYS = {
    "service_account", "authorized_user", "external_account", "impersonated_service_account",
}  # fmt: skip
_GOOGLE_FIELDS = ("service_account_json", "service_account", "credentials_json", "key_json")
_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 (an address)


@dataclass(frozen=True, slots=True)
class Keys:
    """What a child is told: variables, texts of files by the variable that names them, and the
    fields themselves: of one credential, or of several by alias."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    auth: Mapping[str, Any] | None = field(default=None, repr=False)
    #: The credentials by each name the playbook knows them under.
    named: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def variables(self) -> dict[str, str]:
        """Every field as a variable of its own: ``AUTH_TOKEN``, with aliases ``AUTH_ALIAS_TOKEN``."""
        return dict(_flat("AUTH", self.auth or {}))


NO_KEYS = Keys()


def keys_of(auth: Any, context: Context) -> Keys:
    """The credentials that *auth* names. Raises ``ToolError`` (kind auth)."""
    if not auth:
        return NO_KEYS
    several = isinstance(auth, Mapping) and all(isinstance(one, Mapping) for one in auth.values())
    given = auth if several else {"": auth}
    found = {alias: resolve(one, context) for alias, one in given.items()}
    env: dict[str, str] = {}
    files: dict[str, str] = {}
    named: dict[str, Any] = {}
    for alias, fields in found.items():
        env |= _variables(fields)
        files |= _files(fields)
        named |= {name: fields for name in (alias, _name_of(given[alias])) if name}
    return Keys(env, files, found if several else found[""], named)


def _variables(fields: Mapping[str, Any]) -> dict[str, str]:
    kind = str(fields.get("type", "")).lower()
    if first(fields, *_AWS["AWS_SECRET_ACCESS_KEY"]) and not kind.startswith(("gc", "google")):
        return _chosen(fields, _AWS)
    if kind.startswith("postgres") or "db_host" in fields:
        return _chosen(fields, _POSTGRES)
    project = first(fields, "project_id", "project")
    if project and (kind in _GOOGLE_KEYS or kind.startswith(("gc", "google"))):
        return {"GOOGLE_CLOUD_PROJECT": project}
    return {}


def _chosen(fields: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    found = {variable: first(fields, *keys) for variable, keys in names.items()}
    return {variable: text for variable, text in found.items() if text is not None}


def _files(fields: Mapping[str, Any]) -> dict[str, str]:
    key = google_key(fields)
    return {"GOOGLE_APPLICATION_CREDENTIALS": key} if key else {}


def google_key(fields: Mapping[str, Any]) -> str | None:
    """The JSON key of a Google account: *fields* themselves, or what one of them holds."""
    kind = fields.get("type")
    inside = next((fields[name] for name in _GOOGLE_FIELDS if fields.get(name)), None)
    if isinstance(inside, str):
        return inside
    if isinstance(inside, Mapping):
        return json.dumps(inside)
    if fields.get("private_key") and fields.get("client_email"):
        known = {"type": kind if kind in _GOOGLE_KEYS else "service_account"}
        return json.dumps({"token_uri": _TOKEN_URI, **fields, **known})
    return json.dumps(fields) if kind in _GOOGLE_KEYS else None


def _name_of(auth: Any) -> str | None:
    if isinstance(auth, str):
        return auth
    name = first(auth, "credential", "name", "key", "secret_name")
    return name if auth.get("source", "credential") != "inline" else None


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _flat(f"{prefix}_{variable_name(str(name))}", item)
    elif isinstance(value, list):
        yield prefix, json.dumps(value)
    elif value is not None:
        yield prefix, str(value)


def variable_name(name: str) -> str:
    """*name* as environment variables are written."""
    return re.sub(r"\W", "_", name, flags=re.ASCII).upper()
