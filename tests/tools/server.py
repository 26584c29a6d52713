"""A real HTTP server with every kind of answer, in threads of the test's process."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zlib import compress

#: 20 MB in 20 KB.
BOMB = gzip.compress(bytes(20_000_000))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        # Otherwise the second small write of an answer waits 40 ms for the client's ACK.
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests look at what was asked themselves."""

    def answer_any(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(size)
        parts = urlsplit(self.path)
        self.asked = {
            "method": self.command,
            "path": parts.path,
            "query": parse_qs(parts.query),
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": body.decode("utf-8", "replace"),
            "raw": base64.b64encode(body).decode(),
            "connection": self.client_address[1],
        }
        self.server.asked.append(self.asked)
        name, _, rest = parts.path.strip("/").partition("/")
        getattr(self, f"on_{name}", self.on_echo)(rest)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = answer_any  # noqa: N815 (the base class's names)

    def reply(
        self, status: int = 200, content: bytes = b"", kind: str = "text/plain", **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def on_echo(self, _rest: str) -> None:
        self.reply(content=json.dumps(self.asked).encode(), kind="application/json")

    def on_status(self, rest: str) -> None:
        headers = {"Retry_After": "7"} if rest == "429" else {}
        self.reply(int(rest), b'{"why": "asked for"}', "application/json", **headers)

    def on_redirect(self, rest: str) -> None:
        self.reply(302, Location=rest if "://" in rest else f"/{rest}", Set_Cookie="seen=1; Path=/")

    def on_later(self, rest: str) -> None:
        """429 with a date to come back at."""
        when = datetime.now(UTC) + timedelta(seconds=int(rest))
        self.reply(429, Retry_After=format_datetime(when, usegmt=True))

    def on_flaky(self, rest: str) -> None:
        """503 with Retry-After for the first request, and then what was asked for."""
        first = sum(1 for asked in self.server.asked if "flaky" in asked["path"]) == 1
        if first:
            self.reply(503, Retry_After=rest)
        else:
            self.on_echo(rest)

    def on_moved(self, rest: str) -> None:
        """Redirects with the status asked for."""
        status, _, place = rest.partition("/")
        self.reply(int(status), Location=place if "://" in place else f"/{place}")

    def on_nowhere(self, _rest: str) -> None:
        self.reply(302)

    def on_loop(self, _rest: str) -> None:
        self.reply(302, Location="/loop")

    def on_page(self, rest: str) -> None:
        """What the test put there: a content type and bytes."""
        kind, content = self.server.pages[rest]
        self.reply(content=content, kind=kind)

    def on_text(self, _rest: str) -> None:
        self.reply(content="grüße".encode("latin-1"), kind="text/plain; charset=latin-1")

    def on_binary(self, _rest: str) -> None:
        self.reply(content=b"\xff\x00\xfe", kind="application/octet-stream")

    def on_nojson(self, _rest: str) -> None:
        self.reply(content=b"{nope", kind="application/json")

    def on_empty(self, _rest: str) -> None:
        self.reply(content=b"", kind="application/json")

    def on_gzip(self, _rest: str) -> None:
        self.reply(
            content=gzip.compress(b'{"a": 1}'), kind="application/json", Content_Encoding="gzip"
        )

    def on_deflate(self, _rest: str) -> None:
        self.reply(
            content=compress(b'{"a": 1}'), kind="application/json", Content_Encoding="deflate"
        )

    def on_badgzip(self, _rest: str) -> None:
        self.reply(content=b"no gzip at all", Content_Encoding="gzip")

    def on_large(self, rest: str) -> None:
        """So many bytes in chunks, each a KiB of the letter x."""
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(int(rest) // 1024):
            self.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def on_wrong(self, rest: str) -> None:
        """400 with so many bytes of explanation."""
        self.reply(400, b"x" * int(rest))

    def on_bomb(self, _rest: str) -> None:
        self.reply(content=BOMB, Content_Encoding="gzip")

    def on_chunked(self, _rest: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in (b"one ", b"two"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        self.wfile.write(b"0\r\n\r\n")

    def on_hang(self, _rest: str) -> None:
        self.server.hung.set()
        self.server.stop.wait(60)
        self.close_connection = True

    def on_drip(self, _rest: str) -> None:
        """Always a byte more, soon: only a deadline for the whole answer ends this."""
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.server.hung.set()
        while not self.server.stop.wait(0.02):
            try:
                self.wfile.write(b".")
            except OSError:
                break
        self.close_connection = True

    def on_cut(self, _rest: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"short")
        self.close_connection = True

    def on_slam(self, _rest: str) -> None:
        self.close_connection = True

    def on_reset(self, _rest: str) -> None:
        """A reset in the middle of the body."""
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"short")
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def on_garbage(self, _rest: str) -> None:
        self.wfile.write(b"this is no HTTP\r\n\r\n")
        self.close_connection = True

    def on_once(self, _rest: str) -> None:
        """An answer after which the server hangs up without saying so."""
        self.reply(content=b"once")
        self.close_connection = True


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.hung = threading.Event()
        self.stop = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a client that hangs up is what the tests are about."""


@contextmanager
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.stop.set()
            server.shutdown()
            thread.join()
