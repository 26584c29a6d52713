"""``duckdb``: SQL on files and tables, in the worker.

Without ``database`` the tables live in one file per execution in the execution's folder **on this
worker**: they last from step to step as long as the steps run on the same worker. Keep in a Parquet
file, or a real database, what must outlive it. ``:memory:`` lasts for one step.

``auth`` makes secrets for the SQL to use, one per alias (``CREATE SECRET``), and attaches the
databases among them under their alias, unless the SQL attaches by itself. That takes extensions,
which are neither installed nor loaded by themselves, so nothing is fetched from the network unless
the SQL says so (INSTALL, LOAD).

The SQL reads and writes files as the worker's user: any that it can reach, or, where
CALLBOARD_DUCKDB_FILES is ``workspace``, those in the execution's folder alone.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import duckdb
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.duck.databases import databases, limits_of
from app.tools.duck.errors import classify
from app.tools.duck.output import Format, write
from app.tools.duck.secrets import prepare, secrets_of
from app.tools.duck.zones import are_zoned, as_text, restored
from app.tools.sources import statements
from app.tools.times import Time, seconds
from app.tools.values import Gathered, plain
from app.tools.watch import watcher

#: Rows that are fetched at once.
FETCH = 1000


class Input(BaseModel):
    """One of ``command``, ``query``, ``sql`` and ``commands``; ``params`` bind ``?`` and ``$name``."""

    model_config = ConfigDict(populate_by_name=True)

    command: str | list[str] | None = Field(None, description="The SQL: one or more statements.")
    query: str | list[str] | None = Field(None, description="The same as command.")
    sql: str | list[str] | None = Field(None, description="The same as command.")
    commands: str | list[str] | None = Field(None, description="The same as command.")
    command_b64: str | None = Field(None, description="The SQL in base64.")
    database: str | None = Field(
        None,
        validation_alias=AliasChoices("database", "db_path"),
        description="A database file or `:memory:`; else the execution's own.",
    )
    auth: str | dict[str, Any] | None = Field(
        None,
        validation_alias=AliasChoices("auth", "credentials", "credential"),
        description="A credential, or several by alias: `{pg_db: {type: postgres, credential: …}}`.",
    )
    params: list[Any] | dict[str, Any] | None = Field(
        None, description="Values for `?` (a list) or `$name` (a mapping)."
    )
    as_file: Format | Literal["rows"] = Field(
        "rows",
        validation_alias=AliasChoices("result_format", "as_file"),
        description="What the last statement's result is kept as: rows, or a file by reference.",
    )
    as_objects: bool = Field(True, description="Rows as mappings; else as lists of values.")
    max_rows: int | None = Field(
        None, ge=0, description="Rows of a statement to keep; the result says what was dropped."
    )
    memory_limit: str | None = Field(None, description="Memory it may use, such as `512MB`.")
    threads: int | None = Field(None, ge=1, description="Threads it may use.")
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )


SQL_KEYS = ("command", "query", "sql", "commands", "command_b64")


def run(request: Input, context: Context) -> dict[str, Any]:
    """The last statement's ``{status, columns, rows, row_count, affected_rows}``, and the same for
    every statement under ``command_0``, ``command_1``…

    Rows that ``max_rows`` left out show as ``truncated: true`` and ``truncation: {max_rows,
    total_rows}``. With ``result_format`` parquet, csv or json ``rows`` is empty and ``file`` the
    reference to a file with all of them. ``secrets_created`` counts what ``auth`` made.
    """
    sql = statements(request, SQL_KEYS, context)
    timeout = seconds(request.timeout, most=context.timeout)
    secrets = secrets_of(request.auth, context)
    limits = limits_of(context, request.memory_limit, request.threads)
    own = request.database is None
    place = str(context.workspace / "duckdb.db") if own else str(request.database)
    # Secrets live as long as the open database does.
    keep = own and not secrets
    deadline = time.monotonic() + timeout
    done: list[dict[str, Any]] = []
    with (
        databases.opened(place, limits, context, deadline, keep=keep) as connection,
        watcher.watching(context, timeout, connection.interrupt) as call,
    ):
        try:
            prepare(connection, secrets, sql)
            found = connection.extract_statements(sql)
            for number, statement in enumerate(found, 1):
                is_last = number == len(found)
                done.append(_execute(connection, statement, request, context, is_last=is_last))
        except (duckdb.Error, ToolError) as exc:
            raise call.error() or _failure(exc, done) from exc
    if not done:
        raise ToolError("the SQL holds no statement", kind="schema")
    numbered = {f"command_{index}": result for index, result in enumerate(done)}
    counts = {"executed_commands": len(done), "statement_count": len(done)}
    about = {"database_path": place, "secrets_created": len(secrets)}
    return {**done[-1], **counts, **about, **numbered}


def _execute(
    connection: duckdb.DuckDBPyConnection,
    statement: Any,
    request: Input,
    context: Context,
    *,
    is_last: bool,
) -> dict[str, Any]:
    params = request.params if statement.named_parameters else None
    if is_last and request.as_file != "rows":
        return _result(**write(connection, (statement, params), request.as_file, context))
    connection.execute(statement, params)
    columns = [column[0] for column in connection.description or ()]
    if duckdb.ExpectedResultType.QUERY_RESULT not in statement.expected_result_type or (
        columns in (["Count"], ["Success"]) and statement.type != duckdb.StatementType.SELECT
    ):
        records = connection.fetchall() if connection.description else []
        count = plain(records[0][0]) if records and columns == ["Count"] else 0
        return _result(affected_rows=count)
    kinds = [str(column[1]) for column in connection.description or ()]
    zoned = are_zoned(kinds) and statement.type == duckdb.StatementType.SELECT
    if zoned:
        as_text(connection, statement.query.strip().rstrip(";"), params, kinds)
    found = Gathered(
        columns, context.settings.result_bytes, request.max_rows, as_lists=not request.as_objects
    )
    while records := connection.fetchmany(FETCH):
        found.take(restored(records, kinds) if zoned else records)
    return _result(
        columns=columns, rows=found.rows, row_count=len(found.rows), **found.truncation()
    )


def _result(**fields: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"columns": [], "rows": [], "row_count": 0, "affected_rows": 0}
    return {"status": "success", **empty, **fields}


def _failure(exc: duckdb.Error | ToolError, done: list[dict[str, Any]]) -> ToolError:
    error = exc if isinstance(exc, ToolError) else classify(exc)
    return ToolError(
        f"command_{len(done)}: {error.message}" if done else error.message,
        kind=error.kind,
        retryable=error.retryable,
        error_code=error.error_code,
        data={f"command_{index}": result for index, result in enumerate(done)} or None,
    )


tool = Tool(
    "duckdb",
    input=Input,
    run=run,
    queue="cpu",
    text=frozenset({"command", "query", "sql", "commands"}),
    needs=(SQL_KEYS,),
)
