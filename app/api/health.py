"""Whether the process lives, whether it can work, and what it counted."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from app.api.dependencies import MetricsDep
from app.api.problems import problem
from app.services.health import Health
from app.telemetry.metrics import CONTENT_TYPE
from app.wire import CheckRow, Readiness

router = APIRouter(tags=["health"])


async def _health(request: Request) -> Health:
    health: Health = request.app.state.health
    return health


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
def ready(health: Annotated[Health, Depends(_health)]) -> Any:
    """Every dependency works; 503 names those that do not and says what to do."""
    checks = health.checks()
    failing = [check for check in checks if not check.ok]
    if not failing:
        rows = [CheckRow(**asdict(check)) for check in checks]
        return Readiness(status="ready", checks=rows)
    return problem(
        503,
        "unready",
        "; ".join(f"{check.name}: {check.message}" for check in failing),
        remedy="; ".join(check.remedy for check in failing if check.remedy) or None,
        headers={"retry-after": "1"},
        checks=[asdict(check) for check in checks],
    )


@router.get("/metrics")
def metrics(metrics: MetricsDep) -> Response:
    """Counters in Prometheus' text form."""
    return Response(metrics.exposition(), media_type=CONTENT_TYPE)
