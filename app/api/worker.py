"""Workers: claim and report attempts, and say that they live."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.access import Caller, CallerDep, caller_of
from app.api.bodies import Body, answer, parse, read_body, read_report, takes
from app.api.dependencies import ControlDep
from app.api.threads import in_thread
from app.engine.ports import RuntimeEntry
from app.errors import ForbiddenError
from app.services.control import Control
from app.wire import (
    Beat,
    BeatAnswer,
    ClaimRequest,
    ClaimResponse,
    Exchange,
    ExchangeAnswer,
    PoolAnswer,
    PoolHeartbeat,
    PoolList,
    PoolName,
    PoolRegistration,
    PoolRow,
    ReportRequest,
    ReportResponse,
    SecretAnswer,
    SecretRequest,
    TokenAnswer,
    TokenPut,
    TokenPutAnswer,
    TokenRequest,
    ValueRequest,
)

router = APIRouter(prefix="/api/worker", tags=["workers"])

WORKER_POOL = "worker_pool"


@router.post("/exchange", openapi_extra=takes(Exchange), response_model=ExchangeAnswer)
async def exchange(request: Request) -> Response:
    """Reports and claims together, in one commit: what workers use."""
    return await in_thread(_exchange, request, await read_report(request))


@router.post("/claim", openapi_extra=takes(ClaimRequest), response_model=ClaimResponse)
async def claim(request: Request) -> Response:
    """Grant or refuse each claim; a granted one comes with all it needs to run."""
    return await in_thread(_claim, request, await read_body(request))


@router.post("/report", openapi_extra=takes(ReportRequest), response_model=ReportResponse)
async def report(request: Request) -> Response:
    """Record how attempts ended. The same report twice is one."""
    return await in_thread(_report, request, await read_report(request))


@router.post("/values", openapi_extra=takes(ValueRequest), response_class=Response)
async def value(request: Request) -> Response:
    """The value that an attempt refers to, as JSON, or one item of a collection."""
    return await in_thread(_value, request, await read_body(request))


@router.post("/secret", openapi_extra=takes(SecretRequest), response_model=SecretAnswer)
def secret(body: Body, caller: CallerDep, control: ControlDep) -> Response:
    """A credential in the clear, for the worker of an attempt whose playbook names it."""
    told = answer(control.credentials.hand_out(parse(SecretRequest, body), pool=caller.pool))
    told.headers["cache-control"] = "no-store"
    return told


@router.post("/keychain/take", openapi_extra=takes(TokenRequest), response_model=TokenAnswer)
def take_token(body: Body, caller: CallerDep, control: ControlDep) -> Response:
    """The kept value of an entry of the keychain, or the turn to fetch it."""
    told = answer(control.tokens.take(parse(TokenRequest, body), pool=caller.pool))
    told.headers["cache-control"] = "no-store"
    return told


@router.post("/keychain/put", openapi_extra=takes(TokenPut), response_model=TokenPutAnswer)
def put_token(body: Body, caller: CallerDep, control: ControlDep) -> Response:
    """End the turn with the value that was fetched, or with nothing."""
    return answer(control.tokens.put(parse(TokenPut, body), pool=caller.pool))


# These are asked for most, and each dependency that the framework resolves costs 20 µs.
def _exchange(request: Request, body: bytes) -> Response:
    state = request.app.state
    control: Control = state.control
    given = parse(Exchange, body)
    response = control.work.exchange(given, pool=caller_of(request).pool)
    handed = (report.follows.claim for report in response.reports if report.follows)
    state.metrics.claimed([*response.claims, *handed])
    state.metrics.reported(given.reports, response.reports)
    return answer(response)


def _claim(request: Request, body: bytes) -> Response:
    state = request.app.state
    control: Control = state.control
    response = control.work.claim(parse(ClaimRequest, body), pool=caller_of(request).pool)
    state.metrics.claimed(response.answers)
    return answer(response)


def _report(request: Request, body: bytes) -> Response:
    state = request.app.state
    control: Control = state.control
    given = parse(ReportRequest, body)
    response = control.work.report(given, pool=caller_of(request).pool)
    state.metrics.reported(given.reports, response.answers)
    return answer(response)


def _value(request: Request, body: bytes) -> Response:
    control: Control = request.app.state.control
    text = control.work.value(parse(ValueRequest, body), pool=caller_of(request).pool)
    return Response(text, media_type="application/json")


@router.post("/beat", openapi_extra=takes(Beat), response_model=BeatAnswer)
def beat(body: Body, caller: CallerDep, control: ControlDep) -> Response:
    """A sign of life; the answer names the attempts to stop."""
    given = parse(Beat, body)
    labels = _own_labels(caller, control, given.kind, given.name, given.labels)
    return answer(control.presence.beat(given.model_copy(update={"labels": labels})))


@router.get("/pools", response_model=PoolList)
def pools(control: ControlDep, runtime: str | None = None, status: str | None = None) -> Response:
    """The worker processes that beat; *runtime* is the type they gave of themselves."""
    entries = [
        entry
        for entry in control.presence.entries(kind=WORKER_POOL, status=status)
        if runtime is None or entry.runtime.get("type") == runtime
    ]
    items = [_row(entry) for entry in entries]
    return answer(PoolList(items=items, count=len(items), runtime=runtime, status=status))


@router.post("/pool/register", openapi_extra=takes(PoolRegistration), response_model=PoolAnswer)
def register(body: Body, caller: CallerDep, control: ControlDep) -> Response:
    """Make a process known, or refresh what is known of it."""
    registration = parse(PoolRegistration, body)
    _register(caller, control, registration)
    entry = _known(control, registration.kind, registration.name)
    return answer(_answer("ok", registration, entry))


@router.post("/pool/heartbeat", openapi_extra=takes(PoolHeartbeat), response_model=PoolAnswer)
def heartbeat(body: Body, caller: CallerDep, control: ControlDep) -> Response:
    """A sign of life of a registered process; an unknown one is told so, or known again."""
    given = parse(PoolHeartbeat, body)
    known = _known(control, WORKER_POOL, given.name)
    if known is not None:
        labels = _own_labels(caller, control, known.kind, known.name, dict(known.labels))
        control.presence.beat(_beat_of(known, labels))
        return answer(PoolAnswer(status="ok", name=known.name, runtime_id=str(known.runtime_id)))
    if given.registration is None:
        return answer(PoolAnswer(status="unknown", name=given.name))
    registration = given.registration.model_copy(update={"name": given.name})
    _register(caller, control, registration)
    return answer(
        _answer("recreated", registration, _known(control, registration.kind, given.name))
    )


@router.delete("/pool/deregister", openapi_extra=takes(PoolName), response_model=PoolAnswer)
@router.post("/pool/deregister", openapi_extra=takes(PoolName), response_model=PoolAnswer)
def deregister(body: Body, caller: CallerDep, control: ControlDep) -> Response:
    """Forget a process that stops in good order."""
    given = parse(PoolName, body)
    _own_labels(caller, control, given.kind, given.name, {})
    known = control.presence.leave(given.kind, given.name)
    return answer(PoolAnswer(status="ok" if known else "unknown", name=given.name, kind=given.kind))


def _own_labels(
    caller: Caller, control: Control, kind: str, name: str, labels: dict[str, Any]
) -> dict[str, Any]:
    """*labels* with the pool that the caller's token is for. Raises ``ForbiddenError`` for another's.

    Without this one pool could keep the leases of another one's dead workers alive.
    """
    if caller.pool is None:
        return labels
    known = _known(control, kind, name)
    owner = known.labels.get("pool", caller.pool) if known else caller.pool
    if kind != WORKER_POOL or owner != caller.pool or labels.get("pool", owner) != owner:
        raise ForbiddenError(
            f"this token is for workers of the pool {caller.pool!r}",
            remedy="use the token of the worker's own pool",
        )
    return {**labels, "pool": owner}


def _known(control: Control, kind: str, name: str) -> RuntimeEntry | None:
    return next((e for e in control.presence.entries(kind=kind) if e.name == name), None)


def _register(caller: Caller, control: Control, registration: PoolRegistration) -> None:
    labels = _own_labels(
        caller, control, registration.kind, registration.name, dict(registration.labels or {})
    )
    described = {
        "type": registration.runtime,
        "pid": registration.pid,
        "hostname": registration.hostname,
    }
    runtime = {name: value for name, value in described.items() if value is not None}
    control.presence.beat(
        Beat(
            name=registration.name,
            kind=registration.kind,
            status=registration.status,
            uri=registration.uri or "",
            capacity=registration.capacity,
            labels=labels,
            runtime={**(registration.meta or {}), **runtime},
        )
    )


def _beat_of(entry: RuntimeEntry, labels: dict[str, Any]) -> Beat:
    return Beat(
        name=entry.name,
        kind=entry.kind,
        status=entry.status,
        uri=entry.uri,
        capacity=entry.capacity,
        labels=labels,
        runtime=dict(entry.runtime),
    )


def _answer(status: str, registration: PoolRegistration, entry: RuntimeEntry | None) -> PoolAnswer:
    return PoolAnswer(
        status=status,
        name=registration.name,
        runtime_id=str(entry.runtime_id) if entry else None,
        kind=registration.kind,
        runtime=registration.runtime,
    )


def _row(entry: RuntimeEntry) -> PoolRow:
    return PoolRow(
        name=entry.name,
        kind=entry.kind,
        runtime=dict(entry.runtime),
        runtime_id=str(entry.runtime_id),
        uri=entry.uri,
        status=entry.status,
        capacity=entry.capacity,
        labels=dict(entry.labels),
        heartbeat=entry.heartbeat,
        created_at=entry.created_at,
        updated_at=entry.updated_at,
    )
