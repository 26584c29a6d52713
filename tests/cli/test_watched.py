"""What ``callboard run`` shows of the events it sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest

from app.cli.progress import Lines, Row
from app.cli.watched import Watched
from app.engine.entry import Entry
from app.engine.events import (
    ChildEnded,
    ChildStarted,
    Event,
    FrameOpened,
    LoopDone,
    LoopStarted,
    StepDone,
    StepParked,
    StepScheduled,
    StepSkipped,
    claim_iteration,
)

BEGAN = datetime(2030, 1, 31, 12, tzinfo=UTC)


@dataclass
class Kept:
    """Keeps the last row of each step."""

    rows: dict[str, Row] = field(default_factory=dict)

    def update(self, row: Row) -> None:
        self.rows[row.name] = row

    def output(self, name: str, text: str) -> None: ...


def _seen(*events: Event) -> tuple[Row, Watched]:
    """The row after *events*, one a second, and who saw them."""
    kept = Kept()
    watched = Watched(kept)
    for seq, event in enumerate(events, start=1):
        watched.see(Entry(1, seq, event, at=BEGAN + timedelta(seconds=seq)))
    (row,) = kept.rows.values()
    return row, watched


def _child(iteration: int = -1, *, waits: bool = True, resumes: bool = False) -> ChildStarted:
    return ChildStarted("sub", 1, iteration, 1, 77, 5, "my/child", 1, waits, resumes)


SCHEDULED = StepScheduled("sub", 1, -1, 1, "noop", "default.io", {})
LOOP = LoopStarted("sub", 1, [1, 2], 2)
PARKED = StepParked("sub", 1, -1, 1, call={"path": "my/child"})
WAITS = "waits for execution 77 (my/child)"


@pytest.mark.parametrize(
    ("events", "note"),
    [
        pytest.param([_child()], WAITS, id="a step of its own"),
        pytest.param([_child(), StepDone("sub", 1, -1, 1)], None, id="until it ends"),
        pytest.param([_child(waits=False)], "started execution 77 (my/child)", id="nobody waits"),
        pytest.param([SCHEDULED, PARKED, _child(resumes=True)], WAITS, id="inside a sequence"),
        pytest.param(
            [SCHEDULED, PARKED, _child(resumes=True), ChildEnded("sub", 1, -1, 1, 77)],
            None,
            id="and its end there",
        ),
        pytest.param([LOOP, _child(0)], WAITS, id="in a loop"),
        pytest.param(
            [SCHEDULED, StepParked("sub", 1, -1, 1, resume_at=BEGAN.timestamp() + 90)],
            "waits until 12:01:30 UTC",
            id="a time",
        ),
        pytest.param([StepSkipped("sub", 1, reason="not admitted")], "not admitted", id="skipped"),
    ],
)
def test_a_note_says_what_a_step_waits_for(events: list[Event], note: str | None) -> None:
    assert _seen(*events)[0].note == note


def test_a_step_that_is_a_playbook_takes_as_long_as_it() -> None:
    row, _ = _seen(_child(), StepDone("sub", 1, -1, 1))
    assert (row.status, row.seconds) == ("done", 1.0)


@pytest.mark.parametrize(("by_row", "total"), [(True, 3), (False, 1)])
def test_a_cursor_loop_counts_bodies_and_no_claims(by_row: bool, total: int) -> None:
    frame = {"by_row": by_row, "max_rows": 3, "row_concurrency": 1}
    events: list[Event] = [
        LoopStarted("sub", 1, None, 0, 1, frame=frame),
        StepDone("sub", 1, claim_iteration(0), 1, {"rows": [1, 2, 3]}),
        FrameOpened("sub", 1, 2, 3),
    ]
    row, watched = _seen(*events)
    assert (row.total, row.growing, row.counts, watched.steps) == (total, True, "0 so far", 0)
    events += [StepDone("sub", 1, index, 1) for index in range(total)]
    row, watched = _seen(*events)
    assert (row.counts, watched.steps) == (f"{total} so far", total)
    row, _ = _seen(*events, LoopDone("sub", 1, total, total, 0))
    assert (row.counts, row.status) == (f"{total}/{total}", "done")


def test_a_loop_that_grows_has_a_line_each_time_it_doubles() -> None:
    stream = StringIO()
    lines = Lines(stream)
    for ended in range(17):
        lines.update(Row("each", total=ended + 5, ended=ended, growing=True))
    assert [line.split("  ")[-1] for line in stream.getvalue().splitlines()] == [
        f"{ended} so far" for ended in (0, 1, 2, 4, 8, 16)
    ]


def test_a_new_note_of_a_running_step_is_a_line_of_its_own() -> None:
    stream = StringIO()
    lines = Lines(stream)
    for note in (None, "waits for execution 1 (x)", "waits for execution 1 (x)"):
        lines.update(Row("sub", note=note))
    lines.update(Row("sub", "skipped"))
    lines.update(Row("sub", "skipped", note="not admitted"))
    assert stream.getvalue() == (
        "running   sub\nrunning   sub  waits for execution 1 (x)\nskipped   sub\n"
    )
