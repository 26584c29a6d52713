"""Processes, counts and readiness as answers show them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AliasChoices, Field

from app.wire.base import Id, Wire


class PoolRegistration(Wire):
    """A process that works for a pool, as NoETL's workers announce themselves."""

    name: str = Field(min_length=1, max_length=200)
    kind: str = Field("worker_pool", validation_alias=AliasChoices("kind", "component_type"))
    runtime: str | None = None
    uri: str | None = Field(None, validation_alias=AliasChoices("uri", "base_url"))
    status: str = "ready"
    capacity: int | None = Field(None, ge=0)
    labels: dict[str, Any] | None = None
    pid: int | None = None
    hostname: str | None = None
    meta: dict[str, Any] | None = None


class PoolHeartbeat(Wire):
    """A sign of life; with ``registration`` a process that was forgotten is known again."""

    name: str = Field(min_length=1, max_length=200)
    registration: PoolRegistration | None = None


class PoolName(Wire):
    name: str = Field(min_length=1, max_length=200)
    kind: str = Field("worker_pool", validation_alias=AliasChoices("kind", "component_type"))


class PoolAnswer(Wire):
    """``status`` is ok, recreated or unknown."""

    status: str
    name: str
    runtime_id: Id | None = None
    kind: str | None = None
    runtime: str | None = None


class PoolRow(Wire):
    name: str
    kind: str
    runtime: dict[str, Any]
    runtime_id: Id
    uri: str
    status: str
    capacity: int | None
    labels: dict[str, Any]
    heartbeat: datetime | None
    created_at: datetime | None
    updated_at: datetime | None


class PoolList(Wire):
    items: list[PoolRow]
    count: int
    runtime: str | None = None
    status: str | None = None


class Stats(Wire):
    """Counts for dashboards; ``stats`` repeats them with those by status."""

    status: str = "ok"
    stats: dict[str, int]
    total_executions: int
    successful_executions: int
    failed_executions: int
    total_playbooks: int
    active_workflows: int


class CheckRow(Wire):
    """One thing that work depends on; ``remedy`` says what to do where it is not ok.

    Of the severity ``warning`` it does not keep the process that was asked from serving.
    """

    name: str
    ok: bool
    message: str = ""
    remedy: str | None = None
    severity: Literal["error", "warning"] = "error"


class Readiness(Wire):
    status: Literal["ready", "degraded", "unready"]
    checks: list[CheckRow]


class Diagnosis(Wire):
    """What the doctor found. ``version`` is that of the server that was asked."""

    status: Literal["well", "trouble"]
    version: str
    checks: list[CheckRow]
