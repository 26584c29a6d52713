"""DuckDB as a side of a transfer: its tables, and through it files in CSV, JSON and Parquet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from app.errors import ToolError
from app.tools.duck.databases import (
    MEMORY,
    check_path,
    databases,
    identifier,
    limits_of,
    quoted,
)
from app.tools.duck.errors import classify
from app.tools.duck.output import FORMATS
from app.tools.pg.names import matched, table_name
from app.tools.transfers.job import Column, Job, Stream
from app.tools.transfers.records import keys_of
from app.tools.transfers.stream import PIECE, counted

#: How the rows that we wrote are read.
_DIALECT = (
    "header=false, auto_detect=false, delim=',', quote='\"', escape='\"', nullstr='', "
    "allow_quoted_nulls=false, new_line='\\n', parallel=false, max_line_size=104857600"
)
READERS = {
    "csv": "read_csv({}, allow_quoted_nulls=false)",
    "ndjson": "read_json({}, format='newline_delimited')",
    "json": "read_json({}, format='auto')",
    "parquet": "read_parquet({})",
}
_SUFFIXES = {".jsonl": "ndjson", ".pq": "parquet"}


def format_of(path: str, given: str | None) -> str:
    """The format of the file at *path*: the one *given*, or by its suffix. Raises ``ToolError``."""
    suffix = Path(path).suffix.lower()
    form = (given or _SUFFIXES.get(suffix, suffix.removeprefix("."))).lower()
    form = "ndjson" if form == "jsonl" else form
    if form not in READERS:
        raise ToolError(
            f"{path} is of no format we know; say format: one of {', '.join(READERS)}",
            kind="schema",
        )
    return form


@contextmanager
def session(job: Job, database: str | None, side: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to *database*, by default the execution's own."""
    limits = limits_of(job.context)
    place = database or str(job.context.workspace / "duckdb.db")
    own = database is None
    with databases.opened(place, limits, job.context, job.deadline, keep=own) as connection:
        stop = connection.interrupt
        with job.stoppable(stop):
            try:
                yield connection
            except duckdb.Error as exc:
                error = classify(exc)
                raise ToolError(
                    f"{side}: {error.message}",
                    kind=error.kind,
                    retryable=error.retryable,
                    error_code=error.error_code,
                ) from exc


@dataclass(frozen=True, slots=True)
class DuckSource:
    """The rows of a query, written to a file first: the database is free again while they travel."""

    query: str
    database: str | None = None

    @contextmanager
    def opened(self, job: Job) -> Iterator[Stream]:
        spool = job.folder / "source.csv"
        with session(job, self.database, "source") as connection:
            columns = _described(connection, self.query)
            values, columns = _selected(columns, job.mapping)
            connection.execute(
                f"COPY (SELECT {values} FROM ({self.query}\n) AS source) TO {quoted(str(spool))} "  # noqa: S608 (names are quoted)
                "(FORMAT csv, HEADER false, FORCE_QUOTE *)"
            )
        with spool.open("rb") as file:
            yield Stream(columns, counted(iter(lambda: file.read(PIECE), b"")))


def file_source(path: Path, form: str, job_limits: Any) -> DuckSource:
    """The rows of a file. Raises ``ToolError`` where it is none we may read."""
    check_path(path, job_limits)
    if not path.is_file():
        raise ToolError(f"source: there is no file {path}", kind="not_found")
    return DuckSource(f"SELECT * FROM {READERS[form].format(quoted(str(path)))}", MEMORY)  # noqa: S608 (names are quoted)


def _described(connection: duckdb.DuckDBPyConnection, query: str) -> list[Column]:
    connection.execute(f"DESCRIBE SELECT * FROM ({query}\n) AS source")  # noqa: S608 (names are quoted)
    return [Column(str(record[0]), str(record[1])) for record in connection.fetchall()]


def _selected(
    columns: Sequence[Column], mapping: dict[str, str] | None
) -> tuple[str, list[Column]]:
    """What to select, in the text that Postgres and we read; and the columns it makes."""
    known = {column.name: column for column in columns}
    wanted = mapping or {name: name for name in known}
    values, chosen = [], []
    for name, path in wanted.items():
        first, *rest = [path] if path in known else keys_of(path)
        (found,) = matched([first], list(known), "the source")
        value, kind = f"source.{identifier(found)}", known[found].kind
        if rest:
            steps = "".join(f"[{key}]" if key.isdigit() else f'."{key}"' for key in rest)
            value, kind = f"json_extract_string(to_json({value}), {quoted('$' + steps)})", "VARCHAR"
        elif kind == "BLOB":
            value = f"'\\x' || lower(hex({value}))"
        elif known[found].is_nested:
            value = f"to_json({value})"
        values.append(f"{value} AS {identifier(name)}")
        chosen.append(Column(name, kind))
    return ", ".join(values), chosen


def read_spool(spool: Path, columns: Sequence[Column]) -> str:
    """The SQL that reads our CSV back into the types of *columns*."""
    as_text = {"BLOB": "unhex(substr({}, 3))", "JSON": "{}::JSON"}
    types, values = [], []
    for column in columns:
        name = identifier(column.name)
        through = "{}::JSON::" + column.kind if column.is_nested else as_text.get(column.kind, "{}")
        read = "VARCHAR" if column.is_nested or column.kind in as_text else column.kind
        types.append(f"{quoted(column.name)}: {quoted(read)}")
        values.append(f"{through.format(name)} AS {name}")
    return (
        f"SELECT {', '.join(values)} FROM read_csv({quoted(str(spool))}, {_DIALECT}, "  # noqa: S608 (names are quoted)
        f"columns={{{', '.join(types)}}})"
    )


@dataclass(frozen=True, slots=True)
class DuckTarget:
    """A table, made where there is none, loaded in one transaction."""

    table: str
    database: str | None = None
    mode: str = "append"
    keys: Sequence[str] = ()

    @property
    def place(self) -> dict[str, str]:
        return {"target_table": self.table}

    @contextmanager
    def opened(self, job: Job, columns: Sequence[Column]) -> Iterator[Callable[[bytes], None]]:
        spool = job.folder / "target.csv"
        with _writing(spool) as write:
            yield write
        with session(job, self.database, "target") as connection:
            connection.execute("BEGIN")
            self._load(connection, read_spool(spool, columns), columns)
            connection.execute("COMMIT")

    def _load(
        self, connection: duckdb.DuckDBPyConnection, rows: str, columns: Sequence[Column]
    ) -> None:
        table = table_name(self.table).as_string(None)
        defined = ", ".join(f"{identifier(c.name)} {c.kind}" for c in columns)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({defined})")
        actual = [column.name for column in _described(connection, f"FROM {table}")]
        names = matched([column.name for column in columns], actual, self.table)
        listed = ", ".join(map(identifier, names))
        if self.mode == "upsert":
            connection.execute(self._merge(table, rows, names))
            return
        if self.mode == "replace":
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 (names are quoted)
        connection.execute(f"INSERT INTO {table} ({listed}) {rows}")

    def _merge(self, table: str, rows: str, names: Sequence[str]) -> str:
        if not self.keys:
            raise ToolError("mode upsert needs keys: what makes a row unique", kind="schema")
        keys = [identifier(key) for key in matched(self.keys, names, "what is loaded")]
        listed = [identifier(name) for name in names]
        same = " AND ".join(f"target.{key} = latest.{key}" for key in keys)
        others = [f"{name} = latest.{name}" for name in listed if name not in keys]
        update = f"WHEN MATCHED THEN UPDATE SET {', '.join(others)} " if others else ""
        values = ", ".join(f"latest.{name}" for name in listed)
        return (
            f"MERGE INTO {table} AS target USING (SELECT * EXCLUDE (callboard_row) FROM "  # noqa: S608 (names are quoted)
            f"(SELECT *, row_number() OVER () AS callboard_row FROM ({rows})) "
            f"QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} "
            f"ORDER BY callboard_row DESC) = 1) AS latest ON {same} {update}"
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(listed)}) VALUES ({values})"
        )


@dataclass(frozen=True, slots=True)
class FileTarget:
    """A file, written aside and moved to its place when it is whole."""

    path: Path
    form: str

    @property
    def place(self) -> dict[str, str]:
        return {"target_path": str(self.path)}

    @contextmanager
    def opened(self, job: Job, columns: Sequence[Column]) -> Iterator[Callable[[bytes], None]]:
        _check_columns(columns)
        check_path(self.path, limits_of(job.context))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        spool = job.folder / "target.csv"
        with _writing(spool) as write:
            if self.form == "csv":
                header = ",".join(identifier(column.name) for column in columns)
                write(f"{header}\n".encode())
            yield write
        if self.form != "csv":
            written = job.folder / f"written.{self.form}"
            options, _ = FORMATS[self.form]
            with session(job, MEMORY, "target") as connection:
                rows = read_spool(spool, _printable(columns, self.form))
                connection.execute(f"COPY ({rows}) TO {quoted(str(written))} ({options})")
            spool = written
        _move(spool, self.path)


def _check_columns(columns: Sequence[Column]) -> None:
    if not columns:
        raise ToolError(
            "the source has no rows and told no columns; name them with mapping", kind="schema"
        )


@contextmanager
def _writing(path: Path) -> Iterator[Callable[[bytes], None]]:
    def write(piece: bytes) -> None:
        file.write(piece)

    with path.open("wb") as file:
        yield write


def _printable(columns: Sequence[Column], form: str) -> list[Column]:
    # Bytes in JSON stay the hexadecimal text they travel as, which Postgres reads.
    return [
        Column(
            column.name, "VARCHAR" if column.kind == "BLOB" and form != "parquet" else column.kind
        )
        for column in columns
    ]


def _move(written: Path, path: Path) -> None:
    # The job's folder may be on another disk: only a rename within one is done at once.
    aside = path.with_name(f".{path.name}.part")
    try:
        try:
            os.link(written, aside)
        except OSError:
            with written.open("rb") as source, aside.open("wb") as target:
                while block := source.read(PIECE):
                    target.write(block)
        aside.replace(path)
    except OSError as exc:
        aside.unlink(missing_ok=True)
        raise ToolError(f"target: {path} cannot be written: {exc}", kind="storage_access") from exc
