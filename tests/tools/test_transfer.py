"""The transfer tool's contract, on real Postgres, DuckDB, files and HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.tools import Context
from tests.tools.conftest import Known
from tests.tools.server import running

Run = Callable[..., Any]
CANARY = "canary-4711-secret"
COLUMNS = "id int primary key, name text, amount numeric(12, 2), at timestamptz, day date, \
raw bytea, tags text[], about jsonb, code uuid, ok boolean, ratio float8"
FILL = """
    insert into {}
    select i, case i % 4 when 0 then null when 1 then '' when 2 then E'a"b\\n,\\\\.' else '\\.' end,
    i / 7.0, timestamptz '2026-01-01 12:00:00.5+02' + i * interval '1 hour', date '2026-01-01' + i,
    decode(lpad(to_hex(i), 8, '0'), 'hex'), array['x', i::text, null], jsonb_build_object('n', i),
    lpad(i::text, 32, '0')::uuid, i % 2 = 0, case when i % 5 > 0 then i / 3.0 else 'NaN' end
    from generate_series(1, 2500) as i
"""


@pytest.fixture
def db(postgres: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with the tables ``src`` (2,500 rows) and ``dst`` (none) in the schema probe."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("drop schema if exists probe cascade; create schema probe")
        connection.execute("set search_path = probe")
        connection.execute(f"create table src ({COLUMNS}); create table dst ({COLUMNS})".encode())
        connection.execute(FILL.format("src").encode())
        connection.execute("create table keyless (like dst)")
        yield connection


@pytest.fixture
def secrets(postgres: str) -> Known:
    return Known({"db": postgres})


@pytest.fixture
def move(call: Run, secrets: Known) -> Run:
    return lambda source, target, **more: call(
        "transfer", {"source": source, "target": target, **more}, secrets=secrets
    )


@pytest.fixture
def bad(fail: Run, secrets: Known) -> Run:
    return lambda source, target, context=None, **more: fail(
        "transfer",
        {"source": source, "target": target, **more},
        **{"secrets": secrets, **(context or {})},
    )


PG = {"type": "postgres", "auth": "db"}
SRC = {**PG, "query": "select * from probe.src order by id -- all of it"}
DST = {**PG, "table": "probe.dst"}


def rows_of(db: psycopg.Connection[Any], table: str, columns: str = "*") -> list[Any]:
    return db.execute(f"select {columns} from {table} order by 1".encode()).fetchall()


def differences(db: psycopg.Connection[Any]) -> int:
    """Rows of src that dst does not have. (NaN, which is not itself in Python, is in Postgres.)"""
    (row,) = db.execute("select count(*) from (table src except table dst) as x").fetchall()
    return int(row[0])


def test_the_receipt(move: Run, db: psycopg.Connection[Any]) -> None:
    result = move(SRC, DST)
    with db.cursor().copy("copy (select * from src order by id) to stdout (format csv)") as copy:
        travelled = b"".join(map(bytes, copy))
    names = [part.split()[0] for part in COLUMNS.replace("12, 2", "12").split(",")]
    assert result.pop("duration_ms") >= 0
    assert result == {
        "status": "success",
        "rows_transferred": 2500,
        "records_fetched": 2500,
        "chunks_processed": 3,
        "columns": names,
        "bytes": len(travelled),
        "checksum": f"sha256:{hashlib.sha256(travelled).hexdigest()}",
        "target_table": "probe.dst",
        "mode": "append",
    }
    assert differences(db) == 0


def test_the_checksum_knows_the_order(move: Run, db: psycopg.Connection[Any]) -> None:
    turned = {**PG, "query": "select * from probe.src order by id desc"}
    first, second, third = (
        move(source, DST, mode="replace")["checksum"] for source in (SRC, turned, SRC)
    )
    assert first == third != second
    assert differences(db) == 0


def test_values_arrive_whatever_the_taste_of_the_source(
    move: Run, postgres: str, db: psycopg.Connection[Any]
) -> None:
    taste = "-c datestyle=SQL,DMY -c bytea_output=escape -c timezone=Asia/Tokyo"
    auth = {"url": psycopg.conninfo.make_conninfo(postgres, options=taste)}
    move({**SRC, "auth": auth}, DST)
    assert differences(db) == 0


CHUNKS = [({"chunk_size": 1}, 2500), ({"chunk_size": 2500}, 1), ({"chunk_size": 1_000_000}, 1)]


@pytest.mark.parametrize(("config", "chunks"), CHUNKS)
def test_chunks(move: Run, db: psycopg.Connection[Any], config: Any, chunks: int) -> None:
    assert move(SRC, DST, **config)["chunks_processed"] == chunks
    assert differences(db) == 0


def test_wide_rows_end_a_chunk_early(move: Run, db: psycopg.Connection[Any]) -> None:
    wide = {
        **PG,
        "query": "select i as id, repeat('x', 400000) as name from generate_series(1, 9) i",
    }
    assert move(wide, DST)["chunks_processed"] == 3
    assert len(rows_of(db, "dst")) == 9


def test_modes(move: Run, bad: Run, db: psycopg.Connection[Any]) -> None:
    db.execute("insert into dst (id, name) values (1, 'old'), (9999, 'old')")
    error = bad(SRC, DST)
    assert (error.kind, error.retryable, error.error_code) == ("db_constraint", False, "23505")
    assert error.message.startswith("target: duplicate key value")
    assert len(rows_of(db, "dst")) == 2  # nothing of it is left
    assert move(SRC, DST, mode="UPSERT", keys=["id"])["mode"] == "upsert"
    assert rows_of(db, "dst", "count(*), max(id)") == [(2501, 9999)]
    assert differences(db) == 0
    move(SRC, {**DST, "mode": "replace"})
    assert rows_of(db, "dst", "count(*), max(id)") == [(2500, 2500)]
    move(SRC, DST, mode="replace")
    assert differences(db) == 0


def test_of_two_rows_with_the_same_key_the_later_wins(
    move: Run, db: psycopg.Connection[Any]
) -> None:
    twice = {**PG, "query": "values (1, 'first'), (2, 'other'), (1, 'last')"}
    mapping = {"id": "column1", "name": "column2"}
    move(twice, {**DST, "mapping": mapping}, mode="upsert", keys="id")
    assert rows_of(db, "dst", "id, name") == [(1, "last"), (2, "other")]


@pytest.mark.parametrize("keys", [{}, {"key": "id"}, {"conflict_keys": ["id"]}])
def test_upsert_goes_by_the_keys_of_the_target_or_its_primary_key(
    move: Run, db: psycopg.Connection[Any], keys: dict[str, Any]
) -> None:
    db.execute("insert into dst (id, name) values (1, 'old')")
    move({**PG, "query": "select 1 as id, 'new' as name"}, {**DST, **keys}, mode="upsert")
    assert rows_of(db, "dst", "id, name") == [(1, "new")]


def test_upsert_by_a_primary_key_of_several_columns(move: Run, db: psycopg.Connection[Any]) -> None:
    db.execute("create table pairs (a int, name text, b int, primary key (b, a))")
    db.execute("insert into pairs values (1, 'old', 1), (1, 'kept', 2)")
    source = {**PG, "query": "select 1 as a, 'new' as name, 1 as b"}
    move(source, {**PG, "table": "probe.pairs"}, mode="upsert")
    assert rows_of(db, "pairs", "name, b") == [("kept", 2), ("new", 1)]


def test_rows_that_are_all_key_are_left_alone(move: Run, db: psycopg.Connection[Any]) -> None:
    db.execute("insert into dst (id, name) values (1, 'old')")
    move({**PG, "query": "select 1 as id union select 2"}, DST, mode="upsert", keys=["id"])
    assert rows_of(db, "dst", "id, name") == [(1, "old"), (2, None)]


def test_mapping(move: Run, db: psycopg.Connection[Any]) -> None:
    mapping = {"id": "id", "name": "about.n", "about": "tags"}
    source = {**PG, "query": "select id, about, array_to_json(tags) as tags from probe.src"}
    result = move(source, {**DST, "mapping": mapping})
    assert result["columns"] == ["id", "name", "about"]
    assert rows_of(db, "dst", "id, name, about")[1] == (2, "2", ["x", "2", None])


def test_params_of_the_query(move: Run, db: psycopg.Connection[Any]) -> None:
    query = "select id from probe.src where id < %(most)s and name is distinct from %(not)s"
    source = {**PG, "query": query, "params": {"most": 5, "not": "'; drop table probe.src; --"}}
    assert move(source, DST)["rows_transferred"] == 4


def test_names_are_quoted(move: Run, bad: Run, db: psycopg.Connection[Any]) -> None:
    db.execute('create table "Odd ""one""; x" ("a b" int, "C" int)')
    source = {**PG, "query": 'select 1 as "a b", 2 as c'}
    move(source, {**PG, "schema": "probe", "table": '"Odd ""one""; x"'})
    assert rows_of(db, '"Odd ""one""; x"') == [(1, 2)]
    error = bad(source, {**PG, "table": "probe.dst; drop table probe.src"})
    assert error.kind == "schema"
    assert len(rows_of(db, "src", "id")) == 2500


def test_a_statement_for_every_row(move: Run, db: psycopg.Connection[Any]) -> None:
    text = "insert into probe.dst (id, name) values (%(id)s::int * 10, %(name)s)"
    assert move(SRC, {**PG, "query": text})["target_query"] == text
    expected = [(number * 10, name) for number, name in rows_of(db, "src", "id, name")]
    assert rows_of(db, "dst", "id, name") == expected
    move(
        {**PG, "query": "select 7, null"},
        {**PG, "query": "insert into probe.dst (id, name) values (%s, %s)"},
    )
    assert rows_of(db, "dst", "id, name")[0] == (7, None)


def test_the_source_is_only_read(bad: Run, db: psycopg.Connection[Any]) -> None:
    db.execute(
        "create function eat() returns int language sql as 'delete from probe.src returning id'"
    )
    error = bad({**PG, "query": "select probe.eat() as id"}, DST)
    assert (error.kind, error.error_code) == ("client_error", "25006")
    assert error.message.startswith("source: ")


FILES = ["csv", "ndjson", "jsonl", "json", "parquet"]


@pytest.mark.parametrize("suffix", FILES)
def test_a_file_there_and_back(
    move: Run, db: psycopg.Connection[Any], context: Context, suffix: str
) -> None:
    db.execute("update src set ratio = 1 where ratio = 'NaN'")  # JSON has no NaN
    path = f"out/data.{suffix}"
    result = move(SRC, {"type": "file", "path": path})
    assert (result["mode"], result["rows_transferred"]) == ("replace", 2500)
    assert result["target_path"] == str(context.workspace / path)
    assert move({"type": "file", "path": path}, DST)["rows_transferred"] == 2500
    assert differences(db) == 0
    assert [each.name for each in (context.workspace / "out").iterdir()] == [f"data.{suffix}"]
    assert not list(context.workspace.glob("transfer-*"))


def test_duckdb_there_and_back(move: Run, call: Run, db: psycopg.Connection[Any]) -> None:
    duck = {"type": "duckdb", "table": "kept"}
    move(SRC, duck)
    query = "select typeof(columns(*)) from kept limit 1"
    (kinds,) = call("duckdb", {"query": query, "as_objects": False})["rows"]
    assert kinds == [
        "INTEGER", "VARCHAR", "DECIMAL(12,2)", "TIMESTAMP WITH TIME ZONE", "DATE", "BLOB", "JSON",
        "JSON", "UUID", "BOOLEAN", "DOUBLE",
    ]  # fmt: skip
    assert move({**duck, "query": "from kept order by id"}, DST)["rows_transferred"] == 2500
    assert differences(db) == 0


def test_what_only_duckdb_has(move: Run, db: psycopg.Connection[Any]) -> None:
    query = """select 1 as id, ['x', null] as tags, {'a': [1]} as about, 'ab'::blob as raw,
        uuid '00000000-0000-0000-0000-000000000001' as code, 1.5::decimal(4, 1) as amount"""
    move({"type": "duckdb", "query": query, "database": ":memory:"}, DST)
    found = rows_of(db, "dst", "tags, about, raw, amount::text")
    assert found == [(["x", None], {"a": [1]}, b"ab", "1.50")]


def test_modes_of_duckdb(move: Run, bad: Run, call: Run, db: psycopg.Connection[Any]) -> None:
    def source(text: str) -> dict[str, Any]:
        return {**PG, "query": f"select * from (values {text}) as t(id, name)"}

    def found() -> list[Any]:
        rows: list[Any] = call("duckdb", {"query": "from t order by all", "as_objects": False})[
            "rows"
        ]
        return rows

    target = {"type": "duckdb", "table": "t"}
    call("duckdb", {"command": "create table t (id int primary key, name text, rest int)"})
    move(source("(1, 'a'), (2, 'b')"), target)
    assert bad(source("(3, 'c'), (1, 'x')"), target).kind == "db_constraint"
    assert found() == [[1, "a", None], [2, "b", None]]
    move(source("(2, 'x'), (3, 'c'), (2, 'y')"), target, mode="upsert", keys=["ID"])
    assert found() == [[1, "a", None], [2, "y", None], [3, "c", None]]
    move(source("(9, null)"), target, mode="replace")
    assert found() == [[9, None, None]]
    move({"type": "duckdb", "query": "select id + 1 as id from t"}, target)
    assert found() == [[9, None, None], [10, None, None]]


RECORDS = [{"id": n, "name": f'é\n"{n}"', "deep": {"list": [n, {"k": None}]}} for n in range(1500)]


@pytest.fixture
def web() -> Iterator[str]:
    with running() as server:
        server.pages = {
            "records.json": ("application/json", json.dumps({"data": {"items": RECORDS}}).encode()),
            "one.json": ("application/json", b'{"id": 5}'),
            "lines": ("application/x-ndjson", "\n".join(map(json.dumps, RECORDS)).encode()),
            "table.csv": ("text/csv", b'\xef\xbb\xbfid,name,ratio\r\n1,"a,\n""b""",\r\n2,,2.5\r\n'),
            "odd": ("application/json", b'[{"id": 1}, {"id": 2, "more": 1}]'),
            "late": (
                "application/json",
                json.dumps([{"id": n} for n in range(10)] + [{"x": 1}]).encode(),
            ),
            "scalars": ("application/json", b"[1, 2]"),
            "broken": ("application/x-ndjson", b'{"id": 1}\n{"id": '),
            "empty": ("application/json", b"[]"),
            "wide.csv": ("text/csv", b"id\n1,2\n"),
        }
        yield server.url


def http(web: str, page: str, **more: Any) -> dict[str, Any]:
    return {"type": "http", "url": f"{web}/page/{page}", **more}


MAPPING = {"id": "id", "name": "$.deep.list[0]", "about": "deep", "raw": "deep.nothing"}


@pytest.mark.parametrize(
    ("page", "more"), [("records.json", {"data_path": "data.items"}), ("lines", {})]
)
def test_records_of_an_answer(
    move: Run, db: psycopg.Connection[Any], web: str, page: str, more: Any
) -> None:
    result = move(http(web, page, **more), {**DST, "mapping": MAPPING})
    assert (result["records_fetched"], result["chunks_processed"]) == (1500, 2)
    found = rows_of(db, "dst", "id, name, about, raw")
    assert found == [(n, str(n), {"list": [n, {"k": None}]}, None) for n in range(1500)]


def test_columns_of_an_answer(move: Run, db: psycopg.Connection[Any], web: str) -> None:
    db.execute("create table t (id int, name text, deep jsonb)")
    result = move(http(web, "lines"), {**PG, "table": "probe.t"})
    assert result["columns"] == ["id", "name", "deep"]
    assert rows_of(db, "t")[7] == tuple(RECORDS[7].values())


def test_csv_of_an_answer(move: Run, db: psycopg.Connection[Any], web: str) -> None:
    move(http(web, "table.csv"), DST)
    assert rows_of(db, "dst", "id, name, ratio") == [(1, 'a,\n"b"', None), (2, None, 2.5)]


def test_one_record(move: Run, db: psycopg.Connection[Any], web: str) -> None:
    assert move(http(web, "one.json"), DST)["rows_transferred"] == 1


def test_an_answer_in_duckdb(move: Run, call: Run, web: str) -> None:
    move(http(web, "lines"), {"type": "duckdb", "table": "t"})
    query = "select id, name, deep.list[0]::int as n from t where id = 7"
    assert call("duckdb", {"query": query})["rows"] == [
        {"id": 7, "name": RECORDS[7]["name"], "n": 7}
    ]


@pytest.mark.parametrize(("mode", "left"), [("append", 1), ("replace", 0), ("upsert", 1)])
def test_an_empty_answer(
    move: Run, db: psycopg.Connection[Any], web: str, mode: str, left: int
) -> None:
    db.execute("insert into dst (id) values (1)")
    result = move(http(web, "empty"), DST, mode=mode, keys=["id"])
    assert (result["rows_transferred"], result["chunks_processed"]) == (0, 0)
    assert len(rows_of(db, "dst")) == left


def test_a_request_with_all_that_http_has(move: Run, db: psycopg.Connection[Any], web: str) -> None:
    source = {
        "type": "http", "endpoint": f"{web}/echo", "method": "post", "headers": {"x-a": "b"},
        "params": {"q": "1"}, "json": {"k": 1}, "auth": {"type": "bearer", "token": CANARY},
    }  # fmt: skip
    mapping = {"id": "query.q[0]", "name": "headers.authorization", "about": "body"}
    move(source, {**DST, "mapping": mapping})
    assert rows_of(db, "dst", "id, name, about") == [(1, f"Bearer {CANARY}", {"k": 1})]


BAD_SOURCES = [
    ("status/503", {}, "server_error", True, "HTTP 503"),
    ("status/404", {}, "not_found", False, "HTTP 404"),
    ("cut", {}, "connection", True, ""),
    ("page/records.json", {"data_path": "data.nope"}, "schema", False, "there is data"),
    ("page/odd", {}, "schema", False, "has no column more"),
    ("page/late", {}, "schema", False, "record 10 has the field 'x'"),
    ("page/scalars", {}, "schema", False, "no mappings"),
    ("page/broken", {}, "parse", False, "line 2 of the answer"),
    ("page/wide.csv", {}, "parse", False, "line 2 has more values"),
    ("page/one.json", {"format": "xml"}, "schema", False, "'xml' cannot be read"),
    ("text", {}, "parse", False, "is not JSON"),
]


@pytest.mark.parametrize("case", BAD_SOURCES, ids=lambda case: f"{case[0]} {case[4]}")
def test_answers_that_are_no_rows(
    bad: Run, db: psycopg.Connection[Any], web: str, case: tuple[str, Any, str, bool, str]
) -> None:
    path, more, kind, retryable, words = case
    error = bad({"type": "http", "url": f"{web}/{path}", **more}, DST, chunk_size=10)
    assert (error.kind, error.retryable) == (kind, retryable)
    assert words in error.message
    assert rows_of(db, "dst") == []


def test_json_beyond_the_limit_is_refused(bad: Run, web: str, context: Context) -> None:
    settings = replace(context.settings, result_bytes=1000)
    error = bad(http(web, "records.json"), DST, {"settings": settings})
    assert (error.kind, "NDJSON" in error.message) == ("resource", True)


BAD = [
    ({"type": "postgres", "query": "select 1"}, DST, {}, "auth", "needs auth"),
    ({**PG, "auth": "nobody", "query": "select 1"}, DST, {}, "auth", "'nobody'"),
    (PG, DST, {}, "schema", "source needs query or table"),
    (SRC, PG, {}, "schema", "target needs table"),
    (SRC, {"type": "http", "url": "x"}, {}, "schema", "cannot be sent to http"),
    ({"type": "http"}, DST, {}, "schema", "url: Field required"),
    ({**PG, "query": "select 1; select 2"}, DST, {}, "schema", "2 statements"),
    ({**PG, "query": "selec 1"}, DST, {}, "parse", "source: syntax error"),
    ({**PG, "query": "select 1 as nope"}, DST, {}, "schema", "has no column nope; it has id, name"),
    ({**PG, "query": "select 'x' as id"}, DST, {}, "client_error", "COPY dst, line 1, column id"),
    (SRC, {**PG, "table": "probe.nope"}, {}, "schema", "target: relation"),
    (SRC, {**PG, "table": "probe.keyless"}, {"mode": "upsert"}, "schema", "needs keys"),
    (SRC, DST, {"mode": "upsert", "keys": "nope"}, "schema", "no column nope"),
    (SRC, DST, {"mode": "upsert", "keys": "name"}, "schema", "no unique"),
    (SRC, DST, {"mode": "merge"}, "schema", "'merge' is none of"),
    (SRC, {"type": "file", "path": "x.csv"}, {"mode": "append"}, "schema", "written anew"),
    (SRC, {"type": "file"}, {}, "schema", "needs path"),
    (SRC, {"type": "file", "path": "x.doc"}, {}, "schema", "no format we know"),
    ({"type": "file", "path": "missing.csv"}, DST, {}, "not_found", "there is no file"),
    (SRC, {**PG, "query": "insert into nope values (%s)"}, {"mode": "replace"}, "schema", "target.table"),
    ({"type": "duckdb", "query": "from nope"}, DST, {}, "schema", "source: Catalog Error"),
    ({**PG, "auth": {"url": f"postgresql://u:{CANARY}@127.0.0.1:1/d"}, "query": "select 1"}, DST, {},
     "db_connection", "source: "),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: str(case[4]))
def test_errors(
    bad: Run, db: psycopg.Connection[Any], case: tuple[Any, Any, dict[str, Any], str, str]
) -> None:
    source, target, more, kind, words = case
    error = bad(source, target, **more)
    assert (error.kind, error.retryable) == (kind, kind == "db_connection")
    assert words in error.message
    assert CANARY not in str(error) + str(error.details)
    assert rows_of(db, "dst") == []


SLOW = {**PG, "query": "select i as id from generate_series(1, 5) i, pg_sleep(60)"}


@pytest.mark.parametrize("side", ["source", "target", "http", "duckdb"])
def test_timeout_and_cancel(bad: Run, db: psycopg.Connection[Any], web: str, side: str) -> None:
    endless = "select count(*) as id from range(10000000000) a where hash(a.range) = 1"
    source = {
        "source": SLOW,
        "target": SRC,
        "http": {"type": "http", "url": f"{web}/drip"},
        "duckdb": {"type": "duckdb", "query": endless, "database": ":memory:"},
    }[side]
    with db.transaction():
        if side == "target":
            # Whoever writes to it waits for this.
            db.execute("lock table dst in share mode")
        late = bad(source, DST, timeout=0.3)
        cancelled = threading.Event()
        timer = threading.Timer(0.3, cancelled.set)
        timer.start()
        stopped = bad(source, DST, {"cancelled": cancelled})
        timer.join()
    assert (late.kind, late.retryable) == ("timeout", True)
    assert (stopped.kind, stopped.retryable) == ("cancelled", False)
    if side in {"source", "target"}:
        assert str(stopped.__cause__) == f"{side}: canceling statement due to user request"
    assert rows_of(db, "dst") == []
    running = "select count(*) from pg_stat_activity where state = 'active' and query like 'COPY%'"
    while db.execute(running).fetchall() != [(0,)]:
        pass


def test_a_target_that_refuses_a_row_ends_the_transfer_at_once(
    bad: Run, db: psycopg.Connection[Any]
) -> None:
    endless = {**PG, "query": "select generate_series(1, 1000000000) % 1000 as id"}
    error = bad(endless, DST, timeout=50)
    assert (error.kind, error.error_code) == ("db_constraint", "23505")
    assert rows_of(db, "dst") == []


def test_a_source_that_fails_midway_leaves_nothing(bad: Run, db: psycopg.Connection[Any]) -> None:
    breaks = {
        **PG,
        "query": "select i as id, 1 / (4000 - i) as ratio from generate_series(1, 5000) i",
    }
    error = bad(breaks, DST, mode="replace")
    assert (error.kind, error.error_code) == ("client_error", "22012")
    assert error.message == "source: division by zero"
    assert rows_of(db, "dst") == []


def test_memory_does_not_grow_with_the_rows(move: Run, db: psycopg.Connection[Any]) -> None:
    def peak(rows: int) -> int:
        query = f"select i as id, repeat('x', 1000) as name from generate_series(1, {rows}) i"
        tracemalloc.start()
        try:
            move({**PG, "query": query}, DST, mode="replace")
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)
    assert peak(20_000) < 8_000_000  # of 20 MB
    assert peak(20_000) < peak(4_000) + 2_000_000


def test_files_outside_the_workspace_may_be_refused(
    bad: Run, context: Context, tmp_path: Path
) -> None:
    settings = replace(context.settings, duckdb_files="workspace")
    place = tmp_path / "outside.csv"
    about = {"settings": settings}
    assert bad(SRC, {"type": "file", "path": str(place)}, about).kind == "auth"
    place.write_text("id\n1\n")
    assert bad({"type": "file", "path": str(place)}, DST, about).kind == "auth"
    assert bad({"type": "file", "path": "../outside.csv"}, DST, about).kind == "auth"
