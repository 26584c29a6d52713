"""``postgres``: SQL in a Postgres database, each statement a transaction of its own.

A failed statement does not keep the later ones from running; any failure fails the step, with a
message that lists them. ``transaction: true`` runs all in one, which the first failure undoes.

``params`` bind ``$1, $2…`` (a list) or ``%s`` / ``%(name)s`` (a list or mapping) on the server's
side: the way to pass data that nobody can break out of. Text put in by ``{{ }}`` is not quoted.
"""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.json import Jsonb
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.auth import first, resolve
from app.tools.connections import Connection, connections
from app.tools.pg_errors import classify
from app.tools.sources import Script, seconds, statements
from app.tools.statements import split, takes_parameters
from app.tools.times import Time
from app.tools.values import check_size, rows
from app.tools.watch import Call, watcher


class Input(BaseModel):
    """``auth`` and one of ``command``, ``query``, ``sql``, ``commands`` (also as ``*_b64``)."""

    model_config = ConfigDict(populate_by_name=True)

    auth: str | dict[str, Any] | None = Field(
        None,
        validation_alias=AliasChoices("auth", "credential", "credentials"),
        description="The name of a credential, or its fields.",
    )
    command: str | list[str] | None = Field(None, description="The SQL: one or more statements.")
    query: str | list[str] | None = Field(None, description="The same as command.")
    sql: str | list[str] | None = Field(None, description="The same as command.")
    commands: str | list[str] | None = Field(None, description="The same as command.")
    command_b64: str | None = Field(
        None,
        validation_alias=AliasChoices("command_b64", "command_base64", "commands_b64"),
        description="The SQL in base64.",
    )
    query_b64: str | None = Field(
        None,
        validation_alias=AliasChoices("query_b64", "query_base64", "sql_b64", "sql_base64"),
        description="The same as command_b64.",
    )
    script: Script | None = Field(None, description="The file that holds the SQL.")
    params: list[Any] | dict[str, Any] | None = Field(
        None, description="Values for `$1` or `%s` (a list), or `%(name)s` (a mapping)."
    )
    transaction: bool = Field(False, description="Run all statements in one transaction.")
    pool: bool | dict[str, Any] = Field(True, description="Whether connections are kept open.")
    search_path: str | None = Field(
        None,
        validation_alias=AliasChoices("schema", "search_path", "db_schema"),
        description="The schema that names without one are in.",
    )
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )


SQL_KEYS = ("command", "query", "sql", "commands", "command_b64", "query_b64")


def run(request: Input, context: Context) -> dict[str, Any]:
    """The last statement's ``{status, rows, row_count, columns, affected_rows, message}`` with
    ``statement_count``, and the same for every statement under ``command_0``, ``command_1``…"""
    parts = split(statements(request, SQL_KEYS))
    if not parts:
        raise ToolError("the SQL holds no statement", kind="schema")
    conninfo, password = _conninfo(request, context)
    timeout = seconds(request.timeout, most=context.timeout)
    pooled = request.pool is not False
    try:
        with connections.borrowed(conninfo, pooled=pooled, timeout=timeout) as connection:
            done = _work(connection, request, parts, (context, timeout))
    except psycopg.Error as exc:
        raise classify(exc, secret=password) from exc
    numbered = {f"command_{i}": _shown(result, password) for i, result in enumerate(done)}
    if any(isinstance(result, psycopg.Error) for result in done):
        raise _failure(done, numbered, password)
    last: dict[str, Any] = numbered[f"command_{len(done) - 1}"]
    check_size(last["rows"], context.settings.result_bytes)
    return {**last, "statement_count": len(done), **numbered}


#: A statement's result, or its error.
Done = dict[str, Any] | psycopg.Error


def _work(
    connection: Connection, request: Input, parts: Sequence[str], limits: tuple[Context, float]
) -> list[Done]:
    """What became of each statement. Raises ``ToolError`` where we had to stop them: inside, so
    that the connection is closed; the server may still be about to cancel what runs on it."""
    with watcher.watching(*limits, lambda: _cancel(connection)) as call:
        _prepare(connection, request, limits[1])
        if not request.transaction:
            done = _run_all(connection, request, parts, call)
        else:
            with connection.transaction():
                done = _run_all(connection, request, parts, call)
                if isinstance(done[-1], psycopg.Error):
                    raise psycopg.Rollback
    if stopped := call.error():
        raise stopped
    return done


def _run_all(
    connection: Connection, request: Input, parts: Sequence[str], call: Call
) -> list[Done]:
    done: list[Done] = []
    for part in parts:
        try:
            done.append(_execute(connection, part, request.params))
        except psycopg.Error as exc:
            done.append(exc)
            if request.transaction or connection.broken:
                break
        if call.reason:
            break
    return done


def _prepare(connection: Connection, request: Input, timeout: float) -> None:
    # The watcher stops a statement that is late. The server does, a little later, where this
    # process died meanwhile. Its clock counts each statement, ours the whole step.
    limit = min(math.ceil(timeout * 1000) + 1000, 2**31 - 1)
    connection.execute(f"SET statement_timeout = {limit}".encode())
    if request.search_path:
        connection.execute("SELECT set_config('search_path', %s, false)", [request.search_path])


def _execute(connection: Connection, statement: str, params: Any) -> dict[str, Any]:
    cursor: psycopg.Cursor[Any] = connection.cursor()
    bound = None
    if params and takes_parameters(statement):
        cursor, bound = psycopg.RawCursor(connection), _bound(params)
    elif params and re.search(r"%s|%\(\w+\)s", statement):
        bound = _bound(params)
    with cursor:
        cursor.execute(statement, bound)
        columns = [column.name for column in cursor.description or ()]
        found = rows(columns, cursor.fetchall()) if cursor.description is not None else []
        message = cursor.statusmessage or ""
        count = max(cursor.rowcount, 0)
    return {
        "status": "success",
        "rows": found,
        "row_count": count,
        "columns": columns,
        "affected_rows": count if message.startswith(CHANGING) else 0,
        "message": message,
    }


CHANGING = ("INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "CREATE TABLE AS", "REFRESH")


def _bound(params: Any) -> Any:
    if isinstance(params, Mapping):
        return {key: _parameter(value) for key, value in params.items()}
    return [_parameter(value) for value in params]


def _parameter(value: Any) -> Any:
    """Mappings, and lists of more than plain values, are JSON; a plain list is an array."""
    nested = isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
    return Jsonb(value) if nested or isinstance(value, Mapping) else value


def _cancel(connection: Connection) -> None:
    """Ask the server to cancel what runs on *connection*, without waiting for it to do so."""

    def ask() -> None:
        # Where the server cannot be reached, the statement's own connection finds out, too.
        with contextlib.suppress(psycopg.Error):
            connection.cancel_safe(timeout=5)

    threading.Thread(target=ask, name="cancel", daemon=True).start()


def _shown(result: Done, secret: str | None) -> dict[str, Any]:
    if isinstance(result, psycopg.Error):
        return {"status": "error", "message": classify(result, secret=secret).message, "rows": []}
    return result


def _failure(done: Sequence[Done], numbered: dict[str, Any], secret: str | None) -> ToolError:
    failed = {i: result for i, result in enumerate(done) if isinstance(result, psycopg.Error)}
    errors = [classify(exc, secret=secret) for exc in failed.values()]
    listed = "; ".join(
        f"command_{i}: {error.message}" for i, error in zip(failed, errors, strict=True)
    )
    return ToolError(
        listed if len(done) > 1 else errors[0].message,
        kind=errors[0].kind,
        retryable=all(error.retryable for error in errors),
        error_code=errors[0].error_code,
        details=errors[0].details,
        data=numbered,
    )


def _conninfo(request: Input, context: Context) -> tuple[str, str | None]:
    """libpq's connection string, and the password in it."""
    if request.auth is None:
        raise ToolError("postgres needs auth: the name of a credential, or its fields", kind="auth")
    fields = resolve(request.auth, context)
    known = {name: first(fields, *names) for name, names in FIELDS.items()}
    given = tuple((name, value) for name, value in known.items() if value is not None)
    url = first(fields, "url", "dsn", "connection_string", "value", "database_url")
    if url is None and not given:
        raise ToolError("the credential holds neither url nor host, user and database", kind="auth")
    return _assembled(url or "", given)


@lru_cache(maxsize=64)
def _assembled(url: str, given: tuple[tuple[str, str], ...]) -> tuple[str, str | None]:
    try:
        conninfo = make_conninfo(_plain_url(url), application_name="callboard", **dict(given))
    except psycopg.ProgrammingError:
        # Without the cause: its message quotes the string, password included.
        raise ToolError(
            "the credential's connection string is malformed; write "
            "postgresql://user:password@host:5432/database",
            kind="auth",
        ) from None
    password = conninfo_to_dict(conninfo).get("password")
    return conninfo, str(password) if password else None


def _plain_url(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    return f"postgresql://{rest}" if mark and scheme.split("+")[0].startswith("postgres") else url


FIELDS = {
    "host": ("host", "db_host", "server"),
    "port": ("port", "db_port"),
    "user": ("user", "db_user", "username"),
    "password": ("password", "db_password"),
    "dbname": ("database", "db_name", "dbname", "db"),
    "sslmode": ("sslmode",),
}

tool = Tool(
    "postgres",
    input=Input,
    run=run,
    queue="io",
    text=frozenset({"command", "query", "sql", "commands"}),
    needs=(("auth",), (*SQL_KEYS, "script")),
)
