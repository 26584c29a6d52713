"""``http``: one request, and its answer as data.

An answer outside 2xx fails the step; what it said is kept with the error. Every method but the safe
ones carries an ``Idempotency-Key`` that is the same for every attempt. Proxies of the environment
are not used, cookies last for one request with its redirects. Where requests may go is the matter of
``web.policy``.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from app.tools import Context, Tool
from app.tools.web.answer import kept, payload, receive
from app.tools.web.exchange import exchange, without_login
from app.tools.web.input import Input
from app.tools.web.request import build
from app.tools.web.status import failure


def run(request: Input, context: Context) -> dict[str, Any]:
    """``{status_code, headers, url, elapsed, data, body}``: ``elapsed`` in seconds, ``data`` and
    ``body`` both the payload (JSON data, text, base64 text with ``encoding: base64``, or the
    reference to a file)."""
    started = time.perf_counter()
    asked = build(request, context)
    to_file = request.save_as is not None or request.response_type == "file"
    with ExitStack() as held:
        with exchange(asked.message, context, asked.manner) as response:
            body = receive(response, context, held, to_file=to_file and response.is_success)
        result: dict[str, Any] = {
            "status_code": response.status_code,
            "headers": dict(response.headers),
            "url": without_login(response.url),
            "elapsed": round(time.perf_counter() - started, 6),
        }
        extra: dict[str, Any] = {}
        if body.file is not None:
            data = kept(body, response, request.save_as, context)
        else:
            wanted = None if request.response_type in {"auto", "file"} else request.response_type
            data, extra = payload(body, response, wanted)
    if body.is_cut:
        extra["truncated"] = True
    result |= {"data": data, "body": data, **extra}
    if not response.is_success:
        raise failure(asked.message, response, result)
    return result


tool = Tool("http", input=Input, run=run, queue="io")
