"""A real server of the Model Context Protocol: strict about sessions, or a plain JSON-RPC one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("add", "fail", "say")]
INFO = {
    "protocolVersion": "2025-03-26",
    "serverInfo": {"name": "test", "version": "1"},
    "capabilities": {"tools": {}},
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        """Nothing: the tests look at what was asked themselves."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append(
            {**body, "headers": headers, "query": parse_qs(parts.query), "path": parts.path}
        )
        mode = parts.path.strip("/")
        if mode.startswith("redirect/"):
            self.send(307, Location=mode.removeprefix("redirect/"))
        elif mode.startswith("status/"):
            self.send(int(mode.removeprefix("status/")), b'{"why": "asked for"}', Retry_After="3")
        elif mode.startswith("raw/"):
            self.raw(mode.removeprefix("raw/"), body)
        elif mode == "picky" and body["method"] != "initialize":
            self.send(400, b"not like this")
        elif mode == "picky":
            self.answer({**body, "method": "error/-32601"})
        elif mode == "strict":
            self.strict(body, headers)
        else:
            self.answer(body, stream=mode == "stream")

    def do_DELETE(self) -> None:
        self.server.sessions.discard(self.headers["mcp-session-id"])
        self.server.ended.append(self.headers["mcp-session-id"])
        self.send(204)

    def strict(self, body: dict[str, Any], headers: dict[str, str]) -> None:
        """Sessions: opened by initialize, confirmed by the notification, and forgotten at times."""
        session = headers.get("mcp-session-id")
        if body["method"] == "initialize":
            session = f"session-{len(self.server.asked)}"
            self.server.sessions.add(session)
            self.answer(body, Mcp_Session_Id=session)
        elif session is None:
            self.send(400, b'{"jsonrpc": "2.0", "error": {"code": -32000}, "id": null}')
        elif session not in self.server.sessions:
            self.send(404)
        elif body["method"].startswith("notifications/"):
            self.server.confirmed.add(session)
            self.send(202)
        elif session not in self.server.confirmed:
            self.send(400)
        elif self.server.forgetful and "cursor" in body["params"]:
            self.server.forgetful = False
            self.server.sessions.clear()
            self.send(404)
        else:
            self.answer(body, stream=True)

    def raw(self, what: str, body: dict[str, Any]) -> None:
        """Answers that are wrong in a way of their own."""
        number = body.get("id")
        content, kind = {
            "nojson": (b"{nope", "application/json"),
            "list": (b"[]", "application/json"),
            "other": (b'{"jsonrpc": "2.0", "id": 999, "result": {}}', "application/json"),
            "nothing": (b'{"jsonrpc": "2.0", "id": %d}' % (number or 0), "application/json"),
            "badstream": (b"data: {nope\n\n", "text/event-stream"),
            "silent": (b": nothing but a comment\n\n", "text/event-stream"),
            "half": (b'data: {"jsonrpc": "2.0", "id": 1, "result": {}}', "text/event-stream"),
            "text": (b'{"jsonrpc": "2.0", "id": null, "error": "plain text"}', "application/json"),
        }[what]
        self.send(200, content, Content_Type=kind)

    def answer(self, body: dict[str, Any], *, stream: bool = False, **headers: str) -> None:
        if "id" not in body:
            self.send(202)
            return
        reply = {"jsonrpc": "2.0", "id": body["id"]}
        params = body.get("params", {})
        reply |= self.outcome(body["method"], params)
        text = json.dumps(reply)
        if not stream:
            self.send(200, text.encode(), Content_Type="application/json; charset=utf-8", **headers)
            return
        # Two lines of one event, between others: a notification, a request of the server's own.
        half = text.index('"id"')
        note = json.dumps({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}})
        ping = json.dumps({"jsonrpc": "2.0", "id": body["id"], "method": "ping"})
        events = (
            f": hello\r\n\r\nevent: message\ndata: {note}\n\nid: 7\rdata:{ping}\r\r"
            f"data: {text[:half]}\r\ndata: {text[half:]}\r\n\r\ndata: {{nope\n\n"
        )
        self.send(200, events.encode(), Content_Type="text/event-stream", **headers)

    def outcome(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if method == "initialize":
            return {"result": INFO}
        if method == "tools/list":
            begin = int(params.get("cursor", 0))
            more = {"nextCursor": str(begin + 1)} if begin + 1 < len(TOOLS) else {}
            return {"result": {"tools": TOOLS[begin : begin + 1], **more}}
        if method == "tools/call":
            return self.call(params["name"], params["arguments"])
        if method == "resources/read":
            return {"result": {"contents": [{"uri": params["uri"], "text": "hi"}]}}
        if method == "echo/params":
            return {"result": params}
        if method == "plain/text":
            return {"result": "text"}
        if method.startswith("error/"):
            code = int(method.removeprefix("error/"))
            return {"error": {"code": code, "message": "it went wrong", "data": {"why": 1}}}
        return {"error": {"code": -32601, "message": f"no method {method}"}}

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if name == "add":
            total = arguments["a"] + arguments["b"]
            content = [{"type": "text", "text": json.dumps({"sum": total})}]
            return {"result": {"content": content, "structuredContent": {"sum": total}}}
        if name == "say":
            texts = arguments.get("words", ["hello", "you"])
            return {"result": {"content": [{"type": "text", "text": text} for text in texts]}}
        if name == "paint":
            return {"result": {"content": [{"type": "image", "data": "aGk=", "mimeType": "x/y"}]}}
        if name == "fail":
            content = [{"type": "text", "text": "the disk is full"}]
            return {"result": {"content": content, "isError": True}}
        if name == "wait":
            self.server.hung.set()
            self.server.stop.wait(60)
            return {"result": {}}
        return {"error": {"code": -32602, "message": f"unknown tool {name}"}}

    def send(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.sessions: set[str] = set()
        self.confirmed: set[str] = set()
        self.ended: list[str] = []
        self.forgetful = False
        self.hung = threading.Event()
        self.stop = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def methods(self) -> list[str]:
        return [asked["method"] for asked in self.asked]

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
