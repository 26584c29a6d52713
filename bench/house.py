"""``callboard up`` as its user starts it, and the processes it is made of."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from app.cli.ready import free_port, problem_of
from app.errors import StartupError
from app.settings import process_environment
from bench.memory import family, pss

#: Names of processes by a word of their command line; who has none of them is named as its parent.
NAMES = {
    "guard.py": "guards",
    "app.server": "web",
    "app.orchestrator": "orchestrator",
    "app.worker": "worker",
    "app.scheduler": "scheduler",
    "bin/postgres": "postgres",
    "nats-server": "nats",
}
PATIENCE = 120.0
#: Seconds between two looks whether it is ready.
PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class House:
    """A house that is ready: its API and its first process.

    It took ``seconds`` until then, in which all of its processes used ``cpu`` seconds.
    """

    url: str
    pid: int
    seconds: float
    cpu: float


@contextlib.contextmanager
def up(home: Path) -> Iterator[House]:
    """``callboard up`` in *home*; stopped on leaving. Raises ``StartupError`` where it ends."""
    port = free_port()
    command = [sys.executable, "-m", "app.cli", "up", "--port", str(port)]
    environment = {**process_environment(), "CALLBOARD_HOME": str(home)}
    with (home.parent / f"{home.name}.log").open("wb") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=Path(__file__).parents[1]
        )
        try:
            url = f"http://127.0.0.1:{port}"
            wait(url, process)
            seconds = time.perf_counter() - began
            yield House(url, process.pid, seconds, sum(cpu_seconds(process.pid).values()))
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                # Its children are told by the kernel, and end what they guard.
                process.kill()
                raise


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when *url* says it is ready. Raises ``StartupError`` where *process* has ended."""
    deadline = time.monotonic() + PATIENCE
    while (problem := problem_of(url)) is not None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise StartupError(f"{process.args!r} is not ready: {problem}")
        time.sleep(PAUSE)


@dataclass(frozen=True, slots=True)
class Rest:
    """What processes used while nothing was asked of them: a share of one core, bytes (PSS)."""

    cpu: dict[str, float]
    memory: dict[str, int]


def at_rest(pid: int, seconds: float, name: str) -> Rest:
    """Watch *pid*, called *name*, and all below it for *seconds*; by name."""
    before = cpu_seconds(pid)
    began = time.monotonic()
    time.sleep(seconds)
    lasted = time.monotonic() - began
    names = _names(pid, name)
    cpu = dict.fromkeys(names.values(), 0.0)
    memory = dict.fromkeys(names.values(), 0)
    after = cpu_seconds(pid)
    for one, called in names.items():
        # A process that began meanwhile used all of its time meanwhile.
        cpu[called] += (after.get(one, 0.0) - before.get(one, 0.0)) / lasted
        memory[called] += pss(one)
    return Rest(cpu, memory)


def cpu_seconds(pid: int) -> dict[int, float]:
    """CPU seconds of each process below *pid*, with those of children that have ended."""
    found = {}
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process.pid] = sum(process.cpu_times()[:4])
    return found


def _names(pid: int, name: str) -> dict[int, str]:
    """What each process below *pid* is called. Parents come before their children."""
    found: dict[int, str] = {}
    for process in family(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            words = " ".join(process.cmdline())
            own = next((called for word, called in NAMES.items() if word in words), None)
            found[process.pid] = (
                name if process.pid == pid else own or found.get(process.ppid(), "others")
            )
    return found
