"""What a step leaves and costs on the real stack: bytes by table, WAL, commits, messages.

    python -m bench.footprint [--executions N] [--steps N]

Runs N chains of trivial python steps through all processes, in rounds, and divides what Postgres and
JetStream counted. No time is taken: it is what does not depend on the machine that is of interest.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nats
import psycopg

from app.embedded.stack import running_stack
from bench.sides import SUBMITTERS, Engine
from bench.stack import Side, stack
from bench.workloads import Crowd

#: Executions that run at once.
ROUND = 50
STREAMS = ("STEPS", "WAKES")


@dataclass(frozen=True, slots=True)
class Counted:
    """Totals: bytes by relation, and what was written, committed and sent."""

    relations: Mapping[str, int]
    events: int
    commits: int
    wal: int
    whole_pages: int
    messages: Mapping[str, int]


def counted(side: Side, nats_url: str) -> Counted:
    with psycopg.connect(side.database_url, autocommit=True) as connection:
        ask = connection.execute
        relations = ask(
            "SELECT c.relname, pg_relation_size(c.oid) FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = 'noetl' AND c.relkind IN ('r', 'i')"
        ).fetchall()
        events = ask("SELECT count(*) FROM noetl.event").fetchone()
        written = ask(
            "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint,"
            " (SELECT wal_bytes FROM pg_stat_wal)::bigint, (SELECT wal_fpi FROM pg_stat_wal)"
        ).fetchone()
    assert events is not None
    assert written is not None
    commits, wal, pages = written
    messages = asyncio.run(_messages(nats_url))
    return Counted(dict(relations), events[0], commits, wal, pages, messages)


async def _messages(url: str) -> dict[str, int]:
    """How many messages each stream has taken, by the number of its last one."""
    connection = await nats.connect(url)
    try:
        found = await connection.jetstream().streams_info()
        return {info.config.name or "": info.state.last_seq for info in found}
    finally:
        await connection.close()


def run(executions: int, steps: int) -> str:
    """Run it, and what was counted a step as a table."""
    workload = Crowd(steps=steps, executions=ROUND)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with stack(folder) as sides:
            running = running_stack(folder)
            assert running is not None
            client = Engine(sides.engine)
            client.prepare(workload)
            _round(client, workload, ROUND)
            before = counted(sides.engine, running.nats_url)
            left = executions
            while left > 0:
                _round(client, workload, min(ROUND, left))
                left -= ROUND
            after = counted(sides.engine, running.nats_url)
            client.close()
    return table(before, after, executions, steps)


def _round(client: Engine, workload: Crowd, count: int) -> None:
    with ThreadPoolExecutor(SUBMITTERS) as pool:
        client.wait_all(list(pool.map(client.start, [workload] * count)))


def table(before: Counted, after: Counted, executions: int, steps: int) -> str:
    size = executions * steps
    rows = [
        ("events", after.events - before.events),
        ("commits", after.commits - before.commits),
        ("WAL bytes", after.wal - before.wal),
        ("whole pages in the WAL", after.whole_pages - before.whole_pages),
        *(
            (f"messages to {name}", after.messages[name] - before.messages.get(name, 0))
            for name in after.messages
            if name.endswith(STREAMS)
        ),
        *(
            (f"bytes of {name}", total - before.relations.get(name, 0))
            for name, total in sorted(after.relations.items())
            if total > before.relations.get(name, 0)
        ),
    ]
    lines = [f"{executions:,} executions of {steps} steps", "", "| | a step |", "|---|---:|"]
    lines += [f"| {name} | {total / size:,.2f} |" for name, total in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--executions", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    print(run(options.executions, options.steps))


if __name__ == "__main__":
    main()
