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
from app.tools.databases import databases


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
        {"query": "select 1 as a", "db_path": ":memory:", "auth": {"x": {}}},
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
    assert "20000 rows" in error.message


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
    monkeypatch.setattr("app.tools.databases.KEEP", 0.05)
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
