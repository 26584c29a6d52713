"""The supervisor on real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.cli.backoff import ATTEMPTS
from app.cli.supervisor import MOST_LINES, describe_exit
from app.errors import StartupError
from tests.cli.fakes import POLITE, STUBBORN, Supervise, is_gone, program

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and process groups")


def test_hands_on_every_line_with_the_name_of_its_process(supervise: Supervise) -> None:
    code = POLITE + "print('never')"
    running = supervise(program("one", code), program("two", code))
    running.recorder.wait_for("one", "hello")
    running.recorder.wait_for("two", "hello")
    running.stop()
    assert ("one", "goodbye") in running.recorder.said


def test_starts_a_killed_process_again_and_says_so(supervise: Supervise) -> None:
    running = supervise(program("web", POLITE), program("other", POLITE))
    running.recorder.wait_for("web", "hello")
    running.recorder.wait_for("other", "hello")
    before = dict(running.supervisor.pids())
    os.kill(before["web"], signal.SIGKILL)
    running.recorder.wait_for("process.died", "web died (SIGKILL); starting it again in 0.5 s")
    running.recorder.wait_for("process.started", "web runs again")
    running.recorder.wait_for("web", "hello", times=2)
    after = running.supervisor.pids()
    assert after["web"] != before["web"]
    assert after["other"] == before["other"]


def test_a_loop_that_is_never_idle_still_restarts(supervise: Supervise) -> None:
    running = supervise(program("web", POLITE))
    running.recorder.wait_for("web", "hello")
    busy = True

    def again() -> None:
        if busy:
            running.supervisor.soon(again)

    running.supervisor.soon(again)
    os.kill(running.supervisor.pids()["web"], signal.SIGKILL)
    try:
        running.recorder.wait_for("web", "hello", times=2)
    finally:
        busy = False


def test_every_line_arrives_however_many_there_are(supervise: Supervise) -> None:
    running = supervise(program("chatty", f"for n in range({MOST_LINES * 5}): print(n)\n" + POLITE))
    running.recorder.wait_for("chatty", "hello")
    numbers = [text for name, text in running.recorder.said if text.isdigit()]
    assert numbers == [str(number) for number in range(MOST_LINES * 5)]


def test_stops_rank_by_rank(supervise: Supervise) -> None:
    running = supervise(program("web", POLITE, rank=2), program("worker", POLITE, rank=1))
    running.recorder.wait_for("web", "hello")
    running.recorder.wait_for("worker", "hello")
    running.stop()
    last = [name for name, text in running.recorder.said if text == "goodbye"]
    assert last == ["worker", "web"]


def test_kills_what_does_not_stop_within_its_grace(supervise: Supervise) -> None:
    running = supervise(program("deaf", STUBBORN, grace=0.2))
    running.recorder.wait_for("deaf", "hello")
    pid = running.supervisor.pids()["deaf"]
    running.stop()
    assert is_gone(pid)


def test_the_second_wish_kills_those_that_are_stopping_and_those_after_them(
    supervise: Supervise,
) -> None:
    running = supervise(
        program("first", STUBBORN, rank=0, grace=1000.0),
        program("second", STUBBORN, rank=1, grace=1000.0),
    )
    running.recorder.wait_for("first", "hello")
    running.recorder.wait_for("second", "hello")
    pids = list(running.supervisor.pids().values())
    running.supervisor.ask_stop()
    running.recorder.wait_for("first", "no")
    running.supervisor.ask_stop()
    running.join()
    assert all(is_gone(pid) for pid in pids)


def test_one_that_cannot_start_stops_everything_and_says_why(supervise: Supervise) -> None:
    running = supervise(
        program("web", "raise SystemExit('error: port 1 is taken')"), program("other", POLITE)
    )
    running.recorder.wait_for("other", "hello")
    pid = running.supervisor.pids()["other"]
    running.join()
    (error,) = running.errors
    assert isinstance(error, StartupError)
    assert f"web cannot start; it ended {ATTEMPTS} times in a row (exit code 1)" in str(error)
    assert "error: port 1 is taken" in str(error)
    assert is_gone(pid)


def test_what_a_process_forked_ends_with_it(supervise: Supervise) -> None:
    forks = "import os\nif os.fork(): print('child', os.getpid(), flush=True)\n" + STUBBORN
    running = supervise(program("forks", forks))
    running.recorder.wait_for("forks", "hello", times=2)
    parent = running.supervisor.pids()["forks"]
    (forked,) = psutil.Process(parent).children()
    os.kill(parent, signal.SIGKILL)
    running.recorder.wait_for("process.died", "forks died")
    assert is_gone(forked.pid)


def test_children_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    script = """
from app.cli.supervisor import Supervisor
from tests.cli.fakes import POLITE, program
class Speaker:
    def line(self, name, text): print(supervisor.pids()[name], flush=True)
    def say(self, *_, **__): ...
supervisor = Supervisor([program("one", POLITE)], Speaker())
supervisor.run()
"""
    root = Path(__file__).parents[2]
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=root)
    assert owner.stdout is not None
    with owner, owner.stdout as lines:
        child = psutil.Process(int(lines.readline()))
        guard = child.parent()
        owner.kill()
    assert guard is not None
    _, alive = psutil.wait_procs([child, guard], timeout=20)
    assert alive == []


class _Servers:
    """Servers of a stack that die when the test says so."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.refuses = 0

    def alive(self, name: str) -> bool:
        return name not in self.down

    def restart(self, name: str) -> None:
        if self.refuses:
            self.refuses -= 1
            raise StartupError("no disk")
        self.down.discard(name)


def test_brings_a_dead_server_back_also_where_it_refuses_at_first(supervise: Supervise) -> None:
    servers = _Servers()
    running = supervise(program("web", POLITE), servers=servers, server_names=("nats", "postgres"))
    running.recorder.wait_for("web", "hello")
    servers.refuses = 1
    servers.down.add("nats")
    running.recorder.wait_for("server.down", "nats died and does not come back: no disk")
    running.recorder.wait_for("server.started", "nats died; it runs again")
    assert servers.down == set()


@pytest.mark.parametrize(
    ("code", "text"),
    [(1, "exit code 1"), (137, "SIGKILL"), (143, "SIGTERM"), (255, "exit code 255")],
)
def test_exit_codes_in_words(code: int, text: str) -> None:
    assert describe_exit(code) == text
