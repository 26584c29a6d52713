"""W10: what the whole stack costs while nothing is asked of it."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from app.embedded.stack import EmbeddedStack, running_stack
from bench.figures import Figure
from bench.house import Rest, at_rest, up
from bench.sides import Engine
from bench.stack import Side
from bench.workloads import Wide

MIB = 2**20


def idle(settle: float, seconds: float, say: Callable[[str], None]) -> list[Figure]:
    """CPU and memory of ``callboard up`` at rest over *seconds*, after it has worked once.

    *settle* is how long it may take to come to rest, in seconds.
    """
    say(f"W10: {seconds:g} s at rest")
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as folder:
        home = Path(folder) / "home"
        with up(home) as house:
            _work(home, house.url)
            time.sleep(settle)
            ours = at_rest(house.pid, seconds, "supervisor")
        servers = EmbeddedStack(Path(folder) / "servers")
        with servers:
            time.sleep(settle)
            bare = at_rest(os.getpid(), seconds, "measuring")
    return [
        _figure("CPU", "% of a core", _percent(ours), _percent(bare), 3.0),
        _figure("memory", "MiB PSS", _mib(ours), _mib(bare), 600.0),
    ]


def _work(home: Path, url: str) -> None:
    """One loop: so that every process has done what it is there for."""
    running = running_stack(home)
    assert running is not None
    engine = Engine(Side(url, running.database_url, {}))
    workload = Wide(steps=51)
    try:
        engine.prepare(workload)
        engine.wait_all([engine.start(workload)])
    finally:
        engine.close()


def _percent(rest: Rest) -> dict[str, float]:
    return {name: 100 * share for name, share in rest.cpu.items()}


def _mib(rest: Rest) -> dict[str, float]:
    return {name: size / MIB for name, size in rest.memory.items()}


def _figure(
    title: str, unit: str, ours: dict[str, float], bare: dict[str, float], goal: float
) -> Figure:
    floor = sum(value for name, value in bare.items() if name != "measuring")
    return Figure(
        "W10",
        title,
        unit,
        (sum(ours.values()),),
        goal,
        floor=(floor,),
        beside="Postgres and NATS alone",
        parts=ours,
    )
