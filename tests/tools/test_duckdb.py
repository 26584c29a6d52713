"""The duckdb tool's contract on real database files."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from app.tools import Context
from app.tools.duck.databases import databases
from app.tools.duck.secrets import secrets_of


def test_result_has_the_documented_shape(call: Any, context: Context) -> None:
    sql = (
        "create table t as select range n from range(3); insert into t values (9); select * from t"
    )
    result = call("duckdb", {"command": sql})
    last = {
        "status": "success",
        "columns": ["n"],
        "rows": [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 9}],
        "row_count": 4,
        "affected_rows": 0,
    }
    nothing = {"status": "success", "columns": [], "rows": [], "row_count": 0}
    assert result == {
        **last,
        "executed_commands": 3,
        "statement_count": 3,
        "database_path": str(context.workspace / "duckdb.db"),
        "secrets_created": 0,
        "command_0": {**nothing, "affected_rows": 3},
        "command_1": {**nothing, "affected_rows": 1},
        "command_2": last,
    }


@pytest.mark.parametrize(
    "config",
    [
        {"query": "select 1 as a"},
        {"sql": "select 1 as a"},
        {"commands": ["select 2 as b;", "select 1 as a"]},
        {"command": ["select 1 as a"]},
        {"commands": "select ';'; select 1 as a -- ;"},
        {"query": "select ? as a", "params": [1]},
        {"query": "select $x as a", "params": {"x": 1}},
        {"query": "select 1 as a", "db_path": ":memory:", "auth": {}},
    ],
)
def test_inputs(call: Any, config: dict[str, Any]) -> None:
    assert call("duckdb", config)["rows"] == [{"a": 1}]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1.5::decimal(5, 2)", 1.5),
        ("timestamp '2020-01-02 03:04:05'", "2020-01-02T03:04:05"),
        ("date '2020-01-02'", "2020-01-02"),
        ("'nan'::float", "NaN"),
        ("'-inf'::double", "-Infinity"),
        ("'ab'::blob", "YWI="),
        ("[1, 2]", [1, 2]),
        ("{'a': {'b': date '2020-01-02'}}", {"a": {"b": "2020-01-02"}}),
        ("map {'k': 1}", {"k": 1}),
        ("'00000000-0000-0000-0000-000000000001'::uuid", "00000000-0000-0000-0000-000000000001"),
        ("170141183460469231731687303715884105727::hugeint", float(2**127)),
        ("interval 1 day", "1 day, 0:00:00"),
        ("null", None),
        ("true", True),
    ],
)
def test_values(call: Any, expression: str, expected: Any) -> None:
    query = {"query": f"select {expression} as v", "database": ":memory:"}
    assert call("duckdb", query)["rows"] == [{"v": expected}]


def test_counts_of_changes(call: Any) -> None:
    sql = (
        "create table t (a int); insert into t values (1), (2); update t set a = 3;"
        "insert into t values (4) returning a; delete from t where a = 3; select count(*) as Count from t"
    )
    result = call("duckdb", {"command": sql, "database": ":memory:"})
    found = [result[f"command_{n}"] for n in range(6)]
    assert [entry["affected_rows"] for entry in found] == [0, 2, 2, 0, 2, 0]
    assert [entry["rows"] for entry in found[3:]] == [[{"a": 4}], [], [{"Count": 1}]]


def test_tables_last_from_step_to_step_of_an_execution(call: Any, tmp_path: Path) -> None:
    call("duckdb", {"command": "create table t as select 1 as a"})
    assert call("duckdb", {"query": "select * from t"})["rows"] == [{"a": 1}]
    databases.close()
    assert call("duckdb", {"query": "select * from t"})["rows"] == [{"a": 1}]
    other = {"workspace": tmp_path / "another execution"}
    assert call("duckdb", {"query": "show tables"}, **other)["rows"] == []


def test_memory_lasts_for_one_step(call: Any, fail: Any) -> None:
    call("duckdb", {"command": "create table t (a int)", "database": ":memory:"})
    assert fail("duckdb", {"query": "from t", "database": ":memory:"}).kind == "schema"


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
def test_reads_and_writes_files(call: Any, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"data.{kind}"
    call("duckdb", {"command": f"copy (select 1 as a, 'x' as b) to '{file}'"})
    assert call("duckdb", {"query": f"select * from '{file}'"})["rows"] == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize(
    ("sql", "kind", "words"),
    [
        pytest.param("selec 1", "parse", "syntax error", id="syntax"),
        pytest.param("select * from nope", "schema", "nope", id="unknown table"),
        pytest.param("select 1; select nope", "schema", "command_1: ", id="the second"),
        pytest.param("select 'x'::int", "schema", "Could not convert", id="conversion"),
        pytest.param("from read_csv('/nope.csv')", "not_found", "/nope.csv", id="missing file"),
        pytest.param(
            "create table u (a int primary key); insert into u values (1), (1)",
            "db_constraint",
            "duplicate key",
            id="constraint",
        ),
        pytest.param(
            "select len(list(range)) from range(100000000)",
            "resource",
            "memory",
            id="too much memory",
        ),
        pytest.param("from 's3://b/x.parquet'", "unknown", "httpfs", id="no extension is fetched"),
        pytest.param("-- nothing", "schema", "no statement", id="only a comment"),
        pytest.param("", "schema", "nothing to run", id="nothing"),
    ],
)
def test_errors(fail: Any, sql: str, kind: str, words: str) -> None:
    config = {"command": sql, "database": ":memory:", "memory_limit": "64MB"}
    error = fail("duckdb", config)
    assert (error.kind, error.retryable) == (kind, False)
    assert words in error.message


def test_what_was_done_before_an_error_is_kept_with_it(fail: Any) -> None:
    error = fail("duckdb", {"command": "select 1 as a; select nope"})
    assert error.data["command_0"]["rows"] == [{"a": 1}]


ENDLESS = "select count(*) from range(10000000000) a where hash(a.range) = 1"


def test_timeout(call: Any, fail: Any) -> None:
    error = fail("duckdb", {"query": ENDLESS, "timeout": 0.3})
    assert (error.kind, error.retryable) == ("timeout", True)
    assert call("duckdb", {"query": "select 1 as a"})["rows"] == [{"a": 1}]


def test_cancel(fail: Any) -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.2, cancelled.set)
    timer.start()
    error = fail("duckdb", {"query": ENDLESS}, cancelled=cancelled)
    timer.join()
    assert (error.kind, error.retryable) == ("cancelled", False)


def test_a_large_result_is_refused_clearly(fail: Any, context: Context) -> None:
    settings = replace(context.settings, result_bytes=1000)
    error = fail("duckdb", {"query": "from range(20000)"}, settings=settings)
    assert error.kind == "resource"
    assert "the first 1000 rows" in error.message
    assert "max_rows" in error.message


def test_steps_of_one_execution_take_turns(call: Any) -> None:
    call("duckdb", {"command": "create table t as select 0 as a from range(200000)"})
    # DuckDB refuses the second of two updates at once.
    threads = [
        threading.Thread(target=call, args=("duckdb", {"command": "update t set a = a + 1"}))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert call("duckdb", {"query": "select distinct a from t"})["rows"] == [{"a": 8}]


def test_a_database_in_another_process_is_waited_for(call: Any, fail: Any, tmp_path: Path) -> None:
    place = tmp_path / "shared.db"
    holder = (
        f"import duckdb, sys; c = duckdb.connect({str(place)!r}); print('open', flush=True); "
        "sys.stdin.read(); c.close()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        busy = fail("duckdb", {"query": "select 1", "database": str(place), "timeout": 0.2})
        assert (busy.kind, busy.retryable) == ("timeout", True)
        timer = threading.Timer(0.2, process.stdin.close)
        timer.start()
        assert call("duckdb", {"query": "select 1 as a", "database": str(place)})["row_count"] == 1
        timer.join()


def test_a_named_database_is_closed_after_the_step(call: Any, tmp_path: Path) -> None:
    place = tmp_path / "deep" / "named.db"
    call("duckdb", {"command": "create table t as select 1 as a", "database": str(place)})
    look = f"import duckdb; print(duckdb.connect({str(place)!r}).execute('from t').fetchall())"
    found = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout == "[(1,)]\n"


def test_an_executions_database_is_closed_when_idle(
    call: Any, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.tools.duck.databases.KEEP", 0.05)
    call("duckdb", {"command": "create table t as select 1 as a"})
    look = f"import duckdb; duckdb.connect({str(context.workspace / 'duckdb.db')!r})"
    deadline = time.monotonic() + 20
    while subprocess.run([sys.executable, "-c", look], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline


def test_files_of_other_kinds_are_refused(fail: Any, tmp_path: Path) -> None:
    place = tmp_path / "no.db"
    place.write_text("this is not a database" * 1000)
    error = fail("duckdb", {"query": "select 1", "database": str(place)})
    assert str(place) in error.message


@pytest.mark.parametrize("name", ["autoinstall_known_extensions", "autoload_known_extensions"])
def test_nothing_is_fetched_from_the_network_by_itself(call: Any, name: str) -> None:
    query = f"select current_setting('{name}') as v"
    assert call("duckdb", {"query": query})["rows"] == [{"v": False}]


def test_settings_do_not_leak_into_the_next_step(call: Any) -> None:
    call("duckdb", {"query": "select 1", "memory_limit": "100MB", "threads": 1})
    query = "select current_setting('memory_limit') as m, current_setting('threads') as t"
    (row,) = call("duckdb", {"query": query})["rows"]
    assert row["t"] == 2
    assert math.isclose(float(row["m"].split()[0]), 953.6, rel_tol=0.01)
    assert duckdb.__version__


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("timestamptz '2020-01-02 03:04:05.5+00'", "2020-01-02T03:04:05.500000+00:00"),
        ("timetz '01:02:03+01'", "01:02:03+01:00"),
        ("'infinity'::timestamptz", "infinity"),
        ("[timestamptz '2020-01-02 03:04:05+00']", ["2020-01-02 03:04:05+00"]),
        ("null::timestamptz", None),
    ],
)
def test_times_with_a_zone(call: Any, expression: str, expected: Any) -> None:
    query = f"set timezone = 'UTC'; select 1 as a, {expression} as v, 2 as a -- the end"
    (row,) = call("duckdb", {"query": query, "database": ":memory:"})["rows"]
    assert row == {"a": 2, "v": expected}


def test_times_with_a_zone_that_cannot_be_fetched(fail: Any) -> None:
    text = "create table t (a timestamptz); insert into t values (now()) returning a"
    error = fail("duckdb", {"command": text, "database": ":memory:"})
    assert (error.kind, "cast them" in error.message) == ("schema", True)


def test_max_rows_cuts_and_says_so(call: Any) -> None:
    result = call("duckdb", {"query": "from range(2500) t(n)", "max_rows": 2, "as_objects": False})
    assert (result["rows"], result["row_count"], result["truncated"]) == ([[0], [1]], 2, True)
    assert result["truncation"] == {"reason": "max_rows", "max_rows": 2, "total_rows": 2500}


class Shelf:
    """Artifacts in a folder, as the worker keeps them elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put_file(self, name: str, path: Path, content_type: str) -> dict[str, Any]:
        (self.folder / name).write_bytes(path.read_bytes())
        return {"_ref": name, "_type": content_type}


@pytest.mark.parametrize("form", ["parquet", "csv", "json", "ndjson"])
def test_a_result_as_a_file(call: Any, context: Context, tmp_path: Path, form: str) -> None:
    text = "create table t as select 7 as a; select a, $b as b from t -- done"
    config = {"command": text, "result_format": form, "params": {"b": "x"}}
    result = call("duckdb", config, artifacts=Shelf(tmp_path))
    assert (result["rows"], result["row_count"], result["format"]) == ([], 1, form)
    assert result["columns"] == ["a", "b"]
    place = tmp_path / result["file"]["_ref"]
    reader = {"csv": "read_csv", "parquet": "read_parquet"}.get(form, "read_json")
    assert duckdb.execute(f"select * from {reader}('{place}')").fetchall() == [(7, "x")]
    assert not list(context.workspace.glob(f"*.{form}"))


def test_only_a_query_makes_a_file(fail: Any) -> None:
    config = {"command": "create table t (a int)", "result_format": "csv", "database": ":memory:"}
    assert fail("duckdb", config).kind == "schema"


CANARY = "canary-4711-secret"
PG = {"type": "postgres", "host": "db", "user": "u", "password": CANARY, "database": "d"}
KEYS = {"type": "gcs", "key_id": "k", "secret": CANARY}


@pytest.mark.parametrize(
    ("auth", "extension"),
    [
        ({"pg_db": PG}, "postgres"),
        (PG, "postgres"),
        ({"type": "postgres", "url": f"postgresql://u:{CANARY}@db/d"}, "postgres"),
        ({"pg_db": PG, "gcs_secret": {**KEYS, "scope": "gs://b"}}, "postgres"),
        (
            {"gcs_secret": {"type": "hmac", "access_key_id": "k", "secret_access_key": CANARY}},
            "httpfs",
        ),
    ],
)
def test_a_missing_extension_is_told_with_a_remedy(fail: Any, auth: Any, extension: str) -> None:
    error = fail("duckdb", {"query": "select 1", "auth": auth})
    assert (error.kind, error.error_code) == ("not_found", "extension_missing")
    assert f"INSTALL {extension}" in error.message
    assert "transfer" in error.message
    assert CANARY not in str(error) + repr(error.__cause__) + repr(error.__context__)


@pytest.mark.parametrize(
    ("auth", "words"),
    [
        ({"x": {"type": "carrier pigeon", "value": CANARY}}, "'carrier pigeon'"),
        ({"x": {"type": "s3", "key_id": "k"}}, "does not hold secret"),
        ({"x": {"type": "postgres", "password": CANARY}}, "does not hold host"),
        ("unknown", "unknown"),
    ],
)
def test_auth_that_makes_no_secret(fail: Any, auth: Any, words: str) -> None:
    error = fail("duckdb", {"query": "select 1", "auth": auth})
    assert (error.kind, words in error.message) == ("auth", True)
    assert CANARY not in str(error)


def test_secrets_are_made_and_last_for_one_step(call: Any) -> None:
    auth = {"api": {"type": "bearer", "token": CANARY, "scope": "https://api.example"}}
    look = "select name, type, scope::varchar as scope from duckdb_secrets()"
    result = call("duckdb", {"query": look, "auth": auth})
    assert result["rows"] == [{"name": "api", "type": "http", "scope": "['https://api.example']"}]
    assert result["secrets_created"] == 1
    assert call("duckdb", {"query": look})["rows"] == []


def test_the_sql_of_secrets(context: Context) -> None:
    pg, keys = secrets_of({"my db": {**PG, "password": "it's"}, "k": KEYS}, context)
    assert pg.create() == (
        "CREATE OR REPLACE SECRET \"my db\" (TYPE postgres, HOST 'db', DATABASE 'd', USER 'u', "
        "PASSWORD 'it''s')"
    )
    assert pg.attach() == 'ATTACH \'\' AS "my db" (TYPE postgres, SECRET "my db")'
    assert keys.create() == (
        f"CREATE OR REPLACE SECRET \"k\" (TYPE gcs, KEY_ID 'k', SECRET '{CANARY}')"
    )
    assert CANARY not in repr(keys)


@pytest.mark.parametrize(
    "text",
    [
        "from read_csv('{outside}')",
        "copy (select 1) to '{outside}'",
        "attach '{outside}' as x",
        "from glob('/etc/*')",
        "load httpfs",
        "set enable_external_access = true",
        "set allowed_directories = ['/']",
        "from read_csv('{link}')",
    ],
)
def test_files_may_be_limited_to_the_workspace(
    call: Any, fail: Any, context: Context, tmp_path: Path, text: str
) -> None:
    settings = replace(context.settings, duckdb_files="workspace")
    outside = tmp_path / "outside.csv"
    outside.write_text("a\n1\n")
    inside = context.workspace / "inside.csv"
    query = {"command": f"copy (select 5 as a) to '{inside}'; from '{inside}'"}
    assert call("duckdb", query, settings=settings)["rows"] == [{"a": 5}]
    link = context.workspace / "link.csv"
    link.symlink_to(outside)
    text = text.format(outside=outside, link=link)
    error = fail("duckdb", {"command": text}, settings=settings)
    assert error.kind in {"auth", "schema"}, error.message
    assert outside.read_text() == "a\n1\n"
    named = {"query": "select 1", "database": str(tmp_path / "other.db")}
    assert fail("duckdb", named, settings=settings).kind == "auth"


def test_the_settings_limit_memory_and_threads(call: Any, fail: Any, context: Context) -> None:
    settings = replace(context.settings, duckdb_memory="64MB", duckdb_threads=1)
    query = "select current_setting('memory_limit') as m, current_setting('threads') as t"
    (row,) = call("duckdb", {"query": query}, settings=settings)["rows"]
    assert row == {"m": "61.0 MiB", "t": 1}
    settings = replace(context.settings, duckdb_memory="a lot")
    assert "a lot" in fail("duckdb", {"query": query}, settings=settings).message
    settings = replace(context.settings, duckdb_files="some")
    assert "CALLBOARD_DUCKDB_FILES" in fail("duckdb", {"query": query}, settings=settings).message
