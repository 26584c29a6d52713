"""What workers and the control plane say to each other."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from app.wire.base import Id, Wire


class PointerWire(Wire):
    """A unit of work, as its message named it."""

    execution_id: int
    step: str
    visit: int
    iteration: int
    attempt: int


Stream = Literal["stdout", "stderr"]
#: Characters of one piece of output; workers make them much smaller.
LARGEST = 1_048_576


class LogChunk(PointerWire):
    """A piece of what an attempt printed. ``index`` counts from 0: sent twice, it is one."""

    index: int = Field(ge=0, lt=1 << 31)
    stream: Stream
    text: str = Field(max_length=LARGEST, repr=False)
    #: Seconds since the epoch, by the clock of the worker.
    at: float = Field(ge=0, le=4_102_444_800)


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


class KeychainPlan(Wire):
    """The keychain of a playbook as written, in order, and the workload that its templates name."""

    entries: list[dict[str, Any]]
    workload: dict[str, Any] = {}


class SecretRequest(PointerWire):
    """A worker asks for a credential that the playbook of its attempt names."""

    worker: str = Field(max_length=200)
    name: str = Field(min_length=1, max_length=200)


class SecretAnswer(Wire):
    """A credential with its fields in the clear: for the worker that asked, and nobody else."""

    name: str
    type: str
    data: dict[str, Any] = Field(repr=False)


class Variables(Wire):
    """The values that the templates of a step name, by layer (see ``engine.templates.scope``)."""

    workload: dict[str, Any] = {}
    results: dict[str, Any] = {}
    ctx: dict[str, Any] = {}
    local: dict[str, Any] = {}
    resume: Resume | None = None
    #: Where the item of a loop is, where it is too large to stand in ``local``.
    item: PartRef | None = None
    #: Given where the step's templates read the keychain.
    keychain: KeychainPlan | None = None
    #: Those of ``results`` that say which secrets they stand for, instead of what these are: by step
    #: the names of the tasks that looked them up; none where the result is one itself.
    secrets: dict[str, list[str]] = {}


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
    after ``retry_in`` seconds. Whoever sends an ``onward`` one would go on with the step that follows.
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
    onward: bool = False
    #: The last of what it printed, where that is little and nothing before it is on its way.
    output: list[LogChunk] = Field([], max_length=1000)


class ReportRequest(Wire):
    worker: str = Field(max_length=200)
    reports: list[Report] = Field(max_length=1000)


class Follows(Wire):
    """The step after the reported one, claimed for whoever reported: as if it had claimed *pointer*."""

    pointer: PointerWire
    claim: ClaimAnswer


class ReportAnswer(Wire):
    """Accepted (perhaps as a repetition), or refused because the attempt is no longer the current one."""

    accepted: bool
    duplicate: bool = False
    reason: str | None = None
    #: Given to an ``onward`` report alone.
    follows: Follows | None = None


class ReportResponse(Wire):
    answers: list[ReportAnswer]


class Serves(Wire):
    """What a worker can run: the kinds of tools it has, and the queues it listens to."""

    queues: list[str] = Field(max_length=100)
    tools: list[str] = Field(max_length=1000)


class Exchange(Wire):
    """Reports of what ended and claims of what comes next, settled in one commit.

    ``released`` came with one message and would have to wait there: they are sent again, each alone.
    What the worker ``serves`` is asked where a report is ``onward``; an older one does not say.
    """

    worker: str = Field(max_length=200)
    reports: list[Report] = Field(default=[], max_length=1000)
    claims: list[Claim] = Field(default=[], max_length=1000)
    released: list[PointerWire] = Field(default=[], max_length=1000)
    serves: Serves | None = None


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
