"""Loops over what a cursor claims, and what makes a loop."""

from __future__ import annotations

import pytest

from app.engine.playbook import Cursor, Frame, Loop, Task
from app.engine.templates.analysis import Needs
from tests.engine.language.parsing import step_of

TOOL = "tool: {kind: noop}\n"
CURSOR = "{kind: postgres, auth: pg, claim: 'take {{ __frame_max_rows }} of {{ source }}'}"


def loop(text: str) -> Loop:
    read = step_of(f"{TOOL}loop:\n  {text}")
    assert read.loop is not None
    return read.loop


def test_a_cursor_claims_with_a_task_of_its_own() -> None:
    read = loop(f"{{cursor: {CURSOR}, iterator: row, spec: {{mode: cursor, max_in_flight: 100}}}}")
    config = {"auth": "pg", "command": "take {{ __frame_max_rows }} of {{ source }}"}
    task = Task("claim", "postgres", config)
    assert read == Loop(None, "row", parallel=True, max_in_flight=100, cursor=Cursor(task, Frame()))


def test_options_and_other_keys_of_a_cursor_are_the_tools_own() -> None:
    read = loop("{cursor: {kind: postgres, claim: x, options: {schema: s, pool: a}, pool: b}}")
    assert read.cursor is not None
    assert read.cursor.task.config == {"schema": "s", "pool": "b", "command": "x"}


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ("{}", Frame(100, None, True, 1)),
        (
            "{max_rows: '5', row_concurrency: 2, process: frame, max_attempts: 3}",
            Frame(5, 2, False, 3),
        ),
        ("{max_rows: '{{ n }}', row_concurrency: '{{ m }}'}", Frame("{{ n }}", "{{ m }}", True, 1)),
        (
            "{max_seconds: 30, lease_seconds: 5m, heartbeat_seconds: 2, max_bytes: 9, process: row}",
            Frame(),
        ),
        (
            "{verify_ipc: true, retry_mode: whole_frame}",
            Frame(),
        ),
        ("{max_seconds: '{{ n }}', verify_ipc: '{{ v }}', retry_mode: '{{ r }}'}", Frame()),
    ],
)
def test_frames(frame: str, expected: Frame) -> None:
    read = loop(f"{{cursor: {CURSOR}, spec: {{mode: cursor, frame: {frame}}}}}")
    assert read.cursor is not None
    assert read.cursor.frame == expected


def test_a_worker_needs_what_the_claim_and_the_frame_name() -> None:
    frame = "{max_rows: '{{ workload.rows }}', max_attempts: '{{ frame.x }}{{ tries }}'}"
    read = step_of(
        f"tool: {{kind: http, url: '{{{{ host }}}}'}}\n"
        f"loop: {{cursor: {CURSOR}, spec: {{frame: {frame}}}}}"
    )
    assert read.needs == Needs(frozenset({"source", "tries", "host"}), frozenset({"rows"}))
