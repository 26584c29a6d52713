"""The ``auth`` of a duckdb step: secrets for its SQL, and databases attached with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
from psycopg.conninfo import conninfo_to_dict

from app.errors import ToolError
from app.tools import Context
from app.tools.auth import first, resolve
from app.tools.duck.databases import identifier, quoted
from app.tools.pg.conninfo import URLS, conninfo_of

#: Type of a credential: what DuckDB calls it, the extension it takes, and whether it is attached.
TYPES: dict[str, tuple[str, str, bool]] = {
    "postgres": ("postgres", "postgres", True),
    "postgresql": ("postgres", "postgres", True),
    "pg": ("postgres", "postgres", True),
    "mysql": ("mysql", "mysql", True),
    "gcs": ("gcs", "httpfs", False),
    "gcs_hmac": ("gcs", "httpfs", False),
    "hmac": ("gcs", "httpfs", False),
    "s3": ("s3", "httpfs", False),
    "s3_hmac": ("s3", "httpfs", False),
    "aws": ("s3", "httpfs", False),
    "r2": ("r2", "httpfs", False),
    "http": ("http", "", False),
    "bearer": ("http", "", False),
}
#: Parameter of a secret: the fields of a credential it may be in.
_DATABASE = {
    "HOST": ("host", "db_host", "server"),
    "PORT": ("port", "db_port"),
    "DATABASE": ("database", "db_name", "dbname", "db"),
    "USER": ("user", "db_user", "username", "login"),
    "PASSWORD": ("password", "db_password"),
}
_BUCKET = {
    "KEY_ID": ("key_id", "access_key_id", "aws_access_key_id", "access_key", "hmac_key_id"),
    "SECRET": ("secret", "secret_access_key", "aws_secret_access_key", "secret_key", "hmac_secret"),
    "SESSION_TOKEN": ("session_token", "aws_session_token"),
    "REGION": ("region", "aws_region"),
    "ENDPOINT": ("endpoint",),
    "ACCOUNT_ID": ("account_id",),
    "SCOPE": ("scope",),
}
_HTTP = {"BEARER_TOKEN": ("token", "bearer_token", "access_token", "value"), "SCOPE": ("scope",)}
PARAMETERS = {
    "postgres": _DATABASE, "mysql": _DATABASE, "gcs": _BUCKET, "s3": _BUCKET, "r2": _BUCKET,
    "http": _HTTP,
}  # fmt: skip
#: What a secret of each type is no use without.
NEEDED = {
    "postgres": ("HOST",), "mysql": ("HOST",), "gcs": ("KEY_ID", "SECRET"),
    "s3": ("KEY_ID", "SECRET"), "r2": ("KEY_ID", "SECRET"), "http": ("BEARER_TOKEN",),
}  # fmt: skip
_ATTACH = re.compile(r"\battach\b", re.IGNORECASE)
_INSTALL = re.compile(r"\binstall\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret under its alias. The parameters are not shown."""

    alias: str
    type: str
    extension: str
    is_attached: bool
    parameters: Mapping[str, str] = field(repr=False)

    def create(self) -> str:
        """The SQL that makes it."""
        told = "".join(f", {name} {quoted(text)}" for name, text in self.parameters.items())
        return f"CREATE OR REPLACE SECRET {identifier(self.alias)} (TYPE {self.type}{told})"

    def attach(self) -> str:
        """The SQL that attaches its database."""
        name = identifier(self.alias)
        return f"ATTACH '' AS {name} (TYPE {self.type}, SECRET {name})"


def secrets_of(auth: str | Mapping[str, Any] | None, context: Context) -> list[Secret]:
    """The secrets that *auth* means: one, or several by alias. Raises ``ToolError`` (kind auth)."""
    if not auth:
        return []
    if isinstance(auth, Mapping) and all(isinstance(value, Mapping) for value in auth.values()):
        return [_secret(str(alias), about, context) for alias, about in auth.items()]
    named = auth if isinstance(auth, str) else first(auth, "credential", "name", "key", "type")
    return [_secret(named or "auth", auth, context)]


def _secret(alias: str, auth: Any, context: Context) -> Secret:
    fields = resolve(auth, context)
    if isinstance(auth, Mapping) and auth.get("type"):
        # What the playbook wants made of it; the credential may be of a more general type.
        fields = {**fields, "type": auth["type"]}
    if isinstance(auth, Mapping) and auth.get("scope"):
        fields = {**fields, "scope": auth["scope"]}
    kind = str(fields.get("type") or ("postgres" if first(fields, "db_host") else "")).lower()
    if kind not in TYPES:
        raise ToolError(
            f"auth {alias}: no secret of type {kind or 'unknown'!r} can be made for duckdb; say "
            f"type: one of {', '.join(TYPES)}",
            kind="auth",
        )
    name, extension, is_attached = TYPES[kind]
    if name == "postgres" and (url := first(fields, *URLS)):
        fields = {**_of_url(url), **fields}
    known = {key: first(fields, *names) for key, names in PARAMETERS[name].items()}
    given = {key: value for key, value in known.items() if value is not None}
    missing = [key for key in NEEDED[name] if key not in given]
    if missing:
        wanted = ", ".join(PARAMETERS[name][key][0] for key in missing)
        raise ToolError(
            f"auth {alias}: the credential does not hold {wanted}, which {name} needs", kind="auth"
        )
    return Secret(alias, name, extension, is_attached, given)


def _of_url(url: str) -> dict[str, Any]:
    return dict(conninfo_to_dict(conninfo_of({"url": url}).text))


def prepare(connection: duckdb.DuckDBPyConnection, secrets: Sequence[Secret], sql: str) -> None:
    """Make *secrets*, and attach their databases unless *sql* does so itself.

    Raises ``ToolError`` where an extension is missing, and for what DuckDB says; its words may quote
    the statement, and so the secret, hence only their beginning is told.
    """
    for secret in secrets:
        if secret.extension:
            _load(connection, secret, may_install=bool(_INSTALL.search(sql)))
        try:
            connection.execute(secret.create())
            if secret.is_attached and not _ATTACH.search(sql):
                connection.execute(secret.attach())
        except duckdb.Error as exc:
            raise ToolError(
                f"auth {secret.alias}: duckdb refuses the secret: {_safe(exc, secret)}",
                kind="auth",
            ) from None


def _load(connection: duckdb.DuckDBPyConnection, secret: Secret, *, may_install: bool) -> None:
    try:
        connection.execute(f"LOAD {secret.extension}")
    except duckdb.Error as exc:
        try:
            if not may_install:
                raise
            connection.execute(f"INSTALL {secret.extension}")
            connection.execute(f"LOAD {secret.extension}")
        except duckdb.Error:
            raise ToolError(
                f"auth {secret.alias}: duckdb's extension {secret.extension} is not installed on "
                f"this worker; run INSTALL {secret.extension} there once (or in its image), or use "
                "the transfer tool to move rows between databases",
                kind="not_found",
                error_code="extension_missing",
            ) from exc


def _safe(exc: duckdb.Error, secret: Secret) -> str:
    text = str(exc).partition("\n")[0]
    for value in secret.parameters.values():
        text = text.replace(value, "***").replace(quoted(value), "***")
    return text
