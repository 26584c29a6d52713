"""W9: how long things take to start, beside what they cannot do without."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from app.cli.ready import free_port
from app.embedded.stack import EmbeddedStack
from app.settings import process_environment
from app.store.migrations import upgrade
from bench.figures import Figure
from bench.floor import board
from bench.house import cpu_seconds, up, wait
from bench.workloads import Single

ROOT = Path(__file__).parents[1]
#: An interpreter that makes a child, and nothing else.
BARE = "import os; os.waitpid(os.fork() or os._exit(0), 0)"
#: Seconds that a run may take.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds on the clock, and of CPU of all processes: on a busy machine only these count."""

    seconds: float
    cpu: float


def startup(rounds: int, say: Callable[[str], None]) -> list[Figure]:
    """``run``, ``up`` in a new home and again, and the API alone, each with its floor."""
    say(f"W9: {rounds} rounds")
    return [*_runs(rounds), *_ups(rounds), _api(rounds)]


def _figure(
    title: str, starts: Sequence[Start], goal: float | None, floor: Sequence[Start], beside: str
) -> Figure:
    return Figure(
        "W9",
        title,
        "s",
        tuple(start.seconds for start in starts),
        goal,
        floor=tuple(start.seconds for start in floor),
        beside=beside,
        parts={
            "seconds of CPU": statistics.median(start.cpu for start in starts),
            "beside": statistics.median(start.cpu for start in floor),
        },
    )


def _runs(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="bench-run-") as folder:
        playbook = Path(folder) / "one.yaml"
        playbook.write_text(Single().playbook())
        environment = {**process_environment(), "CALLBOARD_HOME": f"{folder}/home"}
        command = [sys.executable, "-m", "app.cli", "run", str(playbook)]
        bare = [sys.executable, "-c", BARE]
        _until(command, environment, "running")  # the caches are warm from here on
        taken = [
            (*_until(command, environment, "running"), _until(bare, environment, "")[1])
            for _ in range(rounds)
        ]
    first, whole, floor = zip(*taken, strict=True)
    beside = "a bare interpreter and a fork"
    return [
        _figure("run to first step", first, 0.8, floor, beside),
        _figure("run to its end", whole, None, floor, beside),
    ]


def _until(command: list[str], environment: Mapping[str, str], word: str) -> tuple[Start, Start]:
    """Until *command* prints a line with *word*, and until it has ended well."""
    began, used = time.perf_counter(), _children()
    with subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdout is not None
        seen, said = Start(0.0, 0.0), []
        for line in process.stdout:
            said.append(line.decode())
            if not seen.seconds and word in said[-1]:
                cpu = sum(cpu_seconds(process.pid).values())
                seen = Start(time.perf_counter() - began, cpu)
        code = process.wait(PATIENCE)
    if code or (word and not seen.seconds):
        raise RuntimeError(f"{command} ended with {code}: {''.join(said)}")
    return seen, Start(time.perf_counter() - began, _children() - used)


def _children() -> float:
    """CPU seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ups(rounds: int) -> list[Figure]:
    ours: dict[str, list[Start]] = {"new": [], "again": []}
    floor: dict[str, list[Start]] = {"new": [], "again": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="bench-up-") as folder:
            for name, starts in ours.items():
                with up(Path(folder) / "home") as house:
                    starts.append(Start(house.seconds, house.cpu))
                floor[name].append(_servers(Path(folder) / "servers"))
    titles = {"new": "up to ready, new home", "again": "up to ready, again"}
    return [
        _figure(title, ours[name], 8.0, floor[name], "Postgres and NATS alone")
        for name, title in titles.items()
    ]


def _servers(home: Path) -> Start:
    """Both servers in *home*, until they answer."""
    began, used = time.perf_counter(), _own()
    with EmbeddedStack(home):
        return Start(time.perf_counter() - began, _own() - used)


def _own() -> float:
    """CPU seconds of this process and all of its children."""
    return sum(cpu_seconds(os.getpid()).values())


def _api(rounds: int) -> Figure:
    with ExitStack() as exits:
        folder = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="bench-api-")))
        servers = exits.enter_context(EmbeddedStack(folder))
        assert servers.postgres is not None
        upgrade(servers.database_url)
        bare = {
            board.DATABASE: servers.postgres.create_database("floor"),
            board.NATS: servers.nats_url,
        }
        ours = {**servers.environment(), "CALLBOARD_HOME": str(folder)}
        taken = [
            (
                _ready("app.server", ours, "NOETL_PORT"),
                _ready("bench.floor.server", bare, board.PORT),
            )
            for _ in range(rounds)
        ]
    first, floor = zip(*taken, strict=True)
    return _figure(
        "API, from process to ready", first, None, floor, "FastAPI, psycopg and nats-py alone"
    )


def _ready(module: str, variables: Mapping[str, str], port_name: str) -> Start:
    """From the start of a server until ``/readyz`` is well."""
    port = str(free_port())
    environment = {**process_environment(), **variables, port_name: port}
    began = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module], env=environment, cwd=ROOT, stdout=log, stderr=log
        )
        try:
            wait(f"http://127.0.0.1:{port}", process)
            return Start(time.perf_counter() - began, sum(cpu_seconds(process.pid).values()))
        finally:
            process.terminate()
            process.wait(PATIENCE)
