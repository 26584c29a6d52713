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
from app.tools.connections import connections

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
        "postgres", {"auth": "db", "command": text, "schema": "probe", **more}, secret=lambda _: url
    )


@pytest.fixture
def bad(fail: Run, url: str) -> Run:
    return lambda text, context=None, **more: fail(
        "postgres",
        {"auth": "db", "command": text, "schema": "probe", **more},
        secret=lambda _: url,
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
    assert call("postgres", config, secret=lambda _: auth[1])["rows"] == [{"a": 1}]


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
    assert "20000 rows" in error.message


@pytest.mark.parametrize("text", ["", " ; -- nothing"])
def test_nothing_to_run(bad: Run, text: str) -> None:
    assert bad(text).kind == "schema"


def test_closing_forgets_the_idle_connections(sql: Run) -> None:
    before = sql("select pg_backend_pid() as pid")["rows"]
    connections.close()
    assert sql("select pg_backend_pid() as pid")["rows"] != before
