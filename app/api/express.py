"""The shortest way to the routes that are asked for most."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.access import authorise
from app.api.problems import on_error
from app.errors import CallboardError


class Express:
    """Calls the endpoints of *routes* without the framework's layers, each of which takes its microseconds.

    They take nothing but the request and answer with a response; what stands before and behind every
    route, ``authorise`` and errors as documents, is here. The routes stay what describes them.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._routes = {
            ("http", method, route.path): route
            for route in routes
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = scope["type"], scope.get("method", ""), scope.get("path", "")
        route = self._routes.get(place)
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
