"""What attempts printed: kept once, found by whose it is, followed without a gap."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

import psycopg
import pytest

from app.engine.output import Kept, OutputStore, Printed, Selection
from app.engine.ports import Pointer
from app.errors import BadRequestError
from app.store.database import Database
from app.store.memory import MemoryLog
from app.store.memory_output import MemoryOutput
from app.store.output import PostgresOutput
from tests.contracts.conftest import Store

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
PIECE = Printed(Pointer(1, "load", 1, -1, 1), 0, "stdout", "hello\n", AT)
ALL = Selection()


@pytest.fixture
def output(store: Store, request: pytest.FixtureRequest) -> OutputStore:
    if isinstance(store.log, MemoryLog):
        return MemoryOutput()
    return PostgresOutput(request.getfixturevalue("shared_database"))


def piece(index: int, text: str = "x\n", **place: object) -> Printed:
    pointer = PIECE.pointer._replace(**place)  # type: ignore[arg-type]  # names and values fit
    return replace(PIECE, pointer=pointer, index=index, text=text)


def texts(found: list[Kept]) -> list[str]:
    return [kept.printed.text for kept in found]


def test_a_piece_comes_back_as_it_went_in(output: OutputStore) -> None:
    odd = replace(PIECE, text="zażółć 🎉 \\u0000 {a,b} \"q\" 'q' NULL\r\n", stream="stderr")
    assert output.append([odd]) == 1
    assert [kept.printed for kept in output.read(1, ALL)] == [odd]


def test_what_is_sent_twice_is_kept_once(output: OutputStore) -> None:
    assert output.append([piece(0, "a\n"), piece(1, "b\n")]) == 2
    assert output.append([piece(1, "other\n"), piece(2, "c\n"), piece(2, "d\n")]) == 1
    assert texts(output.read(1, ALL)) == ["a\n", "b\n", "c\n"]


def test_nothing_is_nothing(output: OutputStore) -> None:
    assert output.append([]) == 0
    assert output.read(1, ALL) == []
    assert output.newest(1, ALL, limit=5) == []


def test_a_text_that_no_column_holds_is_refused(output: OutputStore) -> None:
    with pytest.raises(BadRequestError):
        output.append([piece(0, "a\0b")])
    assert output.read(1, ALL) == []


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        (ALL, ["a", "b", "c", "d", "e"]),
        (Selection(step="load"), ["a", "b", "c", "d"]),
        (Selection(step="load", visit=2), ["b"]),
        (Selection(iteration=7), ["c"]),
        (Selection(attempt=2), ["d"]),
        (Selection(stream="stderr"), ["e"]),
        (Selection(step="load", stream="stderr"), []),
        (Selection(step="none"), []),
    ],
)
def test_it_is_found_by_whose_it_is(
    output: OutputStore, which: Selection, expected: list[str]
) -> None:
    output.append(
        [
            piece(0, "a"),
            piece(0, "b", visit=2),
            piece(0, "c", iteration=7),
            piece(0, "d", attempt=2),
            replace(piece(0, "e", step="save"), stream="stderr"),
            piece(0, "another execution", execution_id=2),
        ]
    )
    assert texts(output.read(1, which)) == expected
    assert texts(output.newest(1, which, limit=10)) == expected


def test_it_is_read_page_by_page_and_from_the_end(output: OutputStore) -> None:
    output.append([piece(index, str(index)) for index in range(10)])
    first = output.read(1, ALL, limit=4)
    second = output.read(1, ALL, after=first[-1].cursor, limit=4)
    third = output.read(1, ALL, after=second[-1].cursor, limit=4)
    assert [texts(page) for page in (first, second, third)] == [
        ["0", "1", "2", "3"],
        ["4", "5", "6", "7"],
        ["8", "9"],
    ]
    assert texts(output.newest(1, ALL, limit=3)) == ["7", "8", "9"]


def test_whoever_follows_misses_nothing_however_many_write(output: OutputStore) -> None:
    done = threading.Event()

    def write(step: str) -> None:
        for index in range(40):
            output.append([piece(index, step, step=step), piece(index, step, step=step, visit=2)])

    followed: list[Kept] = []

    def follow() -> None:
        while True:
            last = done.is_set()
            found = output.read(1, ALL, after=followed[-1].cursor if followed else 0)
            followed.extend(found)
            if last and not found:
                return

    writers = [threading.Thread(target=write, args=(f"s{number}",)) for number in range(6)]
    follower = threading.Thread(target=follow)
    for thread in (*writers, follower):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    follower.join()
    assert len(followed) == 6 * 40 * 2
    assert followed == output.read(1, ALL, limit=1000)


def test_a_transaction_that_goes_on_and_on_hides_nothing(
    shared_database: Database, request: pytest.FixtureRequest
) -> None:
    """As a cursor below the oldest running transaction would: a step's own may take an hour."""
    output = PostgresOutput(shared_database)
    execution_id = 4711
    with shared_database.raw() as connection, connection.transaction():
        connection.execute("SELECT pg_current_xact_id()")
        output.append([piece(0, "at once", execution_id=execution_id)])
        assert texts(output.read(execution_id, ALL)) == ["at once"]


def test_reading_costs_as_much_as_there_is_to_read(shared_database: Database) -> None:
    with shared_database.raw() as connection:
        plan = connection.execute(
            "EXPLAIN SELECT id FROM noetl.step_log WHERE execution_id = 1 AND id > 5 "
            "ORDER BY id LIMIT 10",
            prepare=False,
        ).fetchall()
    assert "step_log_tail" in str(plan)
    assert "Sort" not in str(plan)


def test_the_memory_twin_forgets_the_oldest() -> None:
    output = MemoryOutput(most=10)
    output.append([piece(index, f"{index:04}") for index in range(5)])
    assert texts(output.read(1, ALL)) == ["0003", "0004"]


def test_only_the_two_streams_there_are(shared_database: Database) -> None:
    with shared_database.raw() as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO noetl.step_log VALUES (1, 's', 1, -1, 1, 0, DEFAULT, 'other', '', now())"
        )


def test_what_executions_printed_is_forgotten_with_them(output: OutputStore) -> None:
    mine, other = piece(0), piece(0, execution_id=2)
    output.append([mine, other])
    output.forget([1, 3])
    assert output.read(1, ALL) == []
    assert texts(output.read(2, ALL)) == ["x\n"]
    assert output.append([mine, other]) == 1, "what is forgotten is not known any more"
