"""Cursor loops: claims, frames, rows, and when the source has run dry."""

from __future__ import annotations

from typing import Any

import pytest

from app.engine.events import (
    ExecutionCompleted,
    ExecutionFailed,
    FrameOpened,
    LoopDone,
    LoopStarted,
    StepScheduled,
)
from tests.engine.driver import Failed, Run, playbook_of

TEXT = """
workload: {{pages: 3}}
workflow:
- step: start
  loop:
    cursor: {{kind: postgres, auth: db, claim: "SELECT {{{{ __frame_max_rows }}}}, {{{{ pages }}}}"}}
    iterator: row
    spec: {{mode: cursor, max_in_flight: {frames}, frame: {{{frame}}}}}
  tool: {{kind: noop}}
  next: {{arcs: [{{step: end, when: "{{{{ event.name == 'loop.done' }}}}"}}]}}
- {{step: end}}
"""


class Source:
    """What a table would give: *claims* lists of rows, then nothing."""

    def __init__(self, *claims: list[Any] | Failed) -> None:
        self.claims = list(claims)
        self.asked = 0

    def __call__(self, scheduled: StepScheduled) -> Any:
        if not scheduled.key.is_claim:
            return {"seen": scheduled.iteration}
        self.asked += 1
        rows = self.claims.pop(0) if self.claims else []
        return rows if isinstance(rows, Failed) else {"rows": rows}


def run_of(source: Source, *, frames: int = 1, frame: str = "max_rows: 2") -> Run:
    text = TEXT.format(frames=frames, frame=frame)
    return Run(playbook_of(text), source).begin()


def test_rows_are_claimed_until_there_are_none() -> None:
    run = run_of(Source(["a", "b"], ["c"])).finish()
    assert run.order() == [
        "start(claim 0)",
        "start[0]",
        "start[1]",
        "start(claim 1)",
        "start[2]",
        "start(claim 2)",
        "end",
    ]
    (done,) = run.of(LoopDone)
    assert (done.total, done.success, done.failed) == (3, 3, 0)
    assert isinstance(run.log[-1], ExecutionCompleted)


def test_an_empty_source_ends_the_loop_at_once() -> None:
    run = run_of(Source()).finish()
    assert run.of(LoopDone)[0].total == 0
    assert run.state.status == "completed"


def test_a_body_finds_its_row_by_event_and_place() -> None:
    run = run_of(Source(["a", "b"])).finish()
    bodies = [e for e in run.of(StepScheduled) if e.step == "start" and not e.key.is_claim]
    opened = run.of(FrameOpened)[0]
    assert [(body.loop_seq, body.item) for body in bodies] == [
        (opened.claim_seq, 0),
        (opened.claim_seq, 1),
    ]


def test_a_frame_can_be_one_piece_of_work() -> None:
    run = run_of(Source(["a", "b"], ["c"]), frame="max_rows: 2, process: frame").finish()
    bodies = [e for e in run.of(StepScheduled) if e.step == "start" and not e.key.is_claim]
    assert [(body.iteration, body.item) for body in bodies] == [(0, None), (1, None)]
    assert run.of(LoopDone)[0].total == 2


def test_rows_of_a_frame_run_as_row_concurrency_allows() -> None:
    run = run_of(Source(list("abcde")), frame="row_concurrency: 2")
    run.complete(run.out[0])
    run.decide()
    assert [str(out.key) for out in run.out] == ["start[0]", "start[1]"]


def test_frames_are_open_at_once_as_max_in_flight_allows() -> None:
    source = Source(["a"], ["b"], ["c"], ["d"])
    run = run_of(source, frames=3, frame="row_concurrency: 1")
    for _ in range(3):
        claim = next(out for out in run.out if out.key.is_claim)
        run.complete(claim)
        run.decide()
    assert source.asked == 3
    assert [str(out.key) for out in run.out] == ["start[0]", "start[1]", "start[2]"]


def test_rows_that_bodies_add_are_found() -> None:
    # The claim made while the first frame was open gives nothing; the one after it does.
    source = Source(["a"], [], ["b"], [])
    run = run_of(source, frames=2, frame="row_concurrency: 1")
    run.complete(run.out[0])
    run.decide()
    run.complete(next(out for out in run.out if out.key.is_claim))
    run.decide()
    assert [str(out.key) for out in run.out] == ["start[0]"]  # it waits for the frame
    run.finish()
    assert run.of(LoopDone)[0].total == 2


def test_a_claim_that_fails_fails_the_loop_and_no_other_follows() -> None:
    run = run_of(Source(["a"], Failed("no such table"))).finish()
    (done,) = run.of(LoopDone)
    assert (done.total, done.success, done.failed) == (1, 1, 0)
    assert "no such table" in done.error["message"]
    assert isinstance(run.log[-1], ExecutionCompleted)  # the arc names event.name


def test_a_claim_that_gives_no_rows_says_so() -> None:
    run = run_of(Source("text")).finish()  # type: ignore[arg-type]  # what a wrong claim gives
    assert "must give rows, not str" in run.of(LoopDone)[0].error["message"]


@pytest.mark.parametrize("frame", ["max_rows: '{{ none }}x'", "row_concurrency: '{{ 0 }}'"])
def test_a_frame_that_makes_no_sense_fails_the_step(frame: str) -> None:
    run = run_of(Source(), frame=frame)
    assert isinstance(run.log[-1], ExecutionFailed)
    assert "whole number" in run.log[-1].error["message"]


def test_frame_settings_may_be_templates() -> None:
    run = run_of(Source(), frame="max_rows: '{{ pages * 2 }}'")
    assert run.of(LoopStarted)[0].frame["max_rows"] == 6
