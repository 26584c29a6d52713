"""A query's result as a file that the execution keeps by reference, instead of rows."""

from __future__ import annotations

import uuid
from typing import Any, Literal

import duckdb

from app.errors import ToolError
from app.tools import Context
from app.tools.duck.databases import quoted

Format = Literal["parquet", "csv", "json", "ndjson"]
#: Format: what COPY is told, and the content type.
FORMATS: dict[str, tuple[str, str]] = {
    "parquet": ("FORMAT parquet", "application/vnd.apache.parquet"),
    "csv": ("FORMAT csv, HEADER", "text/csv"),
    "json": ("FORMAT json, ARRAY true", "application/json"),
    "ndjson": ("FORMAT json", "application/x-ndjson"),
}


def write(
    connection: duckdb.DuckDBPyConnection, query: tuple[Any, Any], form: str, context: Context
) -> dict[str, Any]:
    """``{columns, row_count, file, format}`` of *query* (statement and params), written as *form*."""
    statement, params = query
    text = statement.query.strip().rstrip(";")
    if statement.type != duckdb.StatementType.SELECT:
        raise ToolError(
            f"result_format {form} needs a query as the last statement, and this is "
            f"{statement.type.name}",
            kind="schema",
        )
    options, content_type = FORMATS[form]
    path = context.workspace / f"{uuid.uuid4().hex}.{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # The newline ends a comment that the query may end with.
        connection.execute(f"COPY ({text}\n) TO {quoted(str(path))} ({options})", params)
        (record,) = connection.fetchall()
        file = context.artifacts.put_file(f"{context.step}.{form}", path, content_type)
        columns = _columns(connection, text, params)
    finally:
        path.unlink(missing_ok=True)
    return {"columns": columns, "row_count": record[0], "file": file, "format": form}


def _columns(connection: duckdb.DuckDBPyConnection, text: str, params: Any) -> list[str]:
    connection.execute(f"SELECT * FROM ({text}\n) LIMIT 0", params)  # noqa: S608 (as the playbook wrote it)
    return [column[0] for column in connection.description or ()]
