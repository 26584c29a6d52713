"""What crosses HTTP: the models of requests and answers. Execution ids are text for clients,
because JSON numbers above 2^53 lose digits there; the worker protocol keeps them as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

Id = Annotated[str, BeforeValidator(str)]


class Wire(BaseModel):
    """Base of all of them: unknown keys are ignored, so that older and newer sides understand each other."""

    # Built on first use: a run without servers never needs most of them.
    model_config = ConfigDict(extra="ignore", populate_by_name=True, defer_build=True)


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


class PartRef(Wire):
    """Item ``index`` of the value that ``ref`` (noetl://…) stands for."""

    ref: str
    index: int


class ValueRequest(PointerWire):
    """A worker asks for a value that its attempt refers to, or for one item of a collection."""

    ref: str = Field(max_length=4096)
    item: int | None = Field(None, ge=0)


class Resume(Wire):
    """Where a parked attempt goes on: its own progress, and what it waited for."""

    progress: dict[str, Any]
    #: None where it waited for a time only.
    child: dict[str, Any] | None = None


class Variables(Wire):
    """The values that the templates of a step name, by layer (see ``engine.templates.scope``)."""

    workload: dict[str, Any] = {}
    results: dict[str, Any] = {}
    ctx: dict[str, Any] = {}
    local: dict[str, Any] = {}
    resume: Resume | None = None
    #: Where the item of a loop is, where it is too large to stand in ``local``.
    item: PartRef | None = None


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
    """How an attempt ended. ``retry_in`` seconds asks for another attempt instead of failing.

    ``selected`` are the parts that the reference of a large result shall tell.
    A parked one goes on from ``progress`` when the sub-playbook ``call`` has ended, or without one
    after ``retry_in`` seconds.
    """

    key: str = Field(max_length=200)
    outcome: Literal["done", "failed", "interrupted", "parked"]
    progress: dict[str, Any] | None = None
    call: dict[str, Any] | None = None
    result: Any = None
    selected: dict[str, Any] | None = None
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


class Exchange(Wire):
    """Reports of what ended and claims of what comes next, settled in one commit."""

    worker: str = Field(max_length=200)
    reports: list[Report] = Field(default=[], max_length=1000)
    claims: list[Claim] = Field(default=[], max_length=1000)


class ExchangeAnswer(Wire):
    """One answer per report and per claim, each in order; ``steps`` as in ``ClaimResponse``."""

    reports: list[ReportAnswer] = []
    claims: list[ClaimAnswer] = []
    steps: dict[str, dict[str, Any]] = {}


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


class FindingRow(Wire):
    """One thing about a playbook; ``line`` and ``column`` count from 1, 0 means unknown.

    ``severity`` is error, warning or info; ``path`` leads to the key, with dots between its parts.
    """

    code: str
    severity: str = "error"
    message: str
    line: int = 0
    column: int = 0
    path: str = ""
    suggestion: str | None = None


class Registered(Wire):
    """A resource was stored as a new version of its path."""

    status: str = "success"
    message: str
    path: str
    version: int
    catalog_id: Id
    kind: str
    warnings: list[FindingRow] = []


class CatalogQuery(Wire):
    """What to list: the newest version of every path, or every version of ``path``."""

    resource_type: str | None = None
    path: str | None = None


class ResourceQuery(Wire):
    """One resource, by id or by path and version (default: the newest)."""

    catalog_id: Id | None = None
    path: str | None = None
    version: int | Literal["latest"] | None = None


class CatalogRow(Wire):
    """A registered resource; ``content`` only where one resource was asked for."""

    catalog_id: Id
    path: str
    version: int
    kind: str
    content: str | None = None
    layout: dict[str, Any] | None = None
    payload: dict[str, Any] | None = None
    meta: dict[str, Any] = {}
    created_at: datetime


class CatalogList(Wire):
    entries: list[CatalogRow]


class Checked(Wire):
    """Whether a playbook could be registered, and everything there is to say about it."""

    valid: bool
    findings: list[FindingRow] = []


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
    """An execution with a page of its events."""

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


class CancellationCheck(Wire):
    execution_id: Id
    status: str
    event_type: str | None
    cancelled: bool
    completed: bool
    failed: bool


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
    """One thing readiness depends on; ``remedy`` says what to do where it is not ok."""

    name: str
    ok: bool
    message: str = ""
    remedy: str | None = None


class Readiness(Wire):
    status: Literal["ready", "unready"]
    checks: list[CheckRow]


# ---------------------------------------------------------------------- inspection
class Explained(Wire):
    """The plan of a playbook: as data, as text for people, and as a Mermaid flowchart."""

    plan: dict[str, Any]
    text: str
    mermaid: str


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
