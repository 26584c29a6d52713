"""Executions, their events and results as answers show them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from app.wire.base import Id, Wire


class Execute(Wire):
    """Start a playbook. ``payload`` overrides top-level workload keys; ``input``, ``workload``: the same."""

    path: str | None = None
    catalog_id: Id | None = None
    version: int | Literal["latest"] | None = None
    payload: dict[str, Any] | None = None
    workload: dict[str, Any] | None = None
    input: dict[str, Any] | None = None
    parent_execution_id: Id | None = None

    @property
    def values(self) -> Mapping[str, Any]:
        return {**(self.workload or {}), **(self.input or {}), **(self.payload or {})}


class Started(Wire):
    execution_id: Id
    status: str = "started"
    commands_generated: int = 0
    path: str = ""
    version: int = 0
    catalog_id: Id = ""


class ExecutionRow(Wire):
    """One execution in a list. ``status`` is RUNNING, COMPLETED, FAILED or CANCELLED."""

    execution_id: Id
    catalog_id: Id
    path: str
    version: int
    status: str
    start_time: datetime
    end_time: datetime | None = None
    duration_seconds: float
    duration_human: str
    progress: int = 0
    result: Any = None
    error: str | None = None
    parent_execution_id: Id | None = None
    #: Since when it is paused; None where it is not.
    paused_at: datetime | None = None


class EventRow(Wire):
    """An event. ``event_type`` is in NoETL's vocabulary, ``type`` in ours; ``duration`` in seconds.

    ``result`` is ``{status, context: {data}}``, or ``{status, reference}`` where it is kept by
    reference; all other fields of the event are in ``context``.
    """

    execution_id: Id
    event_id: int
    event_type: str
    type: str
    seq: int
    node_id: str
    node_name: str
    status: str
    created_at: datetime | None = None
    timestamp: datetime | None = None
    context: dict[str, Any] = {}
    result: dict[str, Any] | None = None
    error: str | None = None
    catalog_id: Id
    parent_execution_id: Id | None = None
    parent_event_id: int | None = None
    duration: float | None = None
    step: str | None = None
    visit: int | None = None
    iteration: int | None = None
    attempt: int | None = None
    worker: str | None = None


class Pagination(Wire):
    page: int
    page_size: int
    total_events: int
    total_pages: int
    has_next: bool
    has_prev: bool


class ExecutionDetail(ExecutionRow):
    """An execution with a page of its events. ``retry_of`` is the one whose work it took over."""

    retry_of: Id | None = None
    events: list[EventRow] = []
    events_included: bool = True
    events_endpoint: str = ""
    pagination: Pagination | None = None


class ExecutionEvents(Wire):
    execution_id: Id
    status: str
    events: list[EventRow]
    pagination: Pagination


class StepRow(Wire):
    """A step; ``status`` is pending, waiting, running, done, failed, skipped or cancelled.

    ``total``, ``ended`` and ``failed`` count the iterations of a loop, and are 0 elsewhere.
    """

    name: str
    status: str
    visit: int = 0
    total: int = 0
    ended: int = 0
    failed: int = 0
    error: str | None = None


class ExecutionStatus(Wire):
    """Where an execution stands. As in NoETL, ``completed`` is true of a cancelled one too.

    Variables above a few KiB are shown as ``{"_truncated": true, "_size_bytes"}`` unless ``?full=true``.
    """

    execution_id: Id
    status: str
    path: str
    version: int
    catalog_id: Id
    current_step: str | None
    final_step: str | None
    completed_steps: list[str]
    failed: bool
    completed: bool
    completion_inferred: bool = False
    variables: dict[str, Any] = {}
    steps: list[StepRow]
    source: str = "engine"
    start_time: datetime
    end_time: datetime | None = None
    duration_seconds: float
    duration_human: str
    error: str | None = None
    paused_at: datetime | None = None
    retry_of: Id | None = None


class StepResult(Wire):
    """The result of a step, read through its reference where it has one."""

    execution_id: Id
    step: str
    status: str
    result: Any


class ResultOutline(Wire):
    """What a result is like. ``ref`` stands for one that is kept outside its event.

    ``store`` is log, kv, disk, s3, gcs, azure or memory. ``size_bytes`` is of its JSON, null for a
    loop, whose results are put together when they are asked for.
    """

    step: str
    status: str
    visit: int = 1
    ref: str | None = None
    store: str
    size_bytes: int | None = None
    preview: Any = None


class ResultList(Wire):
    execution_id: Id
    results: list[ResultOutline]
    count: int


class Cancel(Wire):
    reason: str | None = None
    cascade: bool = True


class Cancelled(Wire):
    """``status`` is cancelled or already_completed."""

    status: str
    execution_id: Id
    cancelled_executions: list[Id] = []
    message: str


class Pause(Wire):
    """``cascade``: also the executions below it. ``reason`` is kept in the log."""

    reason: str | None = None
    cascade: bool = True


class Paused(Wire):
    """``status`` is paused or running; ``executions`` are those that this call changed."""

    status: str
    execution_id: Id
    executions: list[Id] = []
    message: str


class Retry(Wire):
    """Try again what failed, or everything from ``step`` on, with another ``version`` if named."""

    step: str | None = None
    version: int | Literal["latest"] | None = None


class Rerun(Wire):
    version: int | Literal["latest"] | None = None


class Retried(Wire):
    """``status`` is started (``execution_id`` is the new one) or resent (it is the one that runs)."""

    status: str
    execution_id: Id
    retry_of: Id | None = None
    path: str = ""
    version: int = 0
    message: str


class CancellationCheck(Wire):
    execution_id: Id
    status: str
    event_type: str | None
    cancelled: bool
    completed: bool
    failed: bool
