"""Where a Postgres is and how to get in, from the ``auth:`` of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.errors import ToolError
from app.tools import Context
from app.tools.auth import called, first, resolve

FIELDS = {
    "host": ("host", "db_host", "server"),
    "port": ("port", "db_port"),
    "user": ("user", "db_user", "username", "login"),
    "password": ("password", "db_password"),
    "dbname": ("database", "db_name", "dbname", "db"),
    "sslmode": ("sslmode", "db_sslmode"),
    "sslrootcert": ("sslrootcert",),
    "sslcert": ("sslcert",),
    "sslkey": ("sslkey",),
}
URLS = ("url", "dsn", "connection_string", "value", "database_url")


@dataclass(frozen=True, slots=True)
class Conninfo:
    """libpq's connection string, and the password in it; neither is shown."""

    text: str = field(repr=False)
    password: str | None = field(default=None, repr=False)


def conninfo(auth: Any, context: Context) -> Conninfo:
    """The Postgres that *auth* means. Raises ``ToolError`` (kind auth)."""
    if auth is None:
        raise ToolError("postgres needs auth: the name of a credential, or its fields", kind="auth")
    fields = resolve(auth, context)
    return conninfo_of(fields, called(auth, fields))


def conninfo_of(fields: Mapping[str, Any], what: str = "credential") -> Conninfo:
    """The Postgres that the *fields* of a credential describe. Raises ``ToolError`` (kind auth)."""
    known = {name: first(fields, *names) for name, names in FIELDS.items()}
    given = tuple((name, value) for name, value in known.items() if value is not None)
    url = first(fields, *URLS)
    if url is None and not given:
        raise ToolError(f"the {what} holds neither url nor host, user and database", kind="auth")
    return _assembled(url or "", given)


@lru_cache(maxsize=64)
def _assembled(url: str, given: tuple[tuple[str, str], ...]) -> Conninfo:
    try:
        text = make_conninfo(_plain_url(url), application_name="callboard", **dict(given))
    except psycopg.ProgrammingError:
        # Without the cause: its message quotes the string, password included.
        raise ToolError(
            "the credential's connection string is malformed; write "
            "postgresql://user:password@host:5432/database",
            kind="auth",
        ) from None
    password = conninfo_to_dict(text).get("password")
    return Conninfo(text, str(password) if password else None)


def _plain_url(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"postgresql://{rest}" if mark and scheme.split("+")[0].startswith("postgres") else url
