"""Our client against the real server, and against servers that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.api.app import Check
from app.client import Client, error_of
from app.client.connections import Connections, NotConnectedError
from app.errors import (
    BadRequestError,
    CallboardError,
    ConflictError,
    ForbiddenError,
    InvalidPlaybookError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from app.wire import Beat, Claim, ClaimRequest, Exchange, Report, ReportRequest
from tests.api.plane import CHAIN, Plane, build, served


def claim_of(pointer: dict[str, Any]) -> ClaimRequest:
    return ClaimRequest(worker="w", claims=[Claim(**pointer, key="c")])


def test_the_life_of_an_execution(plane: Plane, client: Client) -> None:
    assert client.register(CHAIN).version == 2
    assert client.catalog_list()[0]["version"] == 2
    assert client.catalog_get("tests/chain", version=1)["content"] == CHAIN
    assert client.validate(CHAIN) == {"valid": True, "findings": []}

    started = client.execute("tests/chain", {"greeting": "hi"})
    plane.control.advance.advance(int(started.execution_id))
    (pointer,) = plane.pointers()
    claim = client.claim(claim_of(pointer))
    assert claim.answers[0].variables is not None
    assert claim.answers[0].variables.workload == {"greeting": "hi"}
    report = Report(**pointer, key="r", outcome="done", result={"rows": [1, None, "ü"]})
    for duplicate in (False, True):
        answer = client.report(ReportRequest(worker="w", reports=[report])).answers[0]
        assert (answer.accepted, answer.duplicate) == (True, duplicate)

    again = Exchange(worker="w", reports=[report], claims=[Claim(**pointer, key="c")])
    exchanged = client.exchange(again)
    assert (exchanged.reports[0].duplicate, exchanged.claims[0].granted) == (True, False)

    beat = Beat(name="w", labels={"pool": "default"}, running=[Claim(**pointer, key="c")])
    assert [p.step for p in client.beat(beat).stop] == []
    assert [pool["name"] for pool in client.pools()] == ["w"]
    assert client.leave("worker_pool", "w") is True
    assert client.leave("worker_pool", "w") is False

    execution_id = started.execution_id
    assert client.result(execution_id, "start") == {"rows": [1, None, "ü"]}
    assert client.status(execution_id, variables=False)["status"] == "RUNNING"
    assert client.execution(execution_id, include_events=False)["events"] == []
    assert [e["type"] for e in client.events(execution_id, since_seq=3)] == ["step.done"]
    assert client.executions(status="RUNNING", limit=1)[0]["execution_id"] == execution_id
    assert client.stats()["active_workflows"] == 1
    assert client.cancel(execution_id, reason="enough")["status"] == "cancelled"
    assert client.cancel(execution_id)["status"] == "already_completed"


def test_problems_come_back_as_the_errors_they_were(client: Client) -> None:
    with pytest.raises(NotFoundError, match="there is no execution 404") as missing:
        client.status(404)
    assert missing.value.remedy
    with pytest.raises(InvalidPlaybookError) as invalid:
        client.register(CHAIN.replace("kind: noop", "kind: nope"))
    assert invalid.value.findings[0].line > 0
    assert client.validate(CHAIN.replace("kind: noop", "kind: nope"))["valid"] is False
    with pytest.raises(BadRequestError, match="page_size"):
        client.executions(page_size=0)


def test_tokens_are_sent() -> None:
    plane = build(api_token="t-client", worker_tokens="default=t-worker")
    with served(plane.app) as url:
        with Client(url, "t-client") as client:
            assert client.executions() == []
        with Client(url) as nobody, pytest.raises(UnauthorizedError):
            nobody.executions()
        with Client(url, "t-worker") as worker:
            assert worker.claim(ClaimRequest(worker="w", claims=[])).answers == []
            with pytest.raises(ForbiddenError):
                worker.executions()


def test_health_tells_both_ways(plane: Plane, client: Client) -> None:
    assert client.health()["status"] == "ready"
    plane.health.failing = [Check("nats", ok=False, message="refused", remedy="start it")]
    health = client.health()
    assert health["status"] == "unready"
    assert [c["remedy"] for c in health["checks"] if not c["ok"]] == ["start it"]


def test_many_threads_share_a_client_and_its_connections(plane: Plane, client: Client) -> None:
    execution_id = plane.started()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: client.status(execution_id)["status"], range(64)))
    assert set(found) == {"RUNNING"}


def test_a_body_above_the_limit_is_refused_and_not_repeated() -> None:
    plane = build(playbook_bytes=1000)
    with served(plane.app) as url, Client(url) as client:
        with pytest.raises(BadRequestError, match="larger than"):
            client.register("# " + "x" * 200_000)
        assert client.executions() == []


# ---------------------------------------------------------------------- servers that misbehave
class Script:
    """What a server answers, in turn: a status, or None to hang up; then 200 for ever."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes] | None) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str]] = []
        self.times: list[float] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()

    def next(
        self, method: str, path: str, key: str | None = None
    ) -> tuple[int, dict[str, str], bytes] | None:
        with self.lock:
            self.requests.append((method, path))
            self.keys.append(key)
            self.times.append(time.monotonic())
            return self.answers.pop(0) if self.answers else (200, {}, b'{"answers": []}')


@contextmanager
def scripted(script: Script, port: int = 0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", "0")))
            answer = script.next(self.command, self.path, self.headers.get("idempotency-key"))
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 (the name http.server calls)

        def log_message(self, *_: object) -> None:
            """Nothing: the test looks at the script."""

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


EMPTY = ClaimRequest(worker="w", claims=[])
AWAY = (503, {"retry-after": "0"}, b"")


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([AWAY, AWAY], id="unavailable"),
        pytest.param([(502, {}, b"<html>"), (504, {}, b"")], id="a proxy without its server"),
        pytest.param([(200, {}, b'{"answers": []}'), None, None], id="broken connections"),
    ],
)
def test_claims_and_reports_are_repeated(answers: list[Any]) -> None:
    for call in ("claim", "report"):
        script = Script(*answers)
        with scripted(script) as url, Client(url) as client:
            if None in answers:
                client.claim(EMPTY)
            if call == "claim":
                assert client.claim(EMPTY).answers == []
            else:
                assert client.report(ReportRequest(worker="w", reports=[])).answers == []
        assert len(script.requests) == len(answers) + 1


def test_no_sooner_than_the_server_asks() -> None:
    script = Script((503, {"retry-after": "1"}, b""))
    with scripted(script) as url, Client(url) as client:
        client.claim(EMPTY)
    assert script.times[1] - script.times[0] >= 1.0


def test_no_longer_than_patience_lasts() -> None:
    script = Script(*[(503, {"retry-after": "9"}, b"")] * 3)
    with scripted(script) as url, Client(url, patience=5) as client:
        with pytest.raises(UnavailableError) as caught:
            client.claim(EMPTY)
        assert caught.value.retry_after == 9
    assert len(script.requests) == 1


def test_what_may_not_happen_twice_is_sent_once() -> None:
    for answer in (AWAY, None):
        script = Script((200, {}, b"{}"), answer)
        with scripted(script) as url, Client(url) as client:
            client.stats()
            with pytest.raises(UnavailableError):
                client.register("kind: Playbook")
        assert Counter(script.requests)["POST", "/api/catalog/register"] == 1


def test_a_start_is_repeated_under_one_key() -> None:
    started = b'{"execution_id": "7", "path": "p", "version": 1, "catalog_id": "1"}'
    for answer in (AWAY, None):
        script = Script((200, {}, b"{}"), answer, (200, {}, started))
        with scripted(script) as url, Client(url) as client:
            client.stats()
            assert client.execute("p").execution_id == "7"
        (first, second) = script.keys[1:]
        assert first == second is not None


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500])
def test_other_errors_are_not_repeated(status: int) -> None:
    script = Script((status, {}, b""))
    refused = pytest.raises(CallboardError, match=str(status))
    with scripted(script) as url, Client(url) as client, refused:
        client.claim(EMPTY)
    assert len(script.requests) == 1


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_where_nobody_listens_it_says_so_at_once_and_what_to_do() -> None:
    url = f"http://127.0.0.1:{closed_port()}"
    with Client(url, patience=20) as client:
        started = time.monotonic()
        for call in (client.health, client.stats, lambda: client.execute("p")):
            with pytest.raises(UnavailableError, match=f"no Callboard API at {url}") as caught:
                call()
            assert "callboard up" in str(caught.value.remedy)
        assert time.monotonic() - started < 5


def test_a_server_that_was_there_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, call = threading.Semaphore(0), Connections.call

    def counted(*args: Any, **named: Any) -> Any:
        try:
            return call(*args, **named)
        except NotConnectedError:
            refused.release()
            raise

    monkeypatch.setattr(Connections, "call", counted)
    before, after = Script((200, {"connection": "close"}, b'{"answers": []}')), Script()
    with scripted(before) as url:
        client = Client(url, patience=60)
        client.claim(EMPTY)
    with client, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.claim, EMPTY)
        assert all(refused.acquire(timeout=20) for _ in range(2))
        with scripted(after, int(url.rpartition(":")[2])):
            assert waiting.result(timeout=30).answers == []
    assert (len(before.requests), len(after.requests)) == (1, 1)


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        given_up = pytest.raises(UnavailableError, match="did not answer in time")
        with Client(url, timeout=0.2) as client, given_up:
            client.stats()


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'"x"', b""])
def test_something_else_behind_the_url(body: bytes) -> None:
    script = Script(*[(200, {}, body)] * 3)
    with scripted(script) as url, Client(url) as client:
        for call in (client.stats, lambda: client.claim(EMPTY), client.health):
            with pytest.raises(CallboardError):
                call()


@pytest.mark.parametrize("url", ["localhost:8082", "ftp://x", "", "http://"])
def test_a_wrong_url_is_refused(url: str) -> None:
    with pytest.raises(BadRequestError, match="not the URL of an API"):
        Client(url)


@pytest.mark.parametrize("suffix", ["", "/", "/api", "/api/"])
def test_forms_of_the_url(suffix: str) -> None:
    script = Script()
    with scripted(script) as url, Client(f"{url}{suffix}") as client:
        client.claim(EMPTY)
    assert script.requests == [("POST", "/api/worker/claim")]


def test_a_path_in_the_url_is_kept() -> None:
    script = Script()
    with scripted(script) as url, Client(f"{url}/behind/proxy") as client:
        client.claim(EMPTY)
    assert script.requests == [("POST", "/behind/proxy/api/worker/claim")]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (409, b'{"detail": "d", "code": "duplicate"}', ConflictError),
        (413, b'{"detail": "d", "code": "too_large"}', BadRequestError),
        (404, b'{"detail": "d"}', NotFoundError),
        (500, b'{"detail": "d", "code": "internal"}', CallboardError),
        (503, b'{"detail": "d", "code": "unavailable"}', UnavailableError),
        (401, b"", UnauthorizedError),
        (400, b'{"detail": ["not text"]}', BadRequestError),
    ],
)
def test_codes_and_statuses(status: int, body: bytes, kind: type[CallboardError]) -> None:
    error = error_of(status, body, {})
    assert type(error) is kind
    assert error.message in {"d", f"the server answered {status}"}


def test_a_result_that_is_not_json_is_refused_before_it_is_sent(
    plane: Plane, client: Client
) -> None:
    plane.started()
    (pointer,) = plane.pointers()
    report = Report(**pointer, key="r", outcome="done", result={"x": object()})
    with pytest.raises(BadRequestError, match="cannot be sent as JSON"):
        client.report(ReportRequest(worker="w", reports=[report]))
