"""Whether the process lives, whether it can work, and what it counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.dependencies import MetricsDep
from app.api.problems import problem
from app.services.health import Check
from app.telemetry.metrics import CONTENT_TYPE
from app.version import software_version
from app.wire import CheckRow, Diagnosis, Readiness

router = APIRouter(tags=["health"])

#: Threads apart from those of other routes, which may all be waiting for a database that is away.
_PROBES = ThreadPoolExecutor(8, thread_name_prefix="probe")
_DOCTORS = ThreadPoolExecutor(2, thread_name_prefix="doctor")


@router.get("/livez")
async def live() -> dict[str, str]:
    """The process answers. Nothing it depends on is asked."""
    return {"status": "ok"}


@router.get("/health")
@router.get("/api/health")
async def healthy() -> dict[str, str]:
    """As ``/livez``, where existing dashboards look."""
    return {"status": "ok"}


@router.get("/readyz", response_model=Readiness)
async def ready(request: Request) -> Any:
    """Whether this process can serve; 503 names what keeps it from that and says what to do.

    200 with ``status: degraded`` where something else is wrong: taking requests away from this
    process would not make it better.
    """
    loop = asyncio.get_running_loop()
    checks: Sequence[Check] = await loop.run_in_executor(_PROBES, request.app.state.health.checks)
    failing = [check for check in checks if check.is_fatal]
    if not failing:
        well = all(check.ok for check in checks)
        return Readiness(status="ready" if well else "degraded", checks=_rows(checks))
    return problem(
        503,
        "unready",
        "; ".join(f"{check.name}: {check.message}" for check in failing),
        remedy="; ".join(check.remedy for check in failing if check.remedy) or None,
        headers={"retry-after": "1"},
        checks=[asdict(check) for check in checks],
    )


@router.get("/api/doctor", response_model=Diagnosis)
async def doctor(request: Request) -> Diagnosis:
    """What is wrong with the installation: its servers, processes and queues, and what to do."""
    loop = asyncio.get_running_loop()
    checks: Sequence[Check] = await loop.run_in_executor(_DOCTORS, request.app.state.examine)
    well = all(check.ok for check in checks)
    return Diagnosis(
        status="well" if well else "trouble", version=software_version(), checks=_rows(checks)
    )


def _rows(checks: Sequence[Check]) -> list[CheckRow]:
    return [CheckRow(**asdict(check)) for check in checks]


@router.get("/metrics")
def metrics(metrics: MetricsDep) -> Response:
    """Counters in Prometheus' text form."""
    return Response(metrics.exposition(), media_type=CONTENT_TYPE)
