"""The middleware around everything: counts requests, and answers for errors nobody expected."""

from __future__ import annotations

import time
import uuid

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem
from app.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class Observe:
    """Plain ASGI, so that a request costs microseconds here."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, watched)
        except Exception as exc:
            # The last place that can still answer.
            incident = str(uuid.uuid4())
            log.exception("http.failed", path=scope["path"], incident=incident, exc_info=exc)
            if status:
                raise  # half an answer is out; only closing the connection tells the client
            await _unexpected(incident)(scope, receive, watched)
        finally:
            self._metrics.request(
                scope["method"], _route(scope), status, time.perf_counter() - started
            )


def _unexpected(incident: str) -> ASGIApp:
    return problem(
        500,
        "internal",
        "the server failed in a way nobody expected",
        remedy=f"look for the incident {incident} in the server's log, and report it",
        incident=incident,
    )


def _route(scope: Scope) -> str:
    """The route's template, never the path: paths hold ids, and each would be a time series."""
    route = scope.get("route")
    return getattr(route, "path", "unmatched")
