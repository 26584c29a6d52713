"""What steps wait for, and why some were skipped, as the log of their execution tells it."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from app.cli.events import events_of

if TYPE_CHECKING:
    from app.client import Client

#: Sub-playbooks that are asked for at once; of more, the rest is only counted.
MOST_CHILDREN = 500

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to say beside a status: ``notes`` by step, and ``growing``, the loops whose
    total nobody knows yet (those of a cursor)."""

    notes: Mapping[str, str] = field(default_factory=dict)
    growing: Collection[str] = ()


NOTHING = Told()


class Notes:
    """Reads the notes of one execution; asked again, it reads only what is new."""

    def __init__(self, client: Client, execution_id: str) -> None:
        self._client = client
        self._id = execution_id
        #: By type of event: those read, the newest of each unit of work, and the last seq of them.
        self._found: dict[str, dict[tuple[str, int], Event]] = {}
        self._last: dict[str, int] = {}

    def of(self, status: Mapping[str, Any]) -> Told:
        """The notes that go with *status*, an answer of ``Client.status``."""
        visits = {step["name"]: step["visit"] for step in status["steps"]}
        standing: dict[str, set[str]] = {}
        for step in status["steps"]:
            standing.setdefault(step["status"], set()).add(step["name"])
        notes = dict(self._skipped(standing.get("skipped", set()), visits))
        running = standing.get("running", set())
        if status["status"] != "RUNNING" or not running:
            return Told(notes)
        notes |= self._later(running, visits)
        notes |= self._children(running, visits)
        counted = {step["name"] for step in status["steps"] if step["total"]}
        return Told(notes, self._growing(running & counted, visits))

    def reason(self) -> str | None:
        """Why the execution was cancelled, where somebody said so."""
        for event in self._newest("execution.cancelled").values():
            reason = event["context"].get("reason")
            return str(reason) if reason else None
        return None

    # ------------------------------------------------------------------ kinds of notes
    def _skipped(
        self, steps: Collection[str], visits: Mapping[str, int]
    ) -> Iterator[tuple[str, str]]:
        for event in self._newest("step.skipped").values() if steps else ():
            if event["step"] in steps and event["visit"] == visits[event["step"]]:
                yield event["step"], event["context"]["reason"]

    def _later(
        self, steps: Collection[str], visits: Mapping[str, int]
    ) -> Iterator[tuple[str, str]]:
        """Steps that wait for a time: between two attempts, or inside one."""
        now = time.time()
        for type_, key in (("step.parked", "resume_at"), ("attempt.failed", "retry_at")):
            for event in self._of_now(type_, steps, visits):
                at = event["context"].get(key) or 0
                if event["iteration"] == -1 and at > now:
                    failed = f"attempt {event['attempt']} failed: {event['error']}; "
                    told = f"waits until {datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"
                    yield event["step"], (failed if event["error"] else "") + told

    def _children(
        self, steps: Collection[str], visits: Mapping[str, int]
    ) -> Iterator[tuple[str, str]]:
        called = {
            str(event["context"]["child_execution_id"]): event
            for event in self._of_now("child.started", steps, visits)
            if event["context"]["waits"]
        }
        if not called:
            return
        rows = self._client.executions(
            parent_execution_id=self._id, status="RUNNING", limit=MOST_CHILDREN
        )
        waiting: dict[str, list[str]] = {}
        for row in reversed(rows):  # the oldest first: it is the one to look at
            event = called.get(row["execution_id"])
            if event is not None:
                told = f"{row['execution_id']} ({row['path']})"
                waiting.setdefault(event["step"], []).append(told)
        for step, children in waiting.items():
            least = "at least " if len(rows) == MOST_CHILDREN else ""
            more = f" and {least}{len(children) - 1} more" if len(children) > 1 else ""
            yield step, f"waits for execution {children[0]}{more}"

    def _growing(self, steps: Collection[str], visits: Mapping[str, int]) -> frozenset[str]:
        if not steps:
            return frozenset()
        found = self._of_now("loop.started", steps, visits)
        return frozenset(event["step"] for event in found if event["context"].get("frame"))

    # ------------------------------------------------------------------ reading
    def _of_now(
        self, type_: str, steps: Collection[str], visits: Mapping[str, int]
    ) -> Iterator[Event]:
        """The newest event of each unit of work in the current visits of *steps*."""
        for event in self._newest(type_).values():
            if event["step"] in steps and event["visit"] == visits[event["step"]]:
                yield event

    def _newest(self, type_: str) -> Mapping[tuple[str, int], Event]:
        found = self._found.setdefault(type_, {})
        for event in events_of(self._client, self._id, type_, self._last.get(type_, 0)):
            found[event["step"] or "", event["iteration"] or 0] = event
            self._last[type_] = event["seq"]
        return found
