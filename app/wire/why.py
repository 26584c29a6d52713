"""Why an execution, or a step of one, stands where it stands, as answers show it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from app.wire.base import Id, Wire


class AttemptRow(Wire):
    """One attempt; ``outcome`` says how it ended, or scheduled, running or child while it has not."""

    attempt: int
    outcome: str
    queue: str = ""
    worker: str | None = None
    due: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    duration_ms: float | None = None
    error: str | None = None
    resumes: datetime | None = None
    child_execution_id: Id | None = None
    late: bool = False


class UnitRow(Wire):
    """The attempts of a step, or of one iteration of it (``iteration`` from 0, -1 outside loops)."""

    iteration: int
    attempts: list[AttemptRow]


class ReasonRow(Wire):
    """``code`` is for programs, ``because`` for people; ``needs_help``: it will not go on by itself."""

    code: str
    because: str
    remedy: str | None = None
    needs_help: bool = False


class StepWhyRow(Wire):
    """``error.rendered`` has the values that the failed task was given, secrets masked.

    ``written`` is that task as the playbook has it, ``tail`` the end of what was printed.
    """

    name: str
    status: str
    visit: int
    reason: ReasonRow
    units: list[UnitRow]
    error: dict[str, Any] | None = None
    written: Any = None
    tail: str | None = None


class WhyAnswer(Wire):
    """The reason for the whole execution first, then those of the steps that are not through."""

    execution_id: Id
    path: str
    version: int
    status: str
    reason: ReasonRow
    steps: list[StepWhyRow]
