"""Looks on while an execution runs on the servers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from app.cli.progress import Progress, Row

if TYPE_CHECKING:
    from app.client import Client

#: Seconds between two looks: at first short, so that short executions show their steps.
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.5


def watch(client: Client, execution_id: str, shown: Progress) -> dict[str, Any]:
    """Show the steps until the execution has ended; its last status."""
    pause = FIRST_PAUSE
    while True:
        status = client.status(execution_id, variables=False)
        for step in status["steps"]:
            shown.update(row_of(step))
        if status["status"] != "RUNNING":
            return status
        time.sleep(pause)
        pause = min(pause * 1.3, LONGEST_PAUSE)


def row_of(step: dict[str, Any]) -> Row:
    """A step of a status as a row."""
    error = " ".join(step["error"].split()) if step.get("error") else None
    return Row(
        step["name"],
        step["status"],
        max(1, step["visit"]),
        step["total"],
        step["ended"],
        step["failed"],
        error,
    )


def steps_run(status: dict[str, Any]) -> int:
    """How many units of work ended, iterations counted one by one; visits before the last are not."""
    return sum(
        step["ended"] if step["total"] else step["status"] in {"done", "failed"}
        for step in status["steps"]
    )
