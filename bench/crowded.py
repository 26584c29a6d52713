"""W8: what a log of 100,000 executions costs, beside an empty one in the same run."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial

from bench.figures import Figure
from bench.filler import fill
from bench.measure import run_round
from bench.sides import Engine
from bench.stack import engine_stack
from bench.workloads import Single, Wide

#: Events of each execution that fills the log: three steps and what is around them.
EVENTS = 12


def crowded(
    count: int, rounds: int, turns: int, width: int, say: Callable[[str], None]
) -> list[Figure]:
    """W1, listing and opening with *count* executions in the log; *turns* requests a round.

    The two logs are on servers of their own, and take turns. Also opened is a loop of *width*.
    """
    with ExitStack() as exits:
        full, empty = (
            exits.enter_context(closing(Engine(exits.enter_context(engine_stack()))))
            for _ in range(2)
        )
        single, wide = Single(executions=turns), Wide(steps=width + 1)
        loops = {}
        for engine in (full, empty):
            for workload in (single, wide):
                engine.prepare(workload)
            # Also warms up both alike.
            loops[engine] = run_round(wide, engine).executions[0]
            run_round(single, engine)
        say(f"W8: {count} executions")
        fill(full.side.database_url, events=EVENTS * count, executions=count)
        taken: dict[str, dict[Engine, list[float]]] = {}
        for number in range(rounds):
            say(f"W8: round {number + 1} of {rounds}")
            for engine in (full, empty):
                for name, samples in _round(engine, single, loops[engine]).items():
                    taken.setdefault(name, {full: [], empty: []})[engine] += samples
    goals = {"W1": (1.1, True), "listing": (20.0, False), "opening": (30.0, False)}
    return [
        Figure(
            "W8",
            name,
            "ms",
            tuple(samples[full]),
            *goals[name.split(",")[0]],
            floor=tuple(samples[empty]),
            beside="an empty log",
        )
        for name, samples in taken.items()
    ]


def _round(engine: Engine, single: Single, loop: int) -> dict[str, list[float]]:
    """Milliseconds of each question, asked as often as *single* has executions."""
    ran = run_round(single, engine)
    rows = engine.rows.execute(
        "SELECT execution_id FROM noetl.execution WHERE parent_execution_id IS NULL"
        " ORDER BY execution_id"
    ).fetchall()
    some = random.Random(1).choices([identity for (identity,) in rows], k=single.executions)
    ask = partial(_timed, engine)
    return {
        "W1, one step": [seconds * 1000 for seconds in ran.seconds],
        "listing, the newest 50": ask(["/api/executions"] * single.executions),
        "opening, any": ask([f"/api/executions/{identity}" for identity in some]),
        "opening, its events": ask([f"/api/executions/{identity}/events" for identity in some]),
        "opening, the loop": ask([f"/api/executions/{loop}"] * single.executions),
        "opening, the loop's events": ask(
            [f"/api/executions/{loop}/events"] * single.executions,
        ),
    }


def _timed(engine: Engine, paths: Sequence[str]) -> list[float]:
    """Milliseconds of each request."""
    taken = []
    for path in paths:
        began = time.perf_counter()
        engine.ask("GET", path)
        taken.append((time.perf_counter() - began) * 1000)
    return taken
