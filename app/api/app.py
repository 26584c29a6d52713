"""Puts the routes together on the use cases it is given."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from app.api import (
    artifacts,
    catalog,
    credentials,
    dashboard,
    events,
    execute,
    executions,
    inspect,
    interventions,
    keychain,
    logs,
    problems,
    results,
    retention,
    root,
    variables,
    why,
    worker,
)
from app.api import health as probes
from app.api.access import Access, authorise
from app.api.admission import Admission
from app.api.bodies import Limits
from app.api.express import Express
from app.api.observe import Observe
from app.services.control import Control
from app.services.health import Check, Doctor, Health
from app.settings import Settings
from app.telemetry.metrics import Metrics
from app.version import software_version

#: What is asked for at each step, and at each start.
MOST_ASKED = (worker.router, worker.exchange), (execute.router, execute.execute)

__all__ = ["Check", "Health", "create_app"]


def create_app(
    control: Control,
    settings: Settings,
    *,
    health: Health,
    doctor: Doctor | None = None,
    metrics: Metrics | None = None,
) -> FastAPI:
    """The control plane's API. Without a *doctor* ``/api/doctor`` says what readiness does.

    *metrics* may have been counting elsewhere in the process already.
    """
    app = FastAPI(
        title="Callboard",
        version=software_version(),
        # Deny by default: it stands before every route that is or will be added.
        dependencies=[Depends(authorise)],
        # The framework's own pages would not pass through it.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.control = control
    app.state.settings = settings
    app.state.health = health
    app.state.examine = doctor.examine if doctor else health.checks
    app.state.metrics = metrics or Metrics()
    app.state.access = Access(settings)
    app.state.limits = Limits.of(settings)
    app.state.metrics.watch_executions(control.executions.count_by_status)
    app.add_middleware(Express, endpoints=MOST_ASKED)
    app.add_middleware(Admission, most=settings.api_requests)
    app.add_middleware(Observe, metrics=app.state.metrics)
    problems.install(app)
    # Routes are tried in this order; those of workers are asked for most.
    for noun in (
        worker,
        logs,
        execute,
        retention,
        executions,
        interventions,
        events,
        results,
        artifacts,
        catalog,
        credentials,
        inspect,
        why,
        keychain,
        variables,
        dashboard,
        probes,
        root,
    ):
        app.include_router(noun.router)
    app.include_router(executions.alias)
    return app
