"""Looks on while an execution runs on the servers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from app.cli.notes import NOTHING, Notes, Told
from app.cli.progress import Progress, Row

if TYPE_CHECKING:
    from app.client import Client

#: Seconds between two looks: at first short, so that short executions show their steps.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5
#: From this pause on it is worth asking what steps wait for.
NOTED = 0.15


def watch(
    client: Client, execution_id: str, shown: Progress, *, notes: bool = True
) -> dict[str, Any]:
    """Show the steps until the execution has ended; its last status.

    With *notes* also what they wait for, once it has gone on for a while: that takes more reading.
    """
    pause = 0.0
    reading = Notes(client, execution_id)
    while True:
        asked = time.monotonic()
        # The server answers at once when it has ended.
        status = client.status(execution_id, variables=False, wait=pause)
        told = reading.of(status) if notes and pause >= NOTED else NOTHING
        for step in status["steps"]:
            shown.update(row_of(step, told))
        if status["status"] != "RUNNING":
            return status
        # One that knows no wait answers at once, too.
        time.sleep(max(0.0, asked + pause - time.monotonic()))
        pause = min(pause * 1.3, LONGEST_PAUSE) or FIRST_PAUSE


def row_of(step: dict[str, Any], told: Told = NOTHING) -> Row:
    """A step of a status as a row, with what is told about it."""
    error = " ".join(step["error"].split()) if step.get("error") else None
    return Row(
        step["name"],
        step["status"],
        step["visit"],
        step["total"],
        step["ended"],
        step["failed"],
        error,
        growing=step["name"] in told.growing,
        note=told.notes.get(step["name"]),
    )


def steps_run(status: dict[str, Any]) -> int:
    """How many units of work ended, iterations counted one by one; visits before the last are not."""
    return sum(
        step["ended"] if step["total"] else step["status"] in {"done", "failed"}
        for step in status["steps"]
    )
