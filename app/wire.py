"""What crosses HTTP: the models of requests and answers. Execution ids are text for clients,
because JSON numbers above 2^53 lose digits there; the worker protocol keeps them as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Id = Annotated[str, BeforeValidator(str)]


class Wire(BaseModel):
    """Base of all of them: unknown keys are ignored, so that older and newer sides understand each other."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


# ---------------------------------------------------------------------- workers
class PointerWire(Wire):
    """A unit of work, as its message named it."""

    execution_id: int
    step: str
    visit: int
    iteration: int
    attempt: int


class Claim(PointerWire):
    """A worker wants to run this attempt. ``key`` is unique per delivery, so a repeated claim is one."""

    key: str = Field(max_length=200)


class ClaimRequest(Wire):
    worker: str = Field(max_length=200)
    claims: list[Claim] = Field(max_length=1000)


class Variables(Wire):
    """The values that the templates of a step name, by layer (see ``engine.scope``)."""

    workload: dict[str, Any] = {}
    results: dict[str, Any] = {}
    ctx: dict[str, Any] = {}
    local: dict[str, Any] = {}


class ClaimAnswer(Wire):
    """Granted with everything needed to run, or refused with the reason; then the message is dropped."""

    granted: bool
    reason: str | None = None
    #: Key into ``ClaimResponse.steps``.
    step: str | None = None
    variables: Variables | None = None


class ClaimResponse(Wire):
    """One answer per claim, in order, and the steps they are about (JSON data of the YAML)."""

    answers: list[ClaimAnswer]
    steps: dict[str, dict[str, Any]] = {}


class Report(PointerWire):
    """How an attempt ended. ``retry_in`` seconds asks for another attempt instead of failing."""

    key: str = Field(max_length=200)
    outcome: Literal["done", "failed", "interrupted"]
    result: Any = None
    error: dict[str, Any] | None = None
    ctx: dict[str, Any] | None = None
    retry_in: float | None = None
    duration_ms: float | None = None
    tail: str | None = None


class ReportRequest(Wire):
    worker: str = Field(max_length=200)
    reports: list[Report] = Field(max_length=1000)


class ReportAnswer(Wire):
    """Accepted (perhaps as a repetition), or refused because the attempt is no longer the current one."""

    accepted: bool
    duplicate: bool = False
    reason: str | None = None


class ReportResponse(Wire):
    answers: list[ReportAnswer]


class Beat(Wire):
    """A sign of life of a process. ``running`` are the attempts it works on."""

    name: str = Field(max_length=200)
    kind: str = "worker_pool"
    status: str = "ready"
    uri: str = ""
    capacity: int | None = None
    labels: dict[str, Any] = {}
    runtime: dict[str, Any] = {}
    running: list[PointerWire] = []


class BeatAnswer(Wire):
    """``stop`` names those of ``running`` that were cancelled or given to others."""

    status: str
    name: str
    runtime_id: Id = ""
    stop: list[PointerWire] = []


# ---------------------------------------------------------------------- clients
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
