"""The shortest way to the routes that are asked for most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.access import authorise
from app.api.problems import on_error
from app.errors import CallboardError


class Express:
    """Calls *endpoints*, each of a router, without the framework's layers, each of which takes its time.

    They take nothing but the request and answer with a response; what stands before and behind every
    route, ``authorise`` and errors as documents, is here. The routes stay what describes them.
    """

    def __init__(
        self, app: ASGIApp, *, endpoints: Sequence[tuple[APIRouter, Callable[..., object]]]
    ) -> None:
        self._app = app
        routes = [
            route
            for router, endpoint in endpoints
            for route in router.routes
            if isinstance(route, APIRoute) and route.endpoint is endpoint
        ]
        #: By kind of connection, method and path.
        self.routes = {
            ("http", method, route.path): route
            for route in routes
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = scope["type"], scope.get("method", ""), scope.get("path", "")
        route = self.routes.get(place)
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive)
        try:
            await authorise(request)
            response = await route.endpoint(request)
        except CallboardError as error:
            response = await on_error(request, error)
        await response(scope, receive, send)
