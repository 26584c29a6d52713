"""A server that answers as the examples of the documentation expect theirs to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

ITEMS = [{"id": number} for number in range(1, 8)]
PAGE = 3
#: How often ``/flaky`` is busy before it answers.
BUSY = 2


class Handler(BaseHTTPRequestHandler):
    """``/items?page=1``: three items a page; ``/flaky``: busy at first."""

    server: Api

    def log_message(self, *_: object) -> None:
        """Nothing: nobody looks at what was asked."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/flaky":
            self.server.asked += 1
            busy = self.server.asked <= BUSY
            self.answer(503 if busy else 200, {"busy": busy})
        elif parts.path == "/items":
            page = int(parse_qs(parts.query)["page"][0])
            items = ITEMS[(page - 1) * PAGE : page * PAGE]
            self.answer(200, {"items": items, "more": page * PAGE < len(ITEMS)})
        else:
            self.answer(404, {"error": f"there is no {parts.path}"})

    def answer(self, status: int, data: object) -> None:
        content = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Api(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def api() -> Iterator[str]:
    """Base URL of a fresh server."""
    with Api() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.url
        server.shutdown()
        thread.join()
