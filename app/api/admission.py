"""As many requests at once as this process can work on; more are told at once to come again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import of_error
from app.errors import UnavailableError

log = structlog.get_logger(__name__)

#: Asked for when everything else stands still.
PROBES = frozenset({"/livez", "/readyz", "/health", "/api/health", "/metrics"})
_ASIDE = "callboard.aside"


def aside(scope: Scope) -> AbstractContextManager[None]:
    """Meanwhile this request only waits, and counts for nothing."""
    admission: Callable[[], AbstractContextManager[None]] = scope.get(_ASIDE, nullcontext)
    return admission()


class Admission:
    """Answers 503 with Retry-After beyond *most* requests in progress.

    Without a bound they would wait for threads and connections, each for longer than its client
    does, and work would be done for nobody. Plain ASGI, so that a request costs a comparison here.
    """

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most
        self._count = 0
        self._told = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _costs_nothing(scope):
            await self._app(scope, receive, send)
        elif self._count >= self._most:
            await self._refuse(scope, receive, send)
        else:
            self._count += 1
            scope[_ASIDE] = self._aside
            try:
                await self._app(scope, receive, send)
            finally:
                self._count -= 1
                self._told = self._told and self._count > self._most // 2

    @contextmanager
    def _aside(self) -> Iterator[None]:
        self._count -= 1
        try:
            yield
        finally:
            self._count += 1

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._told:
            # Once an onslaught, not once a request.
            log.warning("http.overloaded", requests=self._count)
            self._told = True
        error = UnavailableError(
            f"this server works on {self._count} requests already",
            remedy="come again later; if it stays so, start more web processes",
        )
        await of_error(error)(scope, receive, send)


def _costs_nothing(scope: Scope) -> bool:
    path: str = scope["path"]
    # Whoever follows the output of steps waits for most of the time, and holds nothing.
    return path in PROBES or (scope["method"] == "GET" and path.endswith("/logs"))
