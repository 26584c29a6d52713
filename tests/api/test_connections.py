"""The client's connections against a server that answers byte by byte what it is told to."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from app.client import Client
from app.client.connections import Answer, Connections, NotConnectedError, _Reading
from app.errors import BadRequestError
from tests.tools.secure import Authority

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"
AB = Answer(200, {"content-length": "2"}, b"ab")
NO_ANSWER = r"closed before|does not speak HTTP|another protocol|does not end"


class Server:
    """Answers the requests of each connection with one item after the other; after the last it closes."""

    def __init__(self, listener: socket.socket, script: Sequence[Sequence[bytes]]) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self.connected = 0
        #: Set for each connection that the server has closed.
        self.closed = threading.Semaphore(0)
        self._listener, self._script = listener, script

    def serve(self) -> None:
        for answers in self._script:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # nobody came, and the test is over
            self.connected += 1
            # Who has heard enough may have gone.
            with suppress(OSError), connection:
                for answer in answers:
                    if not self._request(connection):
                        break
                    connection.sendall(answer)
            self.closed.release()

    def _request(self, connection: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(65536)
            if not data:
                return b""
            head += data
        self.requests.append(head)
        return head


@contextmanager
def serving(*script: Sequence[bytes]) -> Iterator[Server]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        server = Server(listener, script)
        thread = threading.Thread(target=server.serve)
        thread.start()
        stack.callback(thread.join)

        def stop() -> None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)

        stack.callback(stop)
        yield server


def get(connections: Connections, target: str = "/x", body: bytes | None = None) -> Answer:
    return connections.call("GET", target, body, {}, timeout=10.0)


@contextmanager
def connected(server: Server, **headers: str) -> Iterator[Connections]:
    connections = Connections(server.url, headers, most=2)
    try:
        yield connections
    finally:
        connections.close()


def test_a_request_is_what_the_server_reads_and_the_connection_stays() -> None:
    with serving([OK, OK]) as server, connected(server, accept="x/y") as connections:
        answer = connections.call("POST", "/a?b=%20", b"{}", {"content-type": "t"}, timeout=10.0)
        assert (answer, get(connections)) == (AB, AB)
    authority = server.url.removeprefix("http://").encode()
    assert server.requests == [
        b"POST /a?b=%20 HTTP/1.1\r\nhost: "
        + authority
        + b"\r\naccept: x/y\r\ncontent-type: t\r\ncontent-length: 2\r\n\r\n{}",
        b"GET /x HTTP/1.1\r\nhost: " + authority + b"\r\naccept: x/y\r\n\r\n",
    ]
    assert server.connected == 1


@pytest.mark.parametrize(
    ("answer", "expected", "stays"),
    [
        pytest.param(OK, AB, True, id="its length is known"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n",
            Answer(200, {"transfer-encoding": "chunked"}, b"ab"),
            True,
            id="in chunks",
        ),
        pytest.param(b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n" + OK, AB, True, id="announced"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, {}, b""), True, id="empty"),
        pytest.param(
            b"HTTP/1.1 503 Away\r\nRetry-After: 7\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
            Answer(503, {"retry-after": "7", "connection": "close", "content-length": "1"}, b"x"),
            False,
            id="the last one",
        ),
        pytest.param(
            b"HTTP/1.0 200 OK\r\n\r\nuntil it closes",
            Answer(200, {}, b"until it closes"),
            False,
            id="to the end",
        ),
    ],
)
def test_forms_of_an_answer(answer: bytes, expected: Answer, stays: bool) -> None:
    script = [[answer, OK]] if stays else [[answer], [OK]]
    with serving(*script) as server, connected(server) as connections:
        assert get(connections) == expected
        assert get(connections) == AB
        assert server.connected == len(script)


def test_an_answer_may_come_in_any_pieces() -> None:
    def talk() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.recv(65536)
            for byte in OK:
                connection.sendall(bytes([byte]))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk)
        thread.start()
        connections = Connections(f"http://127.0.0.1:{listener.getsockname()[1]}", {}, most=1)
        assert get(connections) == AB
        thread.join()
        connections.close()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", id="it breaks off"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", id="in a chunk"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-le", id="in its head"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", id="another protocol"),
        pytest.param(OK + OK, id="two"),
        pytest.param(
            b"HTTP/1.1 101 Now\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", id="an upgrade"
        ),
        pytest.param(b"HTTP/1.1 100 Wait\r\n\r\n", id="only announced"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100_000, id="a head without end"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 600_000, id="a header without end"),
        pytest.param(b"HTTP/1.1 100 Wait\r\n\r\n" * 30_000, id="announced for ever"),
    ],
)
def test_what_is_no_whole_answer_is_an_error_and_ends_the_connection(answer: bytes) -> None:
    with serving([answer], [OK]) as server, connected(server) as connections:
        with pytest.raises(OSError, match=NO_ANSWER) as caught:
            get(connections)
        assert not isinstance(caught.value, NotConnectedError | TimeoutError)
        assert get(connections) == AB
        assert server.connected == 2


def test_a_connection_that_was_closed_while_it_waited_is_not_used() -> None:
    with serving([OK], [OK]) as server, connected(server) as connections:
        assert get(connections) == AB
        assert server.closed.acquire(timeout=10)
        assert get(connections) == AB
        assert (server.connected, len(server.requests)) == (2, 2)


def test_a_body_may_be_refused_before_it_has_come() -> None:
    refusal = b"HTTP/1.1 413 Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"
    with serving([refusal], [OK]) as server, connected(server) as connections:
        # More than the buffers of both sides hold: the server hangs up while it is being sent.
        answer = get(connections, body=bytes(32 << 20))
        assert (answer.status, answer.data) == (413, b"no")
        assert get(connections) == AB


def test_a_connection_that_did_not_take_the_whole_body_is_not_used_again() -> None:
    """Whatever the answer says of it."""
    refusal = b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nno"
    with serving([refusal], [OK]) as server, connected(server) as connections:
        assert get(connections, body=bytes(32 << 20)).status == 413
        assert connections._waiting == []
        assert get(connections) == AB


def test_ctrl_c_that_meets_the_parser_is_no_fault_of_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    # Where a signal that comes while the parser works is noticed.
    monkeypatch.setattr(_Reading, "on_body", interrupted)
    with serving([OK], [OK]) as server, connected(server) as connections:
        with pytest.raises(KeyboardInterrupt):
            get(connections)
        monkeypatch.undo()
        assert get(connections) == AB


def test_what_came_is_not_left_to_the_collector_of_garbage() -> None:
    gc.collect()
    gc.disable()
    try:
        with serving([OK]) as server, connected(server) as connections:
            assert get(connections) == AB
        assert not [each for each in gc.get_objects() if isinstance(each, _Reading)]
    finally:
        gc.enable()


def test_after_close_no_connection_is_left_and_none_is_made() -> None:
    def talk() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            asked.set()
            closed.wait(10)
            connection.sendall(OK)
            farewell.append(connection.recv(65536))

    asked, closed, farewell = threading.Event(), threading.Event(), list[bytes]()
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(2) as pool:
        server = pool.submit(talk)
        connections = Connections(f"http://127.0.0.1:{listener.getsockname()[1]}", {}, most=1)
        answer = pool.submit(get, connections)
        assert asked.wait(10)
        connections.close()
        closed.set()
        assert answer.result(10) == AB
        server.result(10)
        with pytest.raises(ConnectionError, match="closed on this side"):
            get(connections)
    assert farewell == [b""]


def test_connections_that_nobody_closed_are_closed_with_the_last_reference() -> None:
    """No warning of sockets that were left open comes, either: it would be an error here."""
    with serving([OK, OK]) as server:
        connections = Connections(server.url, {}, most=2)
        assert get(connections) == AB
        del connections
        gc.collect()
        assert server.closed.acquire(timeout=10)


def test_answers_are_not_to_be_compressed() -> None:
    stats = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
    with serving([stats]) as server, Client(server.url) as client:
        client.stats()
    assert b"\r\naccept-encoding: identity\r\n" in server.requests[0]


def test_a_server_that_says_nothing_runs_out_of_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connections = Connections(f"http://127.0.0.1:{silent.getsockname()[1]}", {}, most=1)
        with pytest.raises(TimeoutError):
            connections.call("GET", "/", None, {}, timeout=0.1)


def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for nobody in (
        url,
        "http://nowhere.invalid:1",
        "http://nowhere..invalid:1",
        "http://нигде.invalid:1",
    ):
        with pytest.raises(NotConnectedError):
            get(Connections(nobody, {}, most=1))


def test_over_tls_only_whom_an_authority_vouches_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority()
    pair = authority.issue("localhost")
    for name, text in (("ca", authority.pem), ("chain", pair.chain), ("key", pair.key)):
        (tmp_path / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain", tmp_path / "key")

    def talk() -> None:
        for _ in range(2):
            plain, _ = listener.accept()
            with suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                for _ in range(2):
                    secured.recv(65536)
                    secured.sendall(OK)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk)
        thread.start()
        url = f"https://localhost:{listener.getsockname()[1]}"
        with pytest.raises(ssl.SSLCertVerificationError):
            get(Connections(url, {}, most=1))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca"))
        connections = Connections(url, {}, most=1)
        assert [get(connections), get(connections)] == [AB, AB]
        connections.close()
        thread.join()


def test_no_more_connections_wait_than_were_asked_for() -> None:
    arrived, go = threading.Barrier(4), threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            arrived.wait(10)
            go.wait(10)
            connection.sendall(OK)
            connection.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = Connections(f"http://127.0.0.1:{listener.getsockname()[1]}", {}, most=2)
        callers = [threading.Thread(target=get, args=(connections,)) for _ in range(3)]
        for caller in callers:
            caller.start()
        servers = [threading.Thread(target=serve, args=(listener.accept()[0],)) for _ in range(3)]
        for server in servers:
            server.start()
        arrived.wait(10)
        go.set()
        for caller in callers:
            caller.join()
        assert len(connections._waiting) == 2
        connections.close()
        for server in servers:
            server.join()


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nx: y", {}),
        ("/ü", {}),
        ("", {}),
        ("/a", {"idempotency-key": "a\r\nx: y"}),
        ("/a", {"idempotency-key": "ü"}),
    ],
)
def test_no_text_becomes_another_line_of_the_request(target: str, headers: dict[str, str]) -> None:
    connections = Connections("http://127.0.0.1:1", {}, most=1)
    with pytest.raises(BadRequestError):
        connections.call("GET", target, None, headers, timeout=1.0)
    with pytest.raises(BadRequestError):
        Connections("http://127.0.0.1:1", {"authorization": "Bearer a\nb"}, most=1)
