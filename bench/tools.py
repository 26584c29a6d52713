"""What a tool costs beyond the work it is asked for: python, http and postgres, each beside the bare call.

python -m bench.tools [--calls 300]

The tool and the bare call take turns in one process, so that a noisy moment hits both. ``over`` is
the median of the one less the median of the other; for python the program itself says how long it
took.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg

from app.embedded.stack import EmbeddedStack
from app.settings import load
from app.tools import Context, load_tool

CODE = """
import time
began = time.perf_counter()
total = sum(range(1000))
return time.perf_counter() - began
"""
#: Seconds between two calls, as the report of one step and the claim of the next put between them.
PAUSE = 0.01
#: Milliseconds that each may take beyond the bare call, at the median.
GOALS = {"python": 1.5, "http": 1.5, "postgres": 1.0}


@dataclass(frozen=True, slots=True)
class Case:
    """``call`` uses the tool, ``bare`` does the same without; each gives what it took in seconds."""

    kind: str
    call: Callable[[], float]
    bare: Callable[[], float]


def overheads(calls: int = 300) -> list[dict[str, Any]]:
    """For each tool ``{kind, calls, p50_ms, bare_p50_ms, over_ms, goal_ms}``."""
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="bench-tools-")))
        folder.chmod(0o755)  # steps of root run as users of their own
        servers = exits.enter_context(EmbeddedStack(folder / "servers"))
        url = exits.enter_context(_served())
        connection = exits.enter_context(psycopg.connect(servers.database_url, autocommit=True))
        bare = exits.enter_context(closing(http.client.HTTPConnection("127.0.0.1", _port(url))))
        context = Context(1, "bench", 1, -1, 1, load({}, home=folder).settings, 60.0, folder / "w")
        return [
            _measured(case, calls)
            for case in (
                _python(context),
                _http(context, url, bare),
                _postgres(context, servers.database_url, connection),
            )
        ]


def _measured(case: Case, calls: int) -> dict[str, Any]:
    for _ in range(10):
        case.call(), case.bare()
    taken, bare = [], []
    for _ in range(calls):
        time.sleep(PAUSE)
        taken.append(case.call() * 1000)
        time.sleep(PAUSE)
        bare.append(case.bare() * 1000)
    p50, without = statistics.median(taken), statistics.median(bare)
    return {
        "kind": case.kind,
        "calls": calls,
        "p50_ms": p50,
        "bare_p50_ms": without,
        "over_ms": p50 - without,
        "goal_ms": GOALS[case.kind],
    }


def _python(context: Context) -> Case:
    use = _user("python", {"code": CODE}, context)
    own = [0.0]

    def call() -> float:
        seconds, result = use()
        own[0] = float(result)
        return seconds

    return Case("python", call, lambda: own[0])


def _http(context: Context, url: str, connection: http.client.HTTPConnection) -> Case:
    use = _user("http", {"url": url}, context)

    def bare() -> float:
        began = time.perf_counter()
        connection.request("GET", "/")
        json.loads(connection.getresponse().read())
        return time.perf_counter() - began

    return Case("http", lambda: use()[0], bare)


def _postgres(context: Context, url: str, connection: psycopg.Connection[Any]) -> Case:
    use = _user("postgres", {"auth": {"url": url}, "query": "select 1 as a"}, context)

    def bare() -> float:
        began = time.perf_counter()
        connection.execute("select 1 as a").fetchall()
        return time.perf_counter() - began

    return Case("postgres", lambda: use()[0], bare)


def _user(kind: str, config: dict[str, Any], context: Context) -> Callable[[], tuple[float, Any]]:
    """What calls the tool as a worker does, and says the seconds and the result."""
    tool = load_tool(kind)

    def use() -> tuple[float, Any]:
        began = time.perf_counter()
        result = tool.run(tool.input.model_validate(config), context)
        return time.perf_counter() - began, result

    return use


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Otherwise the answer's head waits for its body to be acknowledged.
    wbufsize = -1

    def do_GET(self) -> None:
        body = b'{"ok": true}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class says so)
        """A line per request would be measured, too."""


@contextmanager
def _served() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def _port(url: str) -> int:
    return int(url.rsplit(":", 1)[1].rstrip("/"))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures as a Markdown table, in milliseconds."""
    lines = ["| tool | p50 | bare p50 | over | goal |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        figures = f"{row['p50_ms']:.2f} | {row['bare_p50_ms']:.2f} | {row['over_ms']:.2f}"
        lines.append(f"| {row['kind']} | {figures} ms | ≤ {row['goal_ms']:g} ms |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tools",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--calls", type=int, default=300, help="calls of each tool")
    print(table(overheads(parser.parse_args(arguments).calls)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
