"""``transfer``: rows from one place to another, streamed in constant memory.

From ``postgres`` (query or table), ``http`` (JSON, NDJSON, CSV), ``duckdb`` (query or table) and
``file`` (CSV, NDJSON, JSON, Parquet), to ``postgres``, ``duckdb`` and ``file``; any with any.

``mode`` is ``append`` (also called insert), ``replace`` or ``upsert`` (with ``keys``; of two rows
with the same key the later wins). A file is always written anew. The target takes all or nothing:
one transaction, or a file moved to its place. A transfer that failed left nothing, and one that is
repeated in mode replace or upsert gives the same; in mode append it doubles the rows only where the
worker died between the target's commit and its report.

``replace`` empties a Postgres table by TRUNCATE: who reads it waits until the transfer ends. The
connections of a transfer are its own, beside those of ``postgres`` steps. JSON over HTTP has to fit
into CALLBOARD_RESULT_BYTES; NDJSON and CSV are streamed. What goes to DuckDB or a file other than
CSV, or comes from one, is kept in the execution's folder on its way.

``checksum`` is the SHA-256 of the rows as they travelled, in their order: CSV in UTF-8 without a
header, rows ended by a newline, null as nothing, the rest as the source writes it. ``bytes`` is the
length of that.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.duck.databases import limits_of
from app.tools.pg.names import table_name
from app.tools.times import Time, seconds
from app.tools.transfers.duck import (
    DuckSource,
    DuckTarget,
    FileTarget,
    file_source,
    format_of,
)
from app.tools.transfers.job import Job, Source, Target
from app.tools.transfers.postgres import PostgresSource, PostgresStatement, PostgresTarget
from app.tools.transfers.web import WebSource
from app.tools.watch import watcher
from app.tools.web.input import Input as HttpInput

Kind = Literal["postgres", "http", "duckdb", "file"]
_ALIASES = {"postgresql": "postgres", "pg": "postgres", "https": "http", "api": "http"}


class Side(BaseModel):
    """What both sides have."""

    model_config = ConfigDict(populate_by_name=True, extra="allow")

    kind: Kind = Field(
        validation_alias=AliasChoices("type", "kind", "tool"),
        description="postgres, http, duckdb or file.",
    )
    auth: Any = Field(
        None,
        validation_alias=AliasChoices("auth", "credential"),
        description="The name of a credential, or its fields (postgres, http).",
    )
    table: str | None = Field(None, description="The table, also as `schema.table`.")
    query: str | None = Field(
        None,
        validation_alias=AliasChoices("query", "command", "sql"),
        description="The SQL: of a source, a query; of a target, a statement run for every row.",
    )
    schema_: str | None = Field(
        None,
        validation_alias=AliasChoices("schema", "db_schema"),
        description="The schema that names without one are in (postgres).",
    )
    database: str | None = Field(
        None,
        validation_alias=AliasChoices("database", "db_path"),
        description="The DuckDB file; else the execution's own.",
    )
    path: str | None = Field(
        None, description="The file; a relative one is in the execution's folder."
    )
    format: str | None = Field(
        None, description="csv, ndjson, json or parquet; else the suffix or content type says."
    )

    @field_validator("kind", mode="before")
    @classmethod
    def _usual(cls, value: Any) -> Any:
        word = value.strip().lower() if isinstance(value, str) else value
        return _ALIASES.get(word, word) if isinstance(word, str) else word


class From(Side):
    """Where the rows come from. For http, the keys of the http tool (url, method, headers, …) too."""

    params: list[Any] | dict[str, Any] | None = Field(
        None, description="Values for `%s` or `%(name)s` in the query; for http, query parameters."
    )
    url: str | None = Field(
        None,
        validation_alias=AliasChoices("url", "endpoint"),
        description="Where to ask (http).",
    )
    data_path: str | None = Field(
        None, description="Where the records are in the answer, such as `data.items` (http)."
    )


class To(Side):
    """Where the rows go."""

    mapping: dict[str, str] | None = Field(
        None,
        description="Where each column's value is: a column of the source, or a path such as `a.b[0]`.",
    )
    mode: str | None = Field(None, description="The same as mode beside it.")
    keys: list[str] | str | None = Field(
        None,
        validation_alias=AliasChoices("keys", "key", "conflict_keys"),
        description="The same as keys beside it.",
    )


class Input(BaseModel):
    """``source`` and ``target``, each with its ``type``."""

    model_config = ConfigDict(populate_by_name=True)

    source: From = Field(description="Where the rows come from.")
    target: To = Field(description="Where they go.")
    mode: str | None = Field(
        None, description="append (insert), replace or upsert; by default append."
    )
    keys: list[str] | str | None = Field(
        None,
        validation_alias=AliasChoices("keys", "key", "conflict_keys"),
        description="The columns that make a row unique, for upsert; in Postgres, the primary key.",
    )
    mapping: dict[str, str] | None = Field(None, description="The same as mapping of the target.")
    chunk_size: int = Field(
        1000, ge=1, le=1_000_000, description="Rows that travel at once, up to about 1 MiB of them."
    )
    timeout: Time | None = Field(
        None,
        validation_alias=AliasChoices("timeout", "timeout_seconds"),
        description="How long it may take: seconds, or text such as `30s`.",
    )


MODES = {"append": "append", "insert": "append", "replace": "replace", "upsert": "upsert"}


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{status, rows_transferred, records_fetched, chunks_processed, columns, bytes, checksum,
    mode, duration_ms}``, with ``target_table``, ``target_path`` or ``target_query``."""
    began = time.perf_counter()
    timeout = seconds(request.timeout, most=context.timeout)
    mode = _mode(request)
    source, target = _source(request, context), _target(request, context, mode)
    context.workspace.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="transfer-", dir=context.workspace) as folder:
        mapping = request.target.mapping or request.mapping
        job = Job(context, timeout, Path(folder), request.chunk_size, mapping)
        with watcher.watching(context, timeout, job.stop) as call:
            try:
                moved = _move(source, target, job)
            except ToolError as exc:
                raise call.error() or exc from exc
    return {
        "status": "success",
        **moved,
        **target.place,
        "mode": mode,
        "duration_ms": round((time.perf_counter() - began) * 1000),
    }


def _move(source: Source, target: Target, job: Job) -> dict[str, Any]:
    digest = hashlib.sha256()
    size = rows = chunks = 0
    # The target's block ends first: it is committed when the source has told all that it has.
    with source.opened(job) as stream, target.opened(job, stream.columns) as write:
        for piece, count in stream.pieces:
            job.check()
            write(piece)
            digest.update(piece)
            size, rows, chunks = size + len(piece), rows + count, chunks + 1
    return {
        "rows_transferred": rows,
        "records_fetched": rows,
        "chunks_processed": chunks,
        "columns": [column.name for column in stream.columns],
        "bytes": size,
        "checksum": f"sha256:{digest.hexdigest()}",
    }


def _mode(request: Input) -> str:
    is_file = request.target.kind == "file"
    given = (request.target.mode or request.mode or ("replace" if is_file else "append")).lower()
    mode = MODES.get(given)
    if mode is None:
        raise ToolError(f"mode {given!r} is none of {', '.join(MODES)}", kind="schema")
    if is_file and mode != "replace":
        raise ToolError(
            f"a file is written anew, never changed (mode {mode}); leave mode out, or say replace",
            kind="schema",
        )
    if request.target.query is not None and mode != "append":
        raise ToolError(f"mode {mode} needs target.table; a query does as it says", kind="schema")
    return mode


def _source(request: Input, context: Context) -> Source:
    side = request.source
    match side.kind:
        case "postgres":
            return PostgresSource(
                _query(side),
                side.auth,
                side.params,
                side.schema_,
                portable=_is_elsewhere(request.target, context),
            )
        case "duckdb":
            return DuckSource(_query(side), side.database)
        case "http":
            return WebSource(_http(side), side.data_path, side.format)
        case _:
            path = _path(side, context, "source")
            form = format_of(str(path), side.format)
            return file_source(path, form, limits_of(context))


def _target(request: Input, context: Context, mode: str) -> Target:
    side = request.target
    given = side.keys or request.keys or []
    keys = [given] if isinstance(given, str) else given
    match side.kind:
        case "postgres" if side.query is not None:
            return PostgresStatement(side.query, side.auth, side.schema_)
        case "postgres":
            return PostgresTarget(_table(side), side.auth, mode, keys, side.schema_)
        case "duckdb":
            return DuckTarget(_table(side), side.database, mode, keys)
        case "file":
            path = _path(side, context, "target")
            return FileTarget(path, format_of(str(path), side.format))
        case _:
            raise ToolError(
                f"rows cannot be sent to {side.kind}; target.type is postgres, duckdb or file",
                kind="schema",
            )


def _is_elsewhere(side: To, context: Context) -> bool:
    """Whether Postgres' own text for arrays means nothing at *side*. (In CSV it may go back.)"""
    if side.kind != "file":
        return side.kind != "postgres"
    path = str(_path(side, context, "target"))
    return format_of(path, side.format) != "csv"


def _query(side: From) -> str:
    if side.query:
        return side.query
    if not side.table:
        raise ToolError("source needs query or table", kind="schema")
    name = table_name(side.table, side.schema_ if side.kind == "postgres" else None)
    return f"SELECT * FROM {name.as_string(None)}"  # noqa: S608 (names are quoted)


def _table(side: To) -> str:
    if not side.table:
        raise ToolError("target needs table", kind="schema")
    return side.table


def _path(side: Side, context: Context, name: str) -> Path:
    if not side.path:
        raise ToolError(f"{name} needs path", kind="schema")
    # An absolute path stays what it is.
    return context.workspace / side.path.removeprefix("file://")


def _http(side: From) -> HttpInput:
    given = dict(side.model_extra or {}) | {"url": side.url, "auth": side.auth}
    if side.params is not None:
        given["params"] = side.params
    try:
        return HttpInput.model_validate(
            {key: value for key, value in given.items() if value is not None}
        )
    except ValidationError as exc:
        # Without the cause: it quotes what was given.
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in exc.errors())
        raise ToolError(f"source: {problems}", kind="schema") from None


tool = Tool("transfer", input=Input, run=run, queue="io")
