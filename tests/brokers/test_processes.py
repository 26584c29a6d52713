"""The broker in processes of its own: nothing is opened early, forks are safe, the CLI runs it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dramatiq
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from app.brokers.errors import NatsUnreachableError
from app.brokers.nats import NatsBroker
from app.embedded.nats import EmbeddedNats
from tests.brokers.conftest import MakeBroker, Until


def test_nothing_is_opened_before_the_first_use() -> None:
    before = set(threading.enumerate())
    broker = NatsBroker("nats://127.0.0.1:1")
    broker.declare_queue("q")
    dramatiq.actor(broker=broker, queue_name="q", actor_name="a")(print)
    assert set(threading.enumerate()) == before
    assert not broker._sessions
    broker.close()


def test_a_child_of_a_connected_parent_connects_itself(
    own_nats: EmbeddedNats, make_broker: MakeBroker
) -> None:
    broker = make_broker()
    broker.declare_queue("q")
    program = f"""
        import os
        import dramatiq
        from app.brokers.nats import NatsBroker

        broker = NatsBroker({own_nats.url!r}, prefix={broker._subjects.prefix!r})
        def send(name): broker.enqueue(dramatiq.Message("q", "a", (name,), {{}}, {{}}))

        send("parent, before")
        child = os.fork()
        if child == 0:
            send("child")
            broker.close()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0
        send("parent, after")
        broker.close()
    """
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)], check=True, timeout=30
    )
    assert broker.depth("q").waiting == 3


def test_an_outage_is_told_once_and_so_is_its_end(
    own_nats: EmbeddedNats, make_broker: MakeBroker, until: Until
) -> None:
    broker = make_broker(publish_timeout=0.3)
    broker.declare_queue("q")
    assert broker.depth("q").total == 0
    with capture_logs() as logs:
        own_nats.kill()
        until(lambda: broker.session.bridge.client is None)
        for _ in range(3):
            with pytest.raises(dramatiq.errors.BrokerConnectionError):
                broker.enqueue(dramatiq.Message("q", "a", (), {}, {}))
        own_nats.start()
        until(lambda: broker.session.bridge.client is not None)
    said = [log["event"] for log in logs if log["event"].startswith("nats_")]
    assert said == ["nats_unreachable", "nats_connected"]


@pytest.mark.parametrize("waits", [False, True], ids=["asked too late", "waiting for the answer"])
def test_a_question_is_asked_again_over_the_next_connection(
    make_broker: MakeBroker, waits: bool
) -> None:
    asked: list[Client] = []

    async def ask(client: Client) -> str:
        asked.append(client)
        if len(asked) == 1:
            await client.close()
            await (asyncio.Event().wait() if waits else client.flush())
        return "answer"

    assert make_broker().session.bridge.call(ask, timeout=5.0) == "answer"
    assert len(asked) == 2
    assert asked[0] is not asked[1]


def test_a_question_without_an_answer_ends_in_time(make_broker: MakeBroker) -> None:
    async def ask(_client: Client) -> None:
        await asyncio.Event().wait()

    with pytest.raises(NatsUnreachableError, match="did not answer"):
        make_broker().session.bridge.call(ask, timeout=0.2)


def test_a_closed_bridge_answers_nothing_and_says_so(broker: NatsBroker) -> None:
    bridge = broker.session.bridge
    broker.depth("q")
    broker.close()
    bridge.post(pytest.fail, "nothing may run any more")
    assert not bridge.flush()
    with pytest.raises(NatsUnreachableError, match="was closed"):
        bridge.call(lambda client: client.flush(), timeout=1.0)


PROGRAM = """
    import os, threading
    import dramatiq
    from app.brokers.nats import NatsBroker

    broker = NatsBroker({url!r}, prefix={prefix!r})
    dramatiq.set_broker(broker)
    notes = os.open({notes!r}, os.O_APPEND | os.O_WRONLY | os.O_CREAT)

    @dramatiq.actor(queue_name="q", actor_name="a")
    def note(number):
        os.write(notes, f"{{number}} {{os.getpid()}} {{threading.get_ident()}}\\n".encode())
"""


@contextmanager
def command_line(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dramatiq", "program:broker", "--path", str(folder), *arguments],
            cwd=folder,
            stdout=log,
            stderr=log,
            # Whoever stops a process group must not take the tests with it.
            start_new_session=True,
        )
        try:
            yield process
        finally:
            # The workers die with their master's pipe; a group of its own makes sure.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_dramatiqs_command_line_runs_it_in_processes_and_threads(
    tmp_path: Path, own_nats: EmbeddedNats, make_broker: MakeBroker, until: Until
) -> None:
    broker = make_broker()
    broker.declare_queue("q")
    notes = tmp_path / "notes"
    source = PROGRAM.format(url=own_nats.url, prefix=broker._subjects.prefix, notes=str(notes))
    (tmp_path / "program.py").write_text(textwrap.dedent(source))

    def lines() -> list[list[str]]:
        return [line.split() for line in notes.read_text().splitlines()] if notes.exists() else []

    def send(numbers: range) -> None:
        broker.enqueue_many([(dramatiq.Message("q", "a", (n,), {}, {}), None) for n in numbers])

    with command_line(tmp_path, "--processes", "2", "--threads", "4") as process:
        send(range(500))
        until(lambda: len(lines()) >= 500)
        send(range(500, 2000))
        until(lambda: len(lines()) >= 2000)
        broker.join("q", timeout=10_000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, (tmp_path / "log").read_text()

    assert sorted(int(line[0]) for line in lines()) == list(range(2000))
    assert len({line[1] for line in lines()}) == 2
    assert len({(line[1], line[2]) for line in lines()}) > 4
    assert broker.depth("q") == (0, 0, 0)
    assert "Traceback" not in (tmp_path / "log").read_text()
