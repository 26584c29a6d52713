"""``nats``: key-value buckets, object stores, streams and messages of a NATS server.

The server is named by ``url`` or a credential: the one that the Callboard servers use themselves is
never meant unless it is named, and its streams are refused even then. Buckets are made where they
are missing, unless ``create: false``. What JetStream is sent carries ``Nats-Msg-Id``, the same for
every attempt, so that a repeated attempt publishes nothing twice within the stream's window.
"""

from __future__ import annotations

from typing import Any

import nats.errors

from app.errors import ToolError
from app.tools import Context, Tool
from app.tools.auth import resolve
from app.tools.bus.connections import Connected, connections
from app.tools.bus.errors import classify
from app.tools.bus.messages import CORE, STREAMS
from app.tools.bus.request import Input
from app.tools.bus.servers import Server, check_place, password_in, server_of
from app.tools.bus.stores import KEYS, OBJECTS
from app.tools.times import seconds

DEFAULT_TIMEOUT = 30.0
#: Seconds that ``js_consume`` waits for messages where it is not told.
CONSUME = 5.0
#: Seconds after its timeout at which an operation is broken off from outside.
GRACE = 0.2

_WORK = {**KEYS, **OBJECTS, **STREAMS, **CORE}


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{status: success | not_found, …}`` with what the operation gives."""
    work, needs = _WORK[request.operation]
    for name in needs:
        if not getattr(request, name):
            raise ToolError(f"{request.operation} needs {name}", kind="schema")
    server = server_named(request, context)
    wanted = request.timeout or (request.timeout_ms and request.timeout_ms / 1000)
    consumes = request.operation == "js_consume"
    limit = seconds(wanted, CONSUME if consumes else DEFAULT_TIMEOUT, most=context.timeout)

    async def doing(connected: Connected) -> dict[str, Any]:
        try:
            return await work(request, connected, context, limit)
        except (nats.errors.TimeoutError, nats.errors.NoRespondersError, TimeoutError):
            if request.subject and connected.denied(request.subject):
                raise nats.errors.AuthorizationError from None
            raise

    try:
        # The requests themselves end in time; this is for what forgets to. To wait for messages in
        # vain is no timeout: the rest of that work has time of its own.
        most = limit + (CONSUME if consumes else GRACE)
        return connections.run(server, doing, context, most)
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as exc:
        # Without the cause: nats-py's may hold the URL.
        raise classify(exc, server, request.operation) from None


def server_named(request: Input, context: Context) -> Server:
    """The server of *request*; its secrets are masked from now on."""
    own = request.model_dump(include={"url", "user", "password", "token", "creds", "nkey"})
    given = {name: value for name, value in own.items() if value is not None}
    fields = resolve(request.auth, context) if request.auth else {}
    secret = [given[name] for name in ("password", "token", "creds", "nkey") if name in given]
    if inside := password_in(request.url):
        secret.append(inside)
    context.secrets.conceal(*secret)
    server = server_of({**fields, **given})
    check_place(server, context.settings)
    return server


tool = Tool("nats", input=Input, run=run, queue="io")
