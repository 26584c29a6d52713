"""``postgres``: SQL in a Postgres database, each statement a transaction of its own.

A failed statement does not keep the later ones from running; any failure fails the step, with a
message that lists them. ``transaction: true`` runs all in one, which the first failure undoes.

``params`` bind ``$1, $2…`` (a list), or ``%s``, ``%(name)s`` and ``:name`` (a list or mapping) on
the server's side: the way to pass data that nobody can break out of. Text put in by ``{{ }}`` is not
quoted. ``copy`` loads rows by COPY, before the SQL, if there is any; with ``transaction: true`` in
the same transaction.

SQL finds the key that all attempts of the step share as
``current_setting('callboard.idempotency_key', true)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.pg.connections import Bounds, Connection, connections
from app.tools.pg.conninfo import conninfo
from app.tools.pg.errors import classify
from app.tools.pg.load import Copy, copy_rows
from app.tools.pg.notices import Notices
from app.tools.pg.session import begin, cancel
from app.tools.pg.statement import execute
from app.tools.sources import Script, statements
from app.tools.statements import split
from app.tools.times import Time, seconds
from app.tools.values import Gathered
from app.tools.watch import Call, watcher


class Pool(BaseModel):
    """How the connections to the database are shared by the steps of a worker process."""

    name: str = Field("", description="Pools of different names are counted apart.")
    min_size: int = Field(0, ge=0, description="Connections kept open although idle for long.")
    max_size: int | None = Field(None, ge=1, description="Connections in use at once.")
    max_waiting: int | None = Field(None, ge=0, description="Steps that may wait for one.")
    timeout: Time | None = Field(None, description="How long a step may wait for one.")


class Input(BaseModel):
    """``auth``, and ``copy`` or one of ``command``, ``query``, ``sql``, ``commands`` (also ``*_b64``)."""

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
    copy_: Copy | None = Field(
        None,
        validation_alias="copy",
        description="Rows to load by COPY: `{table, rows, columns, mode, keys}`.",
    )
    params: list[Any] | dict[str, Any] | None = Field(
        None, description="Values for `$1` or `%s` (a list), `%(name)s` or `:name` (a mapping)."
    )
    transaction: bool = Field(False, description="Run all statements in one transaction.")
    pool: bool | Pool = Field(
        True, description="Whether connections are kept open and shared, and how many."
    )
    search_path: str | None = Field(
        None,
        validation_alias=AliasChoices("schema", "search_path", "db_schema"),
        description="The schema that names without one are in.",
    )
    as_objects: bool = Field(True, description="Rows as mappings; else as lists of values.")
    max_rows: int | None = Field(
        None, ge=0, description="Rows of a statement to keep; the result says what was dropped."
    )
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )


SQL_KEYS = ("command", "query", "sql", "commands", "command_b64", "query_b64")


def run(request: Input, context: Context) -> dict[str, Any]:
    """The last statement's ``{status, rows, row_count, columns, affected_rows, message}`` with
    ``statement_count``, and the same for every statement under ``command_0``, ``command_1``…

    ``copied`` tells how many rows ``copy`` loaded, ``notices`` what the server said meanwhile. Rows
    that ``max_rows`` left out show as ``truncated: true`` and ``truncation: {max_rows, total_rows}``.
    """
    parts = _parts(request, context)
    server = conninfo(request.auth, context)
    timeout = seconds(request.timeout, most=context.timeout)
    borrowed = connections.borrowed(server.text, _bounds(request, context), context, timeout)
    try:
        with borrowed as connection, Notices.of(connection, context) as notices:
            done, copied = _work(connection, request, parts, (context, timeout))
    except psycopg.Error as exc:
        raise classify(exc, secret=server.password) from exc
    numbered = {f"command_{i}": _shown(result, server.password) for i, result in enumerate(done)}
    if any(isinstance(result, Exception) for result in done):
        raise _failure(done, numbered, server.password)
    last: dict[str, Any] = numbered[f"command_{len(done) - 1}"] if done else {"status": "success"}
    extra = {"copied": copied} if request.copy_ else {}
    return {**last, **extra, **notices.told(), "statement_count": len(done), **numbered}


#: A statement's result, or its error.
Done = dict[str, Any] | psycopg.Error | ToolError


def _parts(request: Input, context: Context) -> list[str]:
    has_sql = request.script is not None or any(getattr(request, key) for key in SQL_KEYS)
    if request.copy_ is not None and not has_sql:
        return []
    parts = split(statements(request, SQL_KEYS, context))
    if not parts:
        raise ToolError("the SQL holds no statement", kind="schema")
    return parts


def _bounds(request: Input, context: Context) -> Bounds | None:
    if request.pool is False:
        return None
    pool = request.pool if isinstance(request.pool, Pool) else Pool.model_validate({})
    return Bounds(
        most=pool.max_size or context.settings.postgres_connections,
        least=pool.min_size,
        waiting=pool.max_waiting,
        patience=pool.timeout or float("inf"),
        name=pool.name,
    )


def _work(
    connection: Connection, request: Input, parts: Sequence[str], limits: tuple[Context, float]
) -> tuple[list[Done], int]:
    """What became of each statement, and the number of rows copied. Raises ``ToolError`` where we
    had to stop them: inside, so that the connection is closed; the server may still be about to
    cancel what runs on it."""
    with watcher.watching(*limits, lambda: cancel(connection)) as call:
        try:
            begin(connection, *limits, request.search_path)
            if not request.transaction:
                done, copied = _run_all(connection, request, parts, (limits[0], call))
            else:
                with connection.transaction():
                    done, copied = _run_all(connection, request, parts, (limits[0], call))
                    if done and isinstance(done[-1], Exception):
                        raise psycopg.Rollback
        except psycopg.Error as exc:
            if stopped := call.error():
                raise stopped from exc
            raise
    if stopped := call.error():
        raise stopped
    return done, copied


def _run_all(
    connection: Connection, request: Input, parts: Sequence[str], about: tuple[Context, Call]
) -> tuple[list[Done], int]:
    context, call = about
    limit = context.settings.result_bytes
    copied = copy_rows(connection, request.copy_) if request.copy_ else 0
    done: list[Done] = []
    for part in parts:
        try:
            done.append(
                execute(
                    connection,
                    part,
                    request.params,
                    lambda columns: Gathered(
                        columns, limit, request.max_rows, as_lists=not request.as_objects
                    ),
                )
            )
        except (psycopg.Error, ToolError) as exc:
            done.append(exc)
            if request.transaction or connection.broken:
                break
        if call.reason:
            break
    return done, copied


def _shown(result: Done, secret: str | None) -> dict[str, Any]:
    if isinstance(result, Exception):
        return {"status": "error", "message": _error(result, secret).message, "rows": []}
    return result


def _error(exc: psycopg.Error | ToolError, secret: str | None) -> ToolError:
    return exc if isinstance(exc, ToolError) else classify(exc, secret=secret)


def _failure(done: Sequence[Done], numbered: dict[str, Any], secret: str | None) -> ToolError:
    errors = {i: _error(exc, secret) for i, exc in enumerate(done) if isinstance(exc, Exception)}
    first = next(iter(errors.values()))
    listed = "; ".join(f"command_{i}: {error.message}" for i, error in errors.items())
    return ToolError(
        listed if len(done) > 1 else first.message,
        kind=first.kind,
        retryable=all(error.retryable for error in errors.values()),
        error_code=first.error_code,
        details=first.details,
        data=numbered,
    )


tool = Tool(
    "postgres",
    input=Input,
    run=run,
    queue="io",
    text=frozenset({"command", "query", "sql", "commands"}),
    needs=(("auth",), (*SQL_KEYS, "script", "copy")),
)
