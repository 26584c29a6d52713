"""An event of a newer version stops its own execution until somebody comes who can read it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from app.engine.entry import UnknownEventError
from app.engine.ports import Pointer
from app.errors import UnavailableError
from app.services.control import control
from app.settings import load
from app.store.memory import MemoryLog
from app.store.shelf import Book, Stored
from tests.services.conftest import Bench

TWO = """
workflow:
- {step: start, tool: {kind: noop}, next: {arcs: [{step: end}]}}
- {step: end, tool: {kind: noop, message: "{{ start }}"}}
"""


def book_of(bench: Bench, execution_id: int) -> Book:
    assert isinstance(bench.ports.events, MemoryLog)
    return bench.ports.events._shelf.book(execution_id)


def rewrite(bench: Bench, execution_id: int, seq: int, **columns: Any) -> None:
    """Make a row what a newer version could have written."""
    rows = book_of(bench, execution_id).rows
    stored = rows[seq - 1]
    rows[seq - 1] = replace(stored, row=stored.row._replace(**columns))


def newer(bench: Bench, execution_id: int) -> Stored:
    """A newer version appends an event and its process goes away."""
    book = book_of(bench, execution_id)
    last = book.rows[-1]
    row = last.row._replace(seq=last.row.seq + 1, type="step.reviewed", idempotency_key=None)
    book.add(replace(last, row=row))
    return book.rows[-1]


@pytest.fixture
def stopped(bench: Bench) -> tuple[int, Pointer]:
    """An execution with an event that nobody here knows, and an attempt of it that is out."""
    execution_id = bench.start(TWO)
    (pointer,) = bench.advance(execution_id)
    assert bench.claim(pointer).granted
    newer(bench, execution_id)
    return execution_id, pointer


Stopped = tuple[int, Pointer]


def test_the_orchestrator_stops_and_says_which_event_and_what_to_do(
    bench: Bench, stopped: Stopped
) -> None:
    execution_id, _ = stopped
    with capture_logs() as lines, pytest.raises(UnknownEventError) as error:
        bench.control.advance.advance(execution_id)
    assert error.value.message == (
        f"event 4 of execution {execution_id} has the type 'step.reviewed', which this version "
        "does not know; the execution stands still"
    )
    assert "a newer version wrote it" in (error.value.remedy or "")
    assert [line["event"] for line in lines] == ["advance.stopped"]
    assert len(book_of(bench, execution_id).rows) == 4, "nothing is decided, and nothing ended"


def test_it_goes_on_where_the_event_is_known(bench: Bench, stopped: Stopped) -> None:
    execution_id, pointer = stopped
    # What the worker says meanwhile is a fact, whoever writes it down.
    assert bench.report(pointer, {"n": 1}).accepted
    with pytest.raises(UnknownEventError):
        bench.control.advance.advance(execution_id)
    payload = orjson.dumps({"outcome": "seen"}).decode()
    rewrite(bench, execution_id, 4, type="attempt.late", payload=payload)
    bench.settle(execution_id)
    assert bench.control.executions.get(execution_id).status == "COMPLETED"


def test_a_kept_state_does_not_hide_it(bench: Bench) -> None:
    execution_id = bench.start(TWO)
    bench.advance(execution_id)
    bench.control.executions.status(execution_id)
    newer(bench, execution_id)
    for look in (bench.control.advance.advance, bench.control.executions.status):
        with pytest.raises(UnknownEventError, match="event 3 of"):
            look(execution_id)


def test_it_is_not_cancelled_by_whoever_cannot_read_it(bench: Bench, stopped: Stopped) -> None:
    with pytest.raises(UnknownEventError):
        bench.control.executions.cancel(stopped[0])
    assert bench.control.executions.get(stopped[0]).status == "RUNNING"


def test_verify_says_so(bench: Bench, stopped: Stopped) -> None:
    found = bench.control.inspection.verify(stopped[0]).findings
    assert {item.code for item in found} == {"status", "unreadable"}
    assert all("'step.reviewed'" in item.message for item in found)


def test_the_sweeper_wakes_it_again_and_repairs_the_others(bench: Bench, stopped: Stopped) -> None:
    other = bench.start(TWO)
    (lost,) = bench.advance(other)
    bench.now[0] += 1_000
    bench.dispatcher.sent.clear()
    bench.dispatcher.wakes.clear()
    bench.control.sweeper.sweep()
    assert [sent.pointer for sent in bench.dispatcher.sent] == [lost]
    assert set(bench.dispatcher.wakes) == {stopped[0], other}


def restarted(bench: Bench) -> Bench:
    """A control plane that remembers nothing of what it read before."""
    return replace(bench, control=control(bench.ports, load({}, eager=False).settings))


def test_a_known_type_without_a_field_it_needs_is_not_guessed_either(bench: Bench) -> None:
    execution_id = bench.start(TWO)
    bench.advance(execution_id)
    rewrite(bench, execution_id, 2, payload=orjson.dumps({"tool": "noop"}).decode())
    with pytest.raises(
        UnknownEventError, match=r"event 2 .* is a step.scheduled without queue, rea"
    ):
        restarted(bench).advance(execution_id)


def test_a_claim_whose_values_a_newer_version_wrote_is_left_to_that(bench: Bench) -> None:
    execution_id = bench.start(TWO)
    (first,) = bench.advance(execution_id)
    bench.work(first, {"n": 1})
    (second,) = bench.advance(execution_id)
    rewrite(bench, execution_id, 4, type="step.finished")
    with pytest.raises(UnavailableError, match="event 4 of"):
        restarted(bench).claim(second)
    # The same claim is granted by whoever knows the event.
    rewrite(bench, execution_id, 4, type="step.done")
    assert bench.claim(second).granted
