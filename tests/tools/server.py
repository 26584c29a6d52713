"""A real HTTP server with every kind of answer, in threads of the test's process."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


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
            "connection": self.client_address[1],
        }
        self.server.asked.append(self.asked)
        name, _, rest = parts.path.strip("/").partition("/")
        getattr(self, f"on_{name}", self.on_echo)(rest)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer_any  # noqa: N815 (the base class's names)

    def reply(
        self, status: int = 200, content: bytes = b"", kind: str = "text/plain", **headers: str
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def on_echo(self, _rest: str) -> None:
        self.reply(content=json.dumps(self.asked).encode(), kind="application/json")

    def on_status(self, rest: str) -> None:
        headers = {"Retry_After": "7"} if rest == "429" else {}
        self.reply(int(rest), b'{"why": "asked for"}', "application/json", **headers)

    def on_redirect(self, rest: str) -> None:
        self.reply(302, Location=rest if "://" in rest else f"/{rest}", Set_Cookie="seen=1; Path=/")

    def on_loop(self, _rest: str) -> None:
        self.reply(302, Location="/loop")

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

    def on_bomb(self, _rest: str) -> None:
        self.reply(content=gzip.compress(bytes(20_000_000)), Content_Encoding="gzip")

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


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
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
