"""The front door: what this is, and where to go from here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fastapi import APIRouter, Request

router = APIRouter(tags=["health"])


def software_version() -> str:
    """The version of this distribution; ``0`` where the code runs without having been installed."""
    try:
        return version("callboard")
    except PackageNotFoundError:
        return "0"


@router.get("/")
async def front(request: Request) -> dict[str, Any]:
    """Links to what a person would try first."""
    return {
        "name": "callboard",
        "version": request.app.version,
        "links": {
            "executions": "/api/executions",
            "catalog": "/api/catalog/list",
            "workers": "/api/worker/pools",
            "ready": "/readyz",
            "metrics": "/metrics",
            "openapi": "/api/openapi.json",
        },
    }


@router.get("/api/openapi.json", include_in_schema=False)
def openapi(request: Request) -> dict[str, Any]:
    """The API, described for programs."""
    schema: dict[str, Any] = request.app.openapi()
    return schema
