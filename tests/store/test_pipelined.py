"""Several statements with one write and one wait, on a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from app.store.pipelined import Call, Pipelined, Statement

BEGIN, COMMIT = Call(Statement("BEGIN")), Call(Statement("COMMIT"))
ADD = Statement("INSERT INTO kept VALUES (%s)")
KEPT = Call(Statement("SELECT n FROM kept ORDER BY n"))
HALF = Statement("SELECT 1 / %s::int")


@pytest.fixture
def connection(database: str) -> Iterator[Pipelined]:
    with Pipelined.connect(database, autocommit=True) as opened:
        opened.execute("CREATE TABLE kept (n int PRIMARY KEY)")
        yield opened


def test_the_rows_of_each_call_come_in_order(connection: Pipelined) -> None:
    assert connection.together([BEGIN, Call(ADD, (2,)), Call(ADD, (1,)), KEPT, COMMIT]) == [
        [],
        [],
        [],
        [(1,), (2,)],
        [],
    ]
    assert connection.together([KEPT, KEPT]) == [[(1,), (2,)]] * 2
    assert connection.together([]) == []


def test_values_come_as_psycopg_has_them(connection: Pipelined) -> None:
    text = """SELECT 1::bigint, 1.5::float8, 'a', NULL, true, '{"a": [1]}'::jsonb, now()"""
    (rows,) = connection.together([BEGIN, Call(Statement(text)), COMMIT])[1:2]
    ((*values, at),) = rows
    ((*same, _),) = connection.execute(text).fetchall()
    assert values == same == [1, 1.5, "a", None, True, {"a": [1]}]
    assert at.tzinfo is not None


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("SELECT %s::int, %s::int", (1, 2)),
        ("SELECT %(a)s::int, %(b)s::int", (1, 2)),
        ("SELECT %(a)s::int, %(a)s::int + 1", (1,)),
    ],
)
def test_places_are_numbered_as_they_come(
    connection: Pipelined, text: str, parameters: tuple[int, ...]
) -> None:
    assert connection.together([Call(Statement(text), parameters)]) == [[(1, 2)]]


def test_what_follows_a_failure_is_not_done(connection: Pipelined) -> None:
    late = Statement("INSERT INTO kept VALUES (%s + 100)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.together([Call(HALF, (0,)), Call(late, (1,))])
    # Nor does it count as prepared.
    connection.together([Call(late, (2,))])
    assert connection.together([KEPT]) == [[(102,)]]


def test_a_failure_says_what_it_was(connection: Pipelined) -> None:
    connection.together([Call(ADD, (1,))])
    with pytest.raises(psycopg.errors.UniqueViolation) as caught:
        connection.together([BEGIN, Call(ADD, (1,)), COMMIT])
    assert caught.value.diag.constraint_name == "kept_pkey"
    assert "(1)" in str(caught.value.diag.message_detail)


@pytest.mark.parametrize("own", [0, 10], ids=["alone", "beside psycopg's own"])
def test_it_goes_on_after_a_rollback(connection: Pipelined, own: int) -> None:
    for number in range(own):
        connection.execute("SELECT %s::int", [number])
    connection.together([BEGIN, Call(ADD, (1,))])
    connection.rollback()
    connection.rollback()
    assert connection.together([Call(ADD, (2,)), KEPT]) == [[], [(2,)]]
    assert connection.execute("SELECT %s::int", [7]).fetchone() == (7,)


def test_what_it_prepared_and_is_gone_is_prepared_again(connection: Pipelined) -> None:
    connection.together([BEGIN, Call(ADD, (1,)), COMMIT])
    connection.execute("DEALLOCATE ALL")
    assert connection.together([BEGIN, Call(ADD, (2,)), KEPT, COMMIT])[2] == [(1,), (2,)]


def test_in_the_middle_of_a_transaction_that_ends_it(connection: Pipelined) -> None:
    connection.together([KEPT])
    connection.together([BEGIN, Call(ADD, (1,))])
    connection.execute("DEALLOCATE ALL")
    with pytest.raises(psycopg.errors.InvalidSqlStatementName):
        connection.together([KEPT, COMMIT])
    connection.rollback()
    assert connection.together([KEPT]) == [[]]


def test_much_goes_both_ways(connection: Pipelined) -> None:
    """More than fits into any buffer, and answers that come while it is still being sent."""
    echo, text = Statement("SELECT %s::text"), "x" * 10_000_000
    assert connection.together([Call(echo, (text,))] * 4) == [[(text,)]] * 4


@pytest.mark.parametrize("at_work", [False, True])
def test_a_connection_that_was_ended_is_closed(
    connection: Pipelined, database: str, *, at_work: bool
) -> None:
    pid = connection.info.backend_pid
    failed: list[Any] = []

    def ask() -> None:
        try:
            connection.together([Call(Statement("SELECT pg_sleep(60)"))])
        except psycopg.OperationalError as exc:
            failed.append(exc)

    asking = threading.Thread(target=ask)
    with psycopg.connect(database, autocommit=True) as other:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
        if at_work:
            asking.start()
            while other.execute(busy, [pid]).fetchone() != (1,):
                pass
        other.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    if not at_work:
        asking.start()
    asking.join(30)
    assert failed
    assert connection.closed


def test_something_is_done_between_sending_and_receiving(connection: Pipelined) -> None:
    done: list[str] = []
    rows = connection.together([Call(ADD, (1,)), KEPT], meanwhile=lambda: done.append("once"))
    assert (rows, done) == ([[], [(1,)]], ["once"])
    connection.execute("DEALLOCATE ALL")  # what has to be sent again is not done again
    assert connection.together([KEPT], meanwhile=lambda: done.append("again")) == [[(1,)]]
    assert done == ["once", "again"]


def test_a_failure_in_between_ends_the_connection(connection: Pipelined) -> None:
    with pytest.raises(ZeroDivisionError):
        connection.together([Call(ADD, (1,))], meanwhile=lambda: 1 // 0)
    assert connection.closed


def test_without_a_transaction_it_is_one(connection: Pipelined) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.together([Call(ADD, (1,)), Call(ADD, (2,)), Call(ADD, (1,))])
    assert connection.together([KEPT, Call(ADD, (3,))]) == [[], []]
    assert connection.together([KEPT]) == [[(3,)]]


def test_a_commit_that_fails_without_being_asked_for_is_an_error(connection: Pipelined) -> None:
    connection.execute("CREATE TABLE part (n int REFERENCES kept DEFERRABLE INITIALLY DEFERRED)")
    part = Statement("INSERT INTO part VALUES (%s)")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.together([Call(ADD, (1,)), Call(part, (2,))])
    assert connection.together([KEPT, Call(ADD, (2,)), Call(part, (2,))]) == [[], [], []]


def test_what_is_set_for_a_transaction_ends_with_it(connection: Pipelined) -> None:
    here = Call(Statement("SELECT set_config('synchronous_commit', 'off', true)"))
    shown = Call(Statement("SHOW synchronous_commit"))
    connection.execute("SET synchronous_commit = on")
    assert connection.together([here, shown]) == [[("off",)], [("off",)]]
    assert connection.together([shown]) == [[("on",)]]
