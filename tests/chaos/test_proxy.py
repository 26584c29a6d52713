"""The proxy is as bad as it is told to be, and good again afterwards."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.chaos.network import Network
from tests.chaos.proxy import CLEAR, Address, Weather

PATIENCE = 10.0


class Echo:
    """A server that sends back what it gets, and counts the bytes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address: Address = ("127.0.0.1", self.listener.getsockname()[1])
        self.got = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(65536):
                    self.got += len(data)
                    connection.sendall(data)
            except OSError:
                return


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.close()


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as network:
        yield network


@contextmanager
def dialled(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        yield connection


def asked(connection: socket.socket, text: bytes) -> bytes:
    connection.sendall(text)
    answer = b""
    while len(answer) < len(text) and (data := connection.recv(65536)):
        answer += data
    return answer


def test_in_clear_weather_bytes_pass_both_ways(echo: Echo, network: Network) -> None:
    port = network.link("a>echo", lambda: [echo.address])
    with dialled(port) as connection:
        text = bytes(range(256)) * 4000
        sender = threading.Thread(target=connection.sendall, args=(text,))
        sender.start()
        answer = b""
        while len(answer) < len(text):
            answer += connection.recv(65536)
        sender.join()
        assert answer == text
        assert network.connections("a>*") == 1


def test_a_link_is_made_once(echo: Echo, network: Network) -> None:
    port = network.link("a>echo", lambda: [echo.address])
    assert network.link("a>echo", lambda: [echo.address]) == port
    assert network.link("b>echo", lambda: [echo.address]) != port
    assert network.names("*>echo") == ["a>echo", "b>echo"]


def test_a_slow_link_delays_each_chunk_on_each_way(echo: Echo, network: Network) -> None:
    port = network.link("a>echo", lambda: [echo.address])
    with dialled(port) as connection, network.weather("a>echo", Weather("slow", delay=0.1)):
        begin = time.monotonic()
        assert asked(connection, b"hello") == b"hello"
        assert time.monotonic() - begin >= 0.2


def test_a_hole_takes_connections_and_says_nothing_until_it_is_over(
    echo: Echo, network: Network
) -> None:
    port = network.link("a>echo", lambda: [echo.address])
    with dialled(port) as old:
        assert asked(old, b"before") == b"before"
        network.become("a>echo", Weather("hole"))
        with dialled(port) as new:
            for connection in (old, new):
                connection.settimeout(0.2)
                connection.sendall(b"anyone?")
                with pytest.raises(TimeoutError):
                    connection.recv(1)
            network.become("a>echo", CLEAR)
            for connection in (old, new):
                connection.settimeout(PATIENCE)
                assert connection.recv(100) == b"anyone?", "what was sent meanwhile arrives"


def test_a_deaf_link_forwards_and_breaks_in_place_of_the_answer(
    echo: Echo, network: Network
) -> None:
    port = network.link("a>echo", lambda: [echo.address])
    with dialled(port) as connection:
        network.become("a>echo", Weather("deaf"))
        assert asked(connection, b"pay 5") == b""
    assert echo.got == 5, "the server did get it"


def test_a_link_that_is_down_resets_old_and_new_connections(echo: Echo, network: Network) -> None:
    port = network.link("a>echo", lambda: [echo.address])
    with dialled(port) as connection:
        assert asked(connection, b"x") == b"x"
        with network.weather("a>echo", Weather("down")):
            with pytest.raises(ConnectionResetError):
                connection.recv(1)
            with dialled(port) as other:
                assert _ended(other)
    with dialled(port) as connection:
        assert asked(connection, b"y") == b"y"


def _ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_weather_is_local(echo: Echo, network: Network) -> None:
    ports = [network.link(f"{who}>echo", lambda: [echo.address]) for who in ("a", "b")]
    with network.weather("a>echo", Weather("hole")), dialled(ports[1]) as connection:
        assert asked(connection, b"x") == b"x"


def test_of_several_upstreams_one_that_is_there_takes_the_call(
    echo: Echo, network: Network
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = ("127.0.0.1", closed.getsockname()[1])
    port = network.link("a>any", lambda: [gone, echo.address])
    for _ in range(4):
        with dialled(port) as connection:
            assert asked(connection, b"x") == b"x"


def test_where_no_upstream_is_there_the_connection_ends(network: Network) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = ("127.0.0.1", closed.getsockname()[1])
    port = network.link("a>gone", lambda: [gone])
    with dialled(port) as connection:
        assert _ended(connection)
