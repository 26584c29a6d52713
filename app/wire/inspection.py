"""Replays and verifications as answers show them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from app.wire.base import Id, Wire


class ReplayChange(Wire):
    """``what`` (execution, step, loop, ctx, due or failed) of ``name`` became ``after``."""

    what: str
    name: str
    before: str | None = None
    after: str | None = None


class ReplayTurn(Wire):
    """An event, and what it changed in the state of its execution."""

    seq: int
    type: str
    at: datetime | None = None
    step: str | None = None
    visit: int | None = None
    iteration: int | None = None
    attempt: int | None = None
    changes: list[ReplayChange] = []


class ReplayPage(Wire):
    """Some turns; where ``more`` follow, ask again with ``after`` as ``next`` says."""

    execution_id: Id
    turns: list[ReplayTurn]
    next: int
    more: bool
    state: dict[str, Any] | None = None


class ReplayState(Wire):
    """The fold of an execution as of event ``at_seq``: where its values are, not the values."""

    execution_id: Id
    at_seq: int
    state: dict[str, Any]


class DiscrepancyRow(Wire):
    """One thing shown that is not what the log says; ``seq`` is the event that shows it, or 0."""

    code: str
    message: str
    seq: int = 0


class Verified(Wire):
    """How a comparison of everything shown with the log ended; ``events`` were read."""

    execution_id: Id
    path: str
    version: int
    status: str
    events: int
    ok: bool
    findings: list[DiscrepancyRow] = []
