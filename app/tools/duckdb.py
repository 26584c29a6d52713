"""``duckdb``: SQL on files and tables, in the worker.

Without ``database`` the tables live in one file per execution in the execution's folder **on this
worker**: they last from step to step as long as the steps run on the same worker. Keep in a Parquet
file, or a real database, what must outlive it. ``:memory:`` lasts for one step.

Extensions are neither installed nor loaded by themselves, so nothing is fetched from the network
unless the SQL says so (INSTALL, LOAD). The SQL reads and writes files as the worker's user.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import duckdb
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.databases import MEMORY, databases
from app.tools.sources import seconds, statements
from app.tools.times import Time
from app.tools.values import check_size, plain, rows
from app.tools.watch import Call, watcher

DEFAULT_MEMORY = "1GB"
DEFAULT_THREADS = 2


class Input(BaseModel):
    """One of ``command``, ``query``, ``sql`` and ``commands``; ``params`` bind ``?`` and ``$name``."""

    model_config = ConfigDict(populate_by_name=True)

    command: str | list[str] | None = Field(None, description="The SQL: one or more statements.")
    query: str | list[str] | None = Field(None, description="The same as command.")
    sql: str | None = Field(None, description="The same as command.")
    commands: str | list[str] | None = Field(None, description="The same as command.")
    command_b64: str | None = Field(None, description="The SQL in base64.")
    database: str | None = Field(
        None,
        validation_alias=AliasChoices("database", "db_path"),
        description="A database file or `:memory:`; else the execution's own.",
    )
    params: list[Any] | dict[str, Any] | None = Field(
        None, description="Values for `?` (a list) or `$name` (a mapping)."
    )
    memory_limit: str = Field(DEFAULT_MEMORY, description="Memory it may use.")
    threads: int = Field(DEFAULT_THREADS, ge=1, description="Threads it may use.")
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )


SQL_KEYS = ("command", "query", "sql", "commands", "command_b64")


def run(request: Input, context: Context) -> dict[str, Any]:
    """The last statement's ``{status, columns, rows, row_count, affected_rows}``, and the same for
    every statement under ``command_0``, ``command_1``…"""
    sql = statements(request, SQL_KEYS)
    timeout = seconds(request.timeout, most=context.timeout)
    own = request.database is None
    place = str(context.workspace / "duckdb.db") if own else str(request.database)
    if place != MEMORY:
        Path(place).absolute().parent.mkdir(parents=True, exist_ok=True)
    with databases.opened(place, context, time.monotonic() + timeout, keep=own) as connection:
        # What does not fit into memory is spilled there; by default, to the worker's folder.
        connection.execute(f"SET temp_directory={_quoted(str(context.workspace / 'spill'))}")
        connection.execute(f"SET memory_limit={_quoted(request.memory_limit)}")
        connection.execute(f"SET threads={request.threads}")
        done: list[dict[str, Any]] = []
        with watcher.watching(context, timeout, connection.interrupt) as call:
            try:
                for statement in connection.extract_statements(sql):
                    done.append(_execute(connection, statement, request.params))  # noqa: PERF401 (what is done by the time of an error belongs to it)
            except duckdb.Error as exc:
                raise _error(exc, call, done) from exc
    if not done:
        raise ToolError("the SQL holds no statement", kind="schema")
    check_size(done[-1]["rows"], context.settings.result_bytes)
    numbered = {f"command_{index}": result for index, result in enumerate(done)}
    counts = {"executed_commands": len(done), "statement_count": len(done)}
    return {**done[-1], **counts, "database_path": place, **numbered}


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _execute(connection: duckdb.DuckDBPyConnection, statement: Any, params: Any) -> dict[str, Any]:
    connection.execute(statement, params if statement.named_parameters else None)
    records = connection.fetchall() if connection.description else []
    columns = [column[0] for column in connection.description or ()]
    if duckdb.ExpectedResultType.QUERY_RESULT not in statement.expected_result_type or (
        columns in (["Count"], ["Success"]) and statement.type != duckdb.StatementType.SELECT
    ):
        count = plain(records[0][0]) if records and columns == ["Count"] else 0
        return _result([], [], affected=count)
    found = rows(columns, records)
    return _result(columns, found, affected=0)


def _result(columns: list[str], found: list[dict[str, Any]], *, affected: int) -> dict[str, Any]:
    return {
        "status": "success",
        "columns": columns,
        "rows": found,
        "row_count": len(found),
        "affected_rows": affected,
    }


def _error(exc: duckdb.Error, call: Call, done: list[dict[str, Any]]) -> ToolError:
    stopped = call.error()
    if stopped is not None:
        return stopped
    kind = next((kind for cls, kind in KINDS if isinstance(exc, cls)), "unknown")
    return ToolError(
        f"command_{len(done)}: {exc}" if done else str(exc),
        kind=kind,
        error_code=type(exc).__name__,
        data={f"command_{index}": result for index, result in enumerate(done)} or None,
    )


KINDS: tuple[tuple[type[duckdb.Error], str], ...] = (
    (duckdb.ParserException, "parse"),
    (duckdb.SyntaxException, "parse"),
    (duckdb.CatalogException, "schema"),
    (duckdb.BinderException, "schema"),
    (duckdb.ConversionException, "schema"),
    (duckdb.InvalidInputException, "schema"),
    (duckdb.OutOfMemoryException, "resource"),
    (duckdb.ConstraintException, "db_constraint"),
    (duckdb.TransactionException, "db_deadlock"),
    (duckdb.HTTPException, "connection"),
    (duckdb.PermissionException, "auth"),
    (duckdb.IOException, "not_found"),
)

tool = Tool(
    "duckdb",
    input=Input,
    run=run,
    queue="cpu",
    text=frozenset({"command", "query", "sql", "commands"}),
    needs=(SQL_KEYS,),
)
