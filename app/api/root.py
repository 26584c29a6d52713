"""The front door: what this is, and where to go from here."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from app.settings import Settings

router = APIRouter(tags=["health"])


LINKS = {
    "executions": "/api/executions",
    "catalog": "/api/catalog/list",
    "workers": "/api/worker/pools",
    "ready": "/readyz",
    "metrics": "/metrics",
    "openapi": "/api/openapi.json",
}


@router.get("/", response_model=None)
async def front(request: Request) -> Response | dict[str, Any]:
    """Links to what a person would try first; a page for browsers, where pages are served."""
    settings: Settings = request.app.state.settings
    if settings.enable_ui and "text/html" in request.headers.get("accept", ""):
        return HTMLResponse(_page(request.app.version))
    return {"name": "callboard", "version": request.app.version, "links": LINKS}


def _page(release: str) -> str:
    # The catalog is listed by POST, which a link cannot do.
    items = [(name, path) for name, path in LINKS.items() if name != "catalog"]
    links = "".join(f'<li><a href="{path}">{name}</a></li>' for name, path in items)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Callboard</title>"
        f"<h1>Callboard {release}</h1><ul>{links}</ul>"
    )


@router.get("/api/openapi.json", include_in_schema=False)
def openapi(request: Request) -> dict[str, Any]:
    """The API, described for programs."""
    schema: dict[str, Any] = request.app.openapi()
    return schema
