"""Where the time of a step goes: hop by hop, as its own log tells, and by function, as py-spy sees it.

    python -m bench.profile [--only W3 …] [--rounds N] [--top N] [--flame] [--out FOLDER]

Hops are the times between the events of a step. Functions are those of the API, the orchestrator, the
worker and the zygote that were on a CPU while the workload ran. The stacks are kept in FOLDER, with
``--flame`` as flame graphs too. The second part needs the extra ``bench`` (py-spy).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg

from bench import sampling
from bench.measure import run_round
from bench.report import RESULTS
from bench.sides import Engine
from bench.sizes import SIZES
from bench.stack import engine_stack
from bench.workloads import Plan

#: Milliseconds between the events of one step of a chain, in order. ``created_at`` is the beginning
#: of the transaction that wrote the event.
HOPS = """
SELECT extract(epoch FROM claimed.created_at - scheduled.created_at) * 1000,
    done.duration_ms,
    extract(epoch FROM done.created_at - claimed.created_at) * 1000 - done.duration_ms,
    extract(epoch FROM following.created_at - done.created_at) * 1000
FROM noetl.event scheduled
JOIN noetl.event claimed USING (execution_id, step, visit, iteration, attempt)
JOIN noetl.event done USING (execution_id, step, visit, iteration, attempt)
JOIN LATERAL (
    SELECT created_at FROM noetl.event later
    WHERE later.execution_id = done.execution_id AND later.seq > done.seq ORDER BY seq LIMIT 1
) following ON true
WHERE execution_id = ANY(%s) AND scheduled.type = 'step.scheduled'
    AND claimed.type = 'step.started' AND done.type = 'step.done'
"""
# On the short way the first and the last are nothing: all of it is one transaction.
NAMES = (
    "scheduled → claimed   (commit, pointer through JetStream, claim's way to the database)",
    "the step itself       (render, fork, run, answer)",
    "claimed → reported    (claim's commit and answer, report's way to the database)",
    "reported → scheduled  (commit, wake through JetStream, read, decide)",
)


def profile(connection: psycopg.Connection, executions: Sequence[int]) -> str:
    """The median of each hop over all steps of *executions*, as lines of text."""
    rows = connection.execute(HOPS, (list(executions),)).fetchall()
    if not rows:
        return "no step has all of its events"
    medians = [statistics.median(float(row[hop]) for row in rows) for hop in range(len(NAMES))]
    lines = [f"{ms:8.2f} ms  {name}" for ms, name in zip(medians, NAMES, strict=True)]
    return "\n".join(
        [f"hops of {len(rows)} steps, medians:", *lines, f"{sum(medians):8.2f} ms  in all"]
    )


def functions(engine: Engine, plan: Plan, out: Path, top: int, *, flame: bool) -> str:
    """Run *plan* and tell its hops, and the functions of each process; stacks are left in *out*."""
    workload = plan.workload
    out.mkdir(parents=True, exist_ok=True)
    engine.prepare(workload)
    # Afterwards the zygote is there, and everything is imported.
    run_round(workload, engine)
    processes = sampling.interpreters(engine.side.pids)
    with sampling.recording(processes, out) as files:
        rounds = [run_round(workload, engine) for _ in range(plan.rounds)]
    if flame:
        with sampling.recording(processes, out, "flamegraph"):
            run_round(workload, engine)
    seconds = sum(sum(done.seconds) for done in rounds)
    steps = workload.ran * plan.rounds
    ids = [number for done in rounds for number in done.executions]
    parts = [
        f"## {workload.name}: {workload.heading}, {steps} steps in {seconds:.1f} s",
        profile(engine.rows, ids),
        "CPU milliseconds per step: " + _cpu([done.used.cpu for done in rounds], steps),
    ]
    for name, path in files.items():
        samples = sampling.parse(path.read_text())
        each = 1000 * samples.total / sampling.RATE / steps
        parts += [
            f"### {name}: {each:.2f} ms a step that some thread ran, or could have",
            sampling.table(samples, top),
        ]
    return "\n\n".join(parts)


def _cpu(used: Sequence[Mapping[str, float]], steps: int) -> str:
    return ", ".join(
        f"{name} {1000 * sum(cpu[name] for cpu in used) / steps:.2f}" for name in sorted(used[0])
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size = parser.add_mutually_exclusive_group()
    for name in ("quick", "tiny"):
        size.add_argument(f"--{name}", action="store_const", dest="size", const=name)
    parser.set_defaults(size="full")
    parser.add_argument("--only", action="append", metavar="W3", help="W3 and W4 by default")
    parser.add_argument("--rounds", type=int, help="rounds of each workload")
    parser.add_argument("--top", type=int, default=15, help="functions of each process")
    parser.add_argument("--flame", action="store_true", help="also draw flame graphs")
    parser.add_argument("--out", type=Path, default=RESULTS / "profile", help="for the stacks")
    given = parser.parse_args(arguments)
    names = {name.upper() for name in given.only or ("W3", "W4")}
    plans = [plan for plan in SIZES[given.size].plans if plan.workload.name.upper() in names]
    with engine_stack() as side, closing(Engine(side)) as engine:
        for plan in plans:
            chosen = replace(plan, rounds=given.rounds or plan.rounds)
            out = given.out / plan.workload.name.lower()
            print(functions(engine, chosen, out, given.top, flame=given.flame), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
