"""The postgres tool's contract on a real server."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from app.tools import Context
from app.tools.pg.connections import connections
from tests.tools.conftest import Known

Run = Callable[..., Any]


@pytest.fixture
def url(postgres: str) -> str:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS probe CASCADE; CREATE SCHEMA probe")
    return postgres


@pytest.fixture
def sql(call: Run, url: str) -> Run:
    """``sql(text, **config)`` on the test's own schema."""
    return lambda text, **more: call(
        "postgres",
        {"auth": "db", "command": text, "schema": "probe", **more},
        secrets=Known({"db": url}),
    )


@pytest.fixture
def bad(fail: Run, url: str) -> Run:
    return lambda text, context=None, **more: fail(
        "postgres",
        {"auth": "db", "command": text, "schema": "probe", **more},
        secrets=Known({"db": url}),
        **(context or {}),
    )


def test_result_has_the_documented_shape(sql: Run) -> None:
    result = sql(
        "create table t (a int); insert into t values (1), (2); select a from t order by a"
    )
    last = {
        "status": "success",
        "rows": [{"a": 1}, {"a": 2}],
        "row_count": 2,
        "columns": ["a"],
        "affected_rows": 0,
        "message": "SELECT 2",
    }
    nothing = {"status": "success", "rows": [], "columns": []}
    assert result == {
        **last,
        "statement_count": 3,
        "command_0": {**nothing, "row_count": 0, "affected_rows": 0, "message": "CREATE TABLE"},
        "command_1": {**nothing, "row_count": 2, "affected_rows": 2, "message": "INSERT 0 2"},
        "command_2": last,
    }


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("1.50::numeric", 1.5),
        ("'NaN'::float8", "NaN"),
        ("'2020-01-02 03:04:05+00'::timestamptz at time zone 'utc'", "2020-01-02T03:04:05"),
        ("'2020-01-02'::date", "2020-01-02"),
        ("'00000000-0000-0000-0000-000000000001'::uuid", "00000000-0000-0000-0000-000000000001"),
        ("'\\x6162'::bytea", "YWI="),
        ("'{\"a\": [1, null]}'::jsonb", {"a": [1, None]}),
        ("array[1, 2]", [1, 2]),
        ("'1 day'::interval", "1 day, 0:00:00"),
        ("'infinity'::timestamptz", "infinity"),
        ("'-infinity'::date", "-infinity"),
        ("date '0044-03-15 BC'", "0044-03-15 BC"),
        ("'24:00'::time", "24:00:00"),
        ("int4range(1, 5)", "[1, 5)"),
        ("'{[1,3), [5,7)}'::int4multirange", "{[1, 3), [5, 7)}"),
        ("array[array[1.5], array[null::numeric]]", [[1.5], [None]]),
        ("row(1, 'a')", ["1", "a"]),
        ("'10.0.0.1'::inet", "10.0.0.1"),
        ("2::numeric ^ 70", float(2**70)),
        ("null", None),
    ],
)
def test_values(sql: Run, expression: str, expected: Any) -> None:
    assert sql(f"select {expression} as v")["rows"] == [{"v": expected}]


@pytest.mark.parametrize("key", ["command", "query", "sql", "commands", "command_b64", "query_b64"])
def test_keys(call: Run, url: str, key: str) -> None:
    text = "select 1 as a"
    given = base64.b64encode(text.encode()).decode() if key.endswith("b64") else text
    assert call("postgres", {"auth": {"url": url}, key: given})["rows"] == [{"a": 1}]


def test_a_list_of_commands(sql: Run) -> None:
    result = sql(["select 1 as a;", "select 2 as a"])
    assert [result["command_0"]["rows"], result["rows"]] == [[{"a": 1}], [{"a": 2}]]


def test_an_inline_script(call: Run, url: str) -> None:
    script = {"source": {"type": "inline", "code": "select 1 as a"}}
    assert call("postgres", {"auth": {"url": url}, "script": script})["row_count"] == 1


@pytest.fixture(
    params=["url", "fields", "db_ fields", "alias", "JSON", "source", "driver", "credential", "key"]
)
def auth(request: pytest.FixtureRequest, url: str) -> tuple[Any, str]:
    """A form of auth, and what its secret holds."""
    known = conninfo_to_dict(url)
    fields = {"database" if key == "dbname" else key: known[key] for key in known}
    prefixed = {f"db_{key}".replace("db_database", "db_name"): fields[key] for key in fields}
    forms: dict[str, tuple[Any, str]] = {
        "url": ({"url": url}, ""),
        "fields": (fields, ""),
        "db_ fields": (prefixed, ""),
        "alias": ({"pg": {"url": url}}, ""),
        "JSON": ("db", json.dumps({"type": "postgres", "data": prefixed})),
        "source": ({"source": "secret", "name": "db"}, url),
        "credential": ({"pg_db": {"type": "postgres", "credential": "db"}}, url),
        "key": ({"type": "postgres", "key": "db"}, url),
        "driver": ("db", url.replace("postgresql://", "postgres+psycopg://")),
    }
    return forms[request.param]


def test_auth(call: Run, auth: tuple[Any, str]) -> None:
    config = {"auth": auth[0], "query": "select 1 as a"}
    assert call("postgres", config, secrets=Known({"db": auth[1]}))["rows"] == [{"a": 1}]


@pytest.mark.parametrize(
    ("auth", "kind"),
    [
        pytest.param(None, "auth", id="none"),
        pytest.param("unknown", "auth", id="an unknown name"),
        pytest.param({"type": "postgres"}, "auth", id="without fields"),
        pytest.param({"url": "canary canary"}, "auth", id="malformed"),
        pytest.param(
            {"url": "postgresql://u:canary@127.0.0.1:1/d"}, "db_connection", id="nobody listens"
        ),
    ],
)
def test_bad_auth(fail: Run, auth: Any, kind: str) -> None:
    error = fail("postgres", {"auth": auth, "query": "select 1"})
    assert (error.kind, error.retryable) == (kind, kind == "db_connection")
    assert "canary" not in str(error) + str(error.__cause__) + str(error.details)


@pytest.mark.parametrize("auth", ["api", {"credential": "api"}, {"db": {"credential": "api"}}])
def test_a_credential_that_is_none_of_postgres_is_named(fail: Run, auth: Any) -> None:
    secrets = Known({"api": json.dumps({"token": "canary"})}, {"api": "bearer"})
    error = fail("postgres", {"auth": auth, "query": "select 1"}, secrets=secrets)
    assert "credential 'api' (type bearer) holds neither url nor host" in error.message
    assert "canary" not in str(error)


def test_a_wrong_database_is_named(fail: Run, url: str) -> None:
    wrong = urlsplit(url)._replace(path="/no_such_db").geturl()
    error = fail("postgres", {"auth": {"url": wrong}, "query": "select 1"})
    assert "no_such_db" in error.message
    assert error.kind in {"auth", "not_found"}
    assert not error.retryable


@pytest.mark.parametrize(
    ("text", "params", "expected"),
    [
        ("select $1::int as v", [7], 7),
        ("select $1::jsonb as v", [{"a": [1]}], {"a": [1]}),
        ("select $1::jsonb as v", [[{"a": 1}]], [{"a": 1}]),
        ("select $1::int[] as v", [[1, 2]], [1, 2]),
        ("select $1::text as v", ["'; drop table t; --"], "'; drop table t; --"),
        ("select %s::int as v", [7], 7),
        ("select %(n)s::int as v", {"n": 7}, 7),
        ("select :n::int + :n::int as v", {"n": 7, "other": 1}, 14),
        ("select ':n' || (array[1, 2])[1:1]::text as v -- :n", {"n": 7}, ":n{1}"),
        ("select '100%' as v", None, "100%"),
        ("create temp table x (a int); select $1::int as v", [7], 7),
    ],
)
def test_params(sql: Run, text: str, params: Any, expected: Any) -> None:
    assert sql(text, params=params)["rows"] == [{"v": expected}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("selec 1", ("parse", False, "42601"), id="syntax"),
        pytest.param("select * from nope", ("schema", False, "42P01"), id="unknown table"),
        pytest.param("select 1 / 0", ("client_error", False, "22012"), id="bad data"),
        pytest.param("insert into u values (1)", ("db_constraint", False, "23505"), id="unique"),
        pytest.param(
            "do $$begin raise sqlstate '40P01'; end$$",
            ("db_deadlock", True, "40P01"),
            id="deadlock",
        ),
        pytest.param(
            "do $$begin raise sqlstate '40001'; end$$",
            ("db_deadlock", True, "40001"),
            id="conflict",
        ),
        pytest.param(
            "do $$begin raise sqlstate '08006'; end$$",
            ("db_connection", True, "08006"),
            id="connection",
        ),
        pytest.param(
            "do $$begin raise sqlstate '53300'; end$$",
            ("db_connection", True, "53300"),
            id="too many",
        ),
        pytest.param(
            "do $$begin raise sqlstate '57014'; end$$", ("db_timeout", True, "57014"), id="timeout"
        ),
        pytest.param("do $$begin raise 'no'; end$$", ("client_error", False, "P0001"), id="raised"),
        pytest.param(
            "do $$begin raise sqlstate '55006'; end$$", ("db_deadlock", True, "55006"), id="in use"
        ),
        pytest.param(
            "do $$begin raise sqlstate '53100'; end$$", ("resource", True, "53100"), id="disk full"
        ),
        pytest.param(
            "do $$begin raise sqlstate '57P03'; end$$",
            ("db_connection", True, "57P03"),
            id="starting up",
        ),
        pytest.param(
            "insert into v values (-1)", ("db_constraint", False, "44000"), id="check of a view"
        ),
        pytest.param(
            "do $$begin raise sqlstate '42501'; end$$", ("auth", False, "42501"), id="privilege"
        ),
        pytest.param(
            "do $$begin raise sqlstate 'ZZ999'; end$$", ("unknown", False, "ZZ999"), id="others"
        ),
        pytest.param(
            "select pg_terminate_backend(pg_backend_pid())",
            ("db_connection", True, "57P01"),
            id="killed",
        ),
    ],
)
def test_errors(bad: Run, sql: Run, text: str, expected: tuple[str, bool, str]) -> None:
    sql("create table u (a int primary key); insert into u values (1)")
    sql("create view v as select a from u where a > 0 with check option")
    error = bad(text)
    assert (error.kind, error.retryable, error.error_code) == expected
    assert error.details["pg"] == {"code": expected[2], "sqlstate": expected[2]}
    assert sql("select 1 as a")["rows"] == [{"a": 1}]


def test_statements_after_a_failed_one_still_run(bad: Run, sql: Run) -> None:
    error = bad("create table t (a int); select nope; insert into t values (1); select nada")
    assert error.message == (
        'command_1: column "nope" does not exist; command_3: column "nada" does not exist'
    )
    assert error.data["command_2"]["affected_rows"] == 1
    assert sql("select count(*) as n from t")["rows"] == [{"n": 1}]


def test_a_transaction_is_all_or_nothing(bad: Run, sql: Run) -> None:
    sql("create table t (a int)")
    error = bad("insert into t values (1); select nope; insert into t values (2)", transaction=True)
    assert list(error.data) == ["command_0", "command_1"]
    assert sql("select count(*) as n from t")["rows"] == [{"n": 0}]
    # Psycopg refuses this one itself, so that the server knows of no failure.
    bad("insert into t values (1); insert into t values (%s, %s)", transaction=True, params=[1])
    assert sql("select count(*) as n from t")["rows"] == [{"n": 0}]
    sql("insert into t values (1); insert into t values (2)", transaction=True)
    assert sql("select count(*) as n from t")["rows"] == [{"n": 2}]


def test_statements_that_need_to_be_alone(sql: Run) -> None:
    sql("create procedure p() language plpgsql as $$ begin commit; end $$; call p(); vacuum")


def test_a_transaction_left_open_is_undone(sql: Run) -> None:
    sql("create table t (a int)")
    sql("begin; insert into t values (1)")
    assert sql("select count(*) as n from t")["rows"] == [{"n": 0}]


def test_connections_are_kept_and_sessions_are_not(sql: Run) -> None:
    before = sql("select pg_backend_pid() as pid")["rows"]
    sql("create temp table leak (a int); set timezone = 'Asia/Tokyo'; select pg_advisory_lock(1)")
    for _ in range(10):  # psycopg prepares a statement at its sixth use
        look = (
            "select to_regclass('leak') as t, current_setting('timezone') <> 'Asia/Tokyo' as z, "
            "(select count(*) from pg_locks where locktype = 'advisory') as l"
        )
        assert sql(look)["rows"] == [{"t": None, "z": True, "l": 0}]
    assert sql("select pg_backend_pid() as pid")["rows"] == before


def test_a_connection_of_ones_own(sql: Run) -> None:
    before = sql("select pg_backend_pid() as pid")["rows"]
    assert sql("select pg_backend_pid() as pid", pool=False)["rows"] != before


def test_a_kept_connection_that_died_is_not_noticed(sql: Run, url: str) -> None:
    (row,) = sql("select pg_backend_pid() as pid")["rows"]
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", [row["pid"]])
    assert sql("select 1 as a")["rows"] == [{"a": 1}]


def test_timeout(bad: Run, sql: Run) -> None:
    error = bad("select pg_sleep(60)", timeout=0.3)
    assert (error.kind, error.retryable) == ("timeout", True)
    assert sql("select count(*) as n from pg_stat_activity where query like 'select pg_sleep%'")[
        "rows"
    ] == [{"n": 0}]


def test_the_server_gives_up_too_where_the_worker_died(sql: Run) -> None:
    assert sql("show statement_timeout", timeout=5)["rows"] == [{"statement_timeout": "6s"}]


def test_cancel(bad: Run) -> None:
    cancelled = threading.Event()
    timer = threading.Timer(0.2, cancelled.set)
    timer.start()
    error = bad("select pg_sleep(60); select 1", context={"cancelled": cancelled})
    timer.join()
    assert (error.kind, error.retryable) == ("cancelled", False)


def test_many_threads_at_once(sql: Run) -> None:
    found: list[Any] = []
    text = "select pg_backend_pid() as pid, $1::int as n from pg_sleep(0.05)"
    threads = [
        threading.Thread(target=lambda n=n: found.append(sql(text, params=[n])["rows"][0]["n"]))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(8))


def test_a_large_result_is_refused_clearly(bad: Run, context: Context) -> None:
    settings = replace(context.settings, result_bytes=1000)
    error = bad("select generate_series(1, 20000) as n", context={"settings": settings})
    assert error.kind == "resource"
    assert "the first 1000 rows" in error.message
    assert "max_rows" in error.message


@pytest.mark.parametrize("text", ["", " ; -- nothing"])
def test_nothing_to_run(bad: Run, text: str) -> None:
    assert bad(text).kind == "schema"


def test_closing_forgets_the_idle_connections(sql: Run) -> None:
    before = sql("select pg_backend_pid() as pid")["rows"]
    connections.close()
    assert sql("select pg_backend_pid() as pid")["rows"] != before


def test_max_rows_cuts_and_says_so(sql: Run) -> None:
    result = sql("select generate_series(1, 2500) as n; select 1 as a", max_rows=2)
    assert result["command_0"]["rows"] == [{"n": 1}, {"n": 2}]
    assert result["command_0"]["row_count"] == 2
    assert result["command_0"]["truncated"] is True
    assert result["command_0"]["truncation"] == {
        "reason": "max_rows",
        "max_rows": 2,
        "total_rows": 2500,
    }
    assert "truncated" not in result
    assert result["rows"] == [{"a": 1}]


def test_max_rows_leaves_a_transaction_as_it_was(sql: Run) -> None:
    text = "create table t (a int); select generate_series(1, 5000); insert into t values (1)"
    sql(text, max_rows=1, transaction=True)
    assert sql("select count(*) as n from t")["rows"] == [{"n": 1}]


def test_rows_as_lists(sql: Run) -> None:
    result = sql("select 1 as a, 2 as b", as_objects=False)
    assert (result["columns"], result["rows"]) == (["a", "b"], [[1, 2]])


@pytest.mark.parametrize(
    "text",
    [
        "with x as (insert into t values (1) returning a) select a from x",
        "insert into t values (1) returning a",
        "/* select */ insert into t values (1) returning a",
        "(select 1 as a)",
        "values (1)",
        "table t",
        "select 1 as a from t for update",
    ],
)
def test_whatever_returns_rows(sql: Run, text: str) -> None:
    sql("create table t (a int); insert into t values (1)")
    assert [list(row.values()) for row in sql(text)["rows"]] == [[1]]


def test_select_into_makes_a_table(sql: Run) -> None:
    assert sql("select 1 as a into t")["row_count"] == 1
    assert sql("table t")["rows"] == [{"a": 1}]


def test_notices_are_told_and_logged(sql: Run, output: Any) -> None:
    shout = "do $$begin for i in 1..25 loop raise notice 'no %', i; end loop; end$$"
    result = sql(shout)
    assert result["notices"][0] == "NOTICE: no 1"
    assert result["notices"][19:] == ["NOTICE: no 20", "and 5 more"]
    assert output.text("stderr").splitlines()[-1] == "NOTICE: no 25"
    assert "notices" not in sql("select 1")


def test_sql_sees_the_idempotency_key(call: Run, url: str, context: Context) -> None:
    text = "select current_setting('callboard.idempotency_key', true) as k"
    config = {"auth": {"url": url}, "sql": text}
    quoted = call("postgres", config, step="it's \\ 100%s")
    assert quoted["rows"] == [{"k": "7:it's \\ 100%s:1:-1"}]
    assert call("postgres", config)["rows"] == [{"k": context.idempotency_key}]


def test_a_search_path_of_two(sql: Run) -> None:
    assert sql("show search_path", schema="probe, public")["rows"] == [
        {"search_path": "probe, public"}
    ]


@pytest.mark.parametrize(
    "text", ["copy t from stdin", "COPY (select 1) TO STDOUT", "/* */ copy t from  stdin"]
)
def test_copy_from_here_is_refused_with_a_remedy(bad: Run, sql: Run, text: str) -> None:
    sql("create table t (a int)")
    error = bad(text)
    assert error.kind == "schema"
    assert "key copy" in error.message
    assert sql("select 1 as a")["rows"] == [{"a": 1}]


ROWS: list[dict[str, Any]] = [
    {"id": 1, "name": "a", "tags": ["x", 'y"'], "about": {"k": [1]}, "n": 1.5},
    {"id": 2, "name": None, "tags": [], "about": None, "n": None},
    {"id": 3, "name": "", "tags": None, "about": [1], "n": 2},
]
TABLE = (
    "create table t (id int primary key, name text, tags text[], about jsonb, n numeric, at date)"
)


def test_copy_loads_rows(sql: Run) -> None:
    sql(TABLE)
    result = sql("select * from t order by id", copy={"table": "probe.t", "rows": ROWS})
    assert result["copied"] == 3
    assert result["rows"] == [{**row, "at": None} for row in ROWS]


def test_copy_needs_no_sql(call: Run, sql: Run, url: str) -> None:
    sql("create table t (a int, b text)")
    rows = {"table": 'probe."t"', "columns": ["a", "b"], "rows": [[1, "x"], [2, None]]}
    result = call("postgres", {"auth": {"url": url}, "copy": rows})
    assert (result["status"], result["copied"], result["statement_count"]) == ("success", 2, 0)
    assert sql("select b from t order by a")["rows"] == [{"b": "x"}, {"b": None}]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"mode": "append"}, "constraint"),
        ({"mode": "replace"}, {5: "new", 6: "six"}),
        ({"mode": "upsert", "keys": ["id"]}, {1: "old", 5: "last", 6: "six"}),
        ({"mode": "upsert"}, {1: "old", 5: "last", 6: "six"}),
    ],
)
def test_modes_of_copy(sql: Run, bad: Run, config: dict[str, Any], expected: Any) -> None:
    sql("create table t (id int primary key, name text not null, rest int not null default 0)")
    sql("insert into t values (1, 'old'), (5, 'old')")
    rows: list[dict[str, Any]] = [{"id": 5, "name": "new"}, {"id": 6, "name": "six"}]
    if config["mode"] == "upsert":
        rows.insert(1, {"id": 5, "name": "last"})
    copy = {"table": "probe.t", "rows": rows, **config}
    if isinstance(expected, str):
        assert expected in bad("select 1", copy=copy).message
        expected = {1: "old", 5: "old"}
    else:
        sql("select 1", copy=copy)
    found = sql("select id, name from t")["rows"]
    assert {row["id"]: row["name"] for row in found} == expected


def test_a_transaction_covers_copy(bad: Run, sql: Run) -> None:
    sql("create table t (a int)")
    copy = {"table": "probe.t", "rows": [{"a": 1}]}
    bad("select nope", copy=copy, transaction=True)
    assert sql("table t")["rows"] == []
    bad("select nope", copy=copy)
    assert sql("table t")["rows"] == [{"a": 1}]


@pytest.mark.parametrize(
    ("copy", "words"),
    [
        ({"table": "probe.nope", "rows": [{"a": 1}]}, '"probe.nope" does not exist'),
        ({"table": "probe.t", "rows": [{"b": 1}]}, "has no column b; it has a"),
        ({"table": "probe.t", "rows": [{"a": 1}, 5]}, "record 1 is neither"),
        ({"table": "probe.t; drop table t", "rows": [{"a": 1}]}, "does not exist"),
        ({"table": 'probe."t', "rows": [{"a": 1}]}, "is no name of a table"),
        ({"table": "probe.t", "rows": []}, "neither rows nor columns"),
        ({"table": "probe.t", "rows": [{"a": "x"}]}, 'invalid input syntax for type integer: "x"'),
    ],
)
def test_copy_that_cannot_be(bad: Run, sql: Run, copy: Any, words: str) -> None:
    sql("create table t (a int)")
    assert words in bad("select 1", copy=copy).message
    assert sql("table t")["rows"] == []


class Held:
    """A step that holds its connection until it is told to let go."""

    def __init__(self, sql: Run, **config: Any) -> None:
        self._sql = sql
        self._thread = threading.Thread(
            target=sql, args=("select pg_advisory_xact_lock(77)",), kwargs=config
        )

    def __enter__(self) -> None:
        self._thread.start()
        waiting = "select count(*) as n from pg_locks where locktype = 'advisory' and not granted"
        while not self._sql(waiting, pool=False)["rows"][0]["n"]:
            pass

    def __exit__(self, *_: object) -> None:
        self._thread.join()


@pytest.fixture
def lock(url: str) -> Any:
    with psycopg.connect(url) as connection:
        connection.execute("select pg_advisory_lock(77)")
        yield connection


def test_connections_are_bounded(sql: Run, bad: Run, lock: Any) -> None:
    pool = {"name": "small", "max_size": 1}
    with Held(sql, pool=pool):
        late = bad("select 1", pool={**pool, "timeout": 0.05})
        assert (late.kind, late.retryable) == ("db_connection", True)
        assert "CALLBOARD_POSTGRES_CONNECTIONS" in late.message
        full = bad("select 1", pool={**pool, "max_waiting": 0})
        assert "0 steps wait" in full.message
        stop = threading.Event()
        stop.set()
        assert bad("select 1", pool=pool, context={"cancelled": stop}).kind == "cancelled"
        assert sql("select 1 as a", pool={"name": "other", "max_size": 1})["row_count"] == 1
        found: list[Any] = []
        waits = threading.Thread(target=lambda: found.append(sql("select 2 as a", pool=pool)))
        waits.start()
        lock.execute("select pg_advisory_unlock(77)")
        waits.join()
        assert found[0]["rows"] == [{"a": 2}]


def test_the_setting_bounds_connections(sql: Run, bad: Run, lock: Any, context: Context) -> None:
    settings = replace(context.settings, postgres_connections=1)
    connections.close()
    with Held(sql):
        error = bad("select 1", context={"settings": settings}, timeout=0.05)
        assert error.message.startswith("all 1 connections to the database were in use")
        lock.execute("select pg_advisory_unlock(77)")
