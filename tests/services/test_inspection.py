"""Replay shows what each event changed; verify finds every way in which a log can contradict itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from app.engine.entry import Entry
from app.engine.events import ChildStarted, StepDone, StepScheduled
from app.engine.ports import Draft
from app.engine.state import replay
from app.errors import NotFoundError
from app.services.control import Control, Ports, control
from app.services.inspection import Inspection, Turn
from app.services.replaying import BrokenFoldError, state_of
from app.settings import load
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.memory import MemoryLog
from app.store.shelf import Book, Stored
from tests.services.conftest import Bench

FLOW = """
workload: {city: Oslo}
workflow:
  - step: start
    tool: {kind: noop}
    set: {ctx.place: "{{ workload.city }}"}
    next: {spec: {mode: inclusive}, arcs: [{step: each}, {step: side}]}
  - step: each
    loop: {in: [1, 2, 3], iterator: n, spec: {mode: parallel}}
    tool: {kind: noop, message: "{{ start.name }} {{ place }} {{ n }}"}
    next: {arcs: [{step: end}]}
  - step: side
    tool: {kind: noop}
    next: {arcs: [{step: end}]}
  - step: end
    tool: {kind: noop, message: "{{ each.stats }}"}
"""


def finished(bench: Bench, *, last: Any = "over") -> int:
    """A completed execution of FLOW; *last* is the result of its last step."""
    execution_id = bench.start(FLOW)
    pointers = bench.advance(execution_id)
    while pointers:
        for pointer in pointers:
            bench.work(pointer, last if pointer.step == "end" else {"name": pointer.step})
        pointers = bench.advance(execution_id)
    assert bench.types(execution_id)[-1] == "execution.completed"
    return execution_id


def book_of(bench: Bench, execution_id: int) -> Book:
    """The rows themselves: what somebody with the right to write into the database could change."""
    assert isinstance(bench.ports.events, MemoryLog)
    return bench.ports.events._shelf.book(execution_id)


def codes(bench: Bench, execution_id: int) -> list[str]:
    found = fresh(bench.ports).inspection.verify(execution_id).findings
    return sorted({item.code for item in found})


def fresh(ports: Ports) -> Control:
    """A control plane that remembers nothing of what the log said before."""
    return control(ports, load({}, eager=False).settings)


# ---------------------------------------------------------------------- replay
def test_replay_tells_what_each_event_changed(bench: Bench) -> None:
    execution_id = finished(bench)
    page = bench.control.inspection.replay(execution_id)
    told = [
        (turn.entry.event.type, [(c.what, c.name, c.before, c.after) for c in turn.changes])
        for turn in page.turns
    ]
    assert told[0][1] == [("execution", "t", "new", "running")]
    assert told[1] == ("step.scheduled", [("step", "start", None, "running")])
    assert ("ctx", "place", None, "event 5") in told[4][1]
    loops = [c[1:] for _, changes in told for c in changes if c[0] == "loop"]
    assert loops[0] == ("each", None, "0/3 ended, 0 begun")
    assert loops[-1] == ("each", "2/3 ended, 3 begun", "3/3 ended, 3 begun")
    assert told[-1][1] == [("execution", "t", "running", "completed")]
    assert page.state == bench.control.executions.state(execution_id)
    assert not page.more


@pytest.mark.parametrize("limit", [1, 3, 7])
def test_pages_give_the_same_as_one_look(bench: Bench, limit: int) -> None:
    execution_id = finished(bench)
    whole = bench.control.inspection.replay(execution_id)
    turns: list[Turn] = []
    after, more = 0, True
    while more:
        page = bench.control.inspection.replay(execution_id, after=after, limit=limit)
        turns += page.turns
        after, more = page.state.version, page.more
    assert turns == list(whole.turns)
    assert page.state == whole.state
    # Somebody else's process goes on from the middle, too.
    other = fresh(bench.ports).inspection
    assert list(other.replay(execution_id, after=5).turns) == list(whole.turns)[5:]


def test_at_shows_the_state_as_it_was(bench: Bench) -> None:
    execution_id = finished(bench)
    log = bench.log(execution_id)
    for seq in range(len(log) + 1):
        expected = replay(log[:seq])
        assert bench.control.inspection.state(execution_id, seq) == expected
        page = bench.control.inspection.replay(execution_id, at=seq)
        assert (page.state, page.more, len(page.turns)) == (expected, False, seq)
    assert bench.control.inspection.state(execution_id) == replay(log)


def test_one_step_is_followed_through_the_events_that_change_it(bench: Bench) -> None:
    execution_id = finished(bench)
    turns = bench.control.inspection.replay(execution_id, step="start").turns
    # The last two mark it as routed: its targets were started.
    assert [turn.entry.event.type for turn in turns][:4] == [
        "step.scheduled",
        "step.started",
        "step.done",
        "ctx.updated",
    ]
    assert turns[4].changes[0].after == "done, routed"


def test_a_state_is_plain_data_without_bit_sets(bench: Bench) -> None:
    execution_id = finished(bench)
    data = state_of(bench.control.inspection.state(execution_id))
    assert orjson.loads(orjson.dumps(data)) == data
    assert data["steps"]["each"]["loop"]["ended"] == 3
    assert "ended_bits" not in data["steps"]["each"]["loop"]


def test_an_execution_that_is_not_there_is_said_so(bench: Bench) -> None:
    inspection: Inspection = bench.control.inspection
    for look in (inspection.state, inspection.replay, inspection.verify):
        with pytest.raises(NotFoundError, match="no execution 77"):
            look(77)


# ---------------------------------------------------------------------- verify
def test_nothing_is_found_in_any_state_of_an_execution(bench: Bench) -> None:
    execution_id = bench.start(FLOW)
    pointers = bench.advance(execution_id)
    while pointers:
        for pointer in pointers:
            assert codes(bench, execution_id) == []
            bench.work(pointer, {"name": pointer.step})
        pointers = bench.advance(execution_id)
    found = bench.control.inspection.verify(execution_id)
    assert (found.status, found.path, found.findings) == ("COMPLETED", "t", [])
    assert found.events == len(bench.log(execution_id))


def test_nothing_is_found_in_failures_cancellations_retries_and_late_reports(bench: Bench) -> None:
    failed = bench.start(FLOW)
    (start,) = bench.advance(failed)
    bench.claim(start)
    error = {"kind": "x", "message": "no luck", "retryable": False}
    bench.report(start, outcome="failed", error=error, retry_in=0.0)
    (again,) = bench.advance(failed)
    bench.work(again)
    pointers = bench.advance(failed)
    for pointer in pointers:
        bench.claim(pointer)
        if pointer.iteration == 1:
            bench.report(pointer, outcome="failed", error=error)
        else:
            bench.report(pointer, {"name": "x"})
    bench.advance(failed)
    assert bench.types(failed)[-1] == "execution.failed"
    assert codes(bench, failed) == []

    cancelled = bench.start(FLOW)
    (start,) = bench.advance(cancelled)
    bench.claim(start)
    bench.control.executions.cancel(cancelled, reason="enough")
    assert not bench.report(start, {}).accepted
    assert bench.types(cancelled)[-1] == "attempt.late"
    assert codes(bench, cancelled) == []


def test_a_large_result_is_read_through_its_reference(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(inline_bytes=100)
    execution_id = finished(bench, last={"rows": ["x" * 50] * 5})
    assert codes(bench, execution_id) == []
    values = book_of(bench, execution_id).values
    (name,) = [name for name in values if "end" in name]
    kept = values[name]
    values[name] = orjson.dumps({"rows": []})
    assert codes(bench, execution_id) == ["value-changed"]
    del values[name]
    assert codes(bench, execution_id) == ["result", "value-missing"]
    values[name] = kept
    assert codes(bench, execution_id) == []


def at(book: Book, type_: str, step: str | None = None, iteration: int = -1) -> int:
    """Where the first such event is among the rows."""
    return next(
        place
        for place, stored in enumerate(book.rows)
        if stored.row.type == type_
        and step in {None, stored.row.step}
        and (step is None or stored.row.iteration == iteration)
    )


def rewrite(book: Book, place: int, **columns: Any) -> None:
    """Change columns of a row, and keys of its payload."""
    stored = book.rows[place]
    payload = {**orjson.loads(stored.row.payload), **columns.pop("payload", {})}
    row = stored.row._replace(payload=orjson.dumps(payload).decode(), **columns)
    book.rows[place] = replace(stored, row=row)


def insert(book: Book, place: int, stored: Stored, **columns: Any) -> None:
    """A copy of *stored* at *place*, with those behind it moved on."""
    book.rows.insert(place, stored)
    rewrite(book, place, **columns)
    for number, moved in enumerate(book.rows, 1):
        book.rows[number - 1] = replace(moved, row=moved.row._replace(seq=number))


def drop(book: Book, type_: str, step: str | None = None, iteration: int = -1) -> None:
    del book.rows[at(book, type_, step, iteration)]


def twice(book: Book, type_: str, step: str, place: int | None = None) -> None:
    found = at(book, type_, step)
    insert(book, found + 1 if place is None else place, book.rows[found])


CORRUPTIONS: dict[str, tuple[Callable[[Book], None], set[str]]] = {
    "an event is gone": (lambda b: drop(b, "step.done", "side"), {"seq-gap"}),
    "the first event is gone": (lambda b: drop(b, "execution.started"), {"seq-gap", "start"}),
    "the last event is gone": (lambda b: drop(b, "execution.completed"), {"summary"}),
    "it starts twice": (
        lambda b: insert(b, 4, b.rows[0]),
        {"start"},
    ),
    "it ends twice": (
        lambda b: insert(b, len(b.rows), b.rows[-1]),
        {"second-end"},
    ),
    "work goes on after the end": (
        lambda b: twice(b, "ctx.updated", "start", len(b.rows)),
        {"after-end"},
    ),
    "a step ends twice": (lambda b: twice(b, "step.done", "side"), {"step-ended-twice"}),
    "an attempt is scheduled twice": (
        lambda b: twice(b, "step.scheduled", "side"),
        {"scheduled-twice"},
    ),
    "an attempt is claimed twice": (lambda b: twice(b, "step.started", "side"), {"claimed-twice"}),
    "a step ends that nobody scheduled": (
        lambda b: rewrite(b, at(b, "step.done", "side"), attempt=2),
        {"not-scheduled"},
    ),
    "a value is read from the future": (
        lambda b: rewrite(b, at(b, "step.scheduled", "end"), payload={"reads": {"each": 999}}),
        {"reads"},
    ),
    "a value is read from an event without it": (
        lambda b: rewrite(b, at(b, "step.scheduled", "end"), payload={"reads": {"each": 2}}),
        {"reads"},
    ),
    "a value is read from another step's result": (
        lambda b: rewrite(
            b,
            at(b, "step.scheduled", "end"),
            payload={"reads": {"each": at(b, "step.done", "start") + 1}},
        ),
        {"reads"},
    ),
    "an item is read from no loop": (
        lambda b: rewrite(b, at(b, "step.scheduled", "each", 1), payload={"loop_seq": 2}),
        {"reads"},
    ),
    "a step begins before its source ended": (
        lambda b: rewrite(b, at(b, "step.scheduled", "side"), payload={"source": "end"}),
        {"source"},
    ),
    "a loop counts too many": (
        lambda b: rewrite(b, at(b, "loop.done", "each"), payload={"success": 4}),
        {"loop-count"},
    ),
    "a failed iteration is hidden": (
        lambda b: rewrite(
            b, at(b, "step.done", "each", 1), type="step.failed", payload={"error": {}}
        ),
        {"loop-count"},
    ),
    "the log cannot have happened": (
        lambda b: drop(b, "loop.started", "each"),
        {"fold"},
    ),
    "it is from a newer version": (
        lambda b: rewrite(b, at(b, "step.started", "side"), type="step.teleported"),
        {"unreadable"},
    ),
    "the list shows another path": (
        lambda b: setattr(b, "summary", b.summary and b.summary._replace(path="other")),
        {"summary"},
    ),
    "the list shows another status": (
        lambda b: setattr(b, "summary", b.summary and b.summary._replace(status="FAILED")),
        {"summary"},
    ),
    "the list shows another end": (
        lambda b: setattr(
            b,
            "summary",
            b.summary and b.summary._replace(ended_at=datetime(2000, 1, 1, tzinfo=UTC)),
        ),
        {"summary"},
    ),
    "the list shows an error": (
        lambda b: setattr(b, "summary", b.summary and b.summary._replace(error="none such")),
        {"summary"},
    ),
    "the list has no row": (lambda b: setattr(b, "summary", None), {"summary"}),
    "the playbook is another": (
        lambda b: rewrite(b, 0, payload={"catalog_id": 99}),
        {"summary", "playbook"},
    ),
}


@pytest.mark.parametrize(
    ("corrupt", "expected"), [pytest.param(*case, id=name) for name, case in CORRUPTIONS.items()]
)
def test_a_log_changed_by_hand_is_found_out(
    bench: Bench, corrupt: Callable[[Book], None], expected: set[str]
) -> None:
    execution_id = finished(bench)
    corrupt(book_of(bench, execution_id))
    assert expected <= set(codes(bench, execution_id))


def test_each_finding_names_its_event(bench: Bench) -> None:
    execution_id = finished(bench)
    book = book_of(bench, execution_id)
    place = at(book, "loop.done", "each")
    rewrite(book, place, payload={"success": 2, "failed": 1})
    (finding, *_) = bench.control.inspection.verify(execution_id).findings
    assert (finding.code, finding.seq) == ("loop-count", place + 1)
    told = "each: loop.done says 2 good and 1 failed, the log has 3 and 0"
    assert finding.message == told


def test_a_server_that_remembers_another_log_is_found_out(bench: Bench) -> None:
    """The status is folded from what was read before; the replay reads everything again."""
    execution_id = bench.start(FLOW)
    (start,) = bench.advance(execution_id)
    bench.work(start, {"name": "start"})
    bench.advance(execution_id)
    bench.control.executions.status(execution_id)
    book = book_of(bench, execution_id)
    rewrite(book, at(book, "loop.started", "each"), payload={"size": 5})
    found = bench.control.inspection.verify(execution_id).findings
    assert {item.code for item in found} == {"fold", "status"}
    assert any("folding it from the start gives another state" in item.message for item in found)


def test_a_result_shown_is_that_of_its_event(bench: Bench) -> None:
    execution_id = finished(bench)
    assert bench.control.executions.result(execution_id) == "over"
    book = book_of(bench, execution_id)
    place = at(book, "step.done", "end")
    rewrite(book, place, payload={"result": "forged"})
    (finding,) = bench.control.inspection.verify(execution_id).findings
    assert (finding.code, finding.seq) == ("result", place + 1)


def test_the_final_step_shown_is_the_last_with_a_result(bench: Bench) -> None:
    execution_id = finished(bench)
    assert bench.control.executions.status(execution_id).final_step == "end"
    book = book_of(bench, execution_id)
    rewrite(book, at(book, "step.done", "end"), type="step.skipped", payload={"reason": "x"})
    told = [item.message for item in bench.control.inspection.verify(execution_id).findings]
    assert "the final step is shown as 'end', the log says 'each'" in told


def test_a_child_is_looked_for(bench: Bench) -> None:
    head = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: kid}\n"
    bench.control.catalog.register(f"{head}workflow: [{{step: start}}]")
    execution_id = bench.start(
        "workflow: [{step: start, tool: {kind: playbook, path: kid, return_step: start}}]"
    )
    bench.advance(execution_id)
    (child,) = [e.event for e in bench.log(execution_id) if isinstance(e.event, ChildStarted)]
    assert codes(bench, execution_id) == []
    book = book_of(bench, child.child_execution_id)
    assert book.summary is not None
    book.summary = book.summary._replace(parent_execution_id=1)
    assert codes(bench, execution_id) == ["child"]
    assert codes(bench, child.child_execution_id) == ["summary"]
    book.summary = None
    assert codes(bench, execution_id) == ["child"]


def test_a_log_that_cannot_be_folded_is_not_replayed(bench: Bench) -> None:
    execution_id = finished(bench)
    drop(book_of(bench, execution_id), "loop.started", "each")
    inspection = fresh(bench.ports).inspection
    with pytest.raises(BrokenFoldError, match=r"event \d+ of execution \d+ \(.*\) does not follow"):
        inspection.replay(execution_id)
    with pytest.raises(BrokenFoldError):
        inspection.state(execution_id)


# ---------------------------------------------------------------------- on Postgres
@pytest.fixture
def on_postgres(bench: Bench, database: str) -> Iterator[tuple[Bench, Database]]:
    opened = Database(database, pool_size=4)
    ports = replace(bench.ports, events=PostgresLog(opened), catalog=PostgresCatalog(opened))
    yield replace(bench, control=fresh(ports), ports=ports), opened
    opened.close()


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("DELETE FROM noetl.event WHERE type = 'step.done' AND step = 'side'", "seq-gap"),
        (
            "UPDATE noetl.event SET visit = 2 WHERE type = 'step.done' AND step = 'side'",
            "not-scheduled",
        ),
        (
            "UPDATE noetl.event SET payload = payload || '{\"failed\": 2}' WHERE type = 'loop.done'",
            "loop-count",
        ),
        ("UPDATE noetl.execution SET status = 'FAILED'", "summary"),
        ("DELETE FROM noetl.execution", "summary"),
    ],
)
def test_a_superuser_who_changes_rows_is_found_out(
    on_postgres: tuple[Bench, Database], statement: str, expected: str
) -> None:
    bench, database = on_postgres
    execution_id = finished(bench, last={"text": "x" * 100_000})
    assert codes(bench, execution_id) == []
    with database.raw() as connection:
        connection.execute("ALTER TABLE noetl.event DISABLE TRIGGER USER")
        connection.execute(statement)
        connection.execute("ALTER TABLE noetl.event ENABLE TRIGGER USER")
    assert expected in codes(bench, execution_id)


# ---------------------------------------------------------------------- long ones
def test_a_long_log_is_replayed_page_by_page(bench: Bench) -> None:
    """No page is larger than it was asked to be, and none makes the next one start over."""
    execution_id = bench.start(
        "workflow: [{step: start, tool: {kind: noop}, next: [{step: start}]}]"
    )
    (pointer,) = bench.advance(execution_id)
    with bench.ports.events.transaction([execution_id]) as log:
        drafts = []
        for visit in range(1, 2_001):
            drafts.append(Draft(StepDone("start", visit, -1, 1, {})))
            scheduled = StepScheduled(
                "start", visit + 1, -1, 1, "noop", "default.io", {}, "start", visit
            )
            drafts.append(Draft(scheduled))
        log.append(execution_id, drafts)
    reading = _Counting(bench.ports.events)
    ports = replace(bench.ports, events=reading)
    inspection = fresh(ports).inspection
    after, more, turns = 0, True, 0
    while more:
        page = inspection.replay(execution_id, after=after, limit=250)
        turns += len(page.turns)
        after, more = page.state.version, page.more
    assert turns == 4_002
    # Each page reads one event more, to know whether others follow.
    assert max(reading.sizes) == 251
    assert sum(reading.sizes) <= 4_002 + 17
    assert page.state.step("start").visit == 2_001
    assert pointer.visit == 1


class _Counting:
    """The log, counting the events of each read."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.sizes: list[int] = []

    def read(self, *args: Any, **kwargs: Any) -> list[Entry]:
        found: list[Entry] = self._log.read(*args, **kwargs)
        self.sizes.append(len(found))
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)
