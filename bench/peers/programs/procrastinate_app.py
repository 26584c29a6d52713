"""Procrastinate on Postgres: a step defers the next at its end, a counter in Postgres joins.

The outcome of a step is its job's status. The last step of an execution is a task of its own, so
that its client finds it by an index that costs the other steps nothing.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Sequence

import psycopg
from procrastinate import App, PsycopgConnector
from psycopg_pool import AsyncConnectionPool

from bench.peers.programs import board
from bench.peers.programs.driver import DATABASE, SUBMITTERS, poll, serve

URL = os.environ[DATABASE]
CONCURRENCY = int(os.environ.get("PEER_CONCURRENCY", SUBMITTERS))
INDEX = (
    "CREATE INDEX ON procrastinate_jobs (((args->>'execution')::bigint)) WHERE task_name = 'finish'"
)
ENDED = (
    "SELECT count(*) FILTER (WHERE status = 'succeeded'),"
    " count(*) FILTER (WHERE status IN ('failed', 'cancelled', 'aborted'))"
    " FROM procrastinate_jobs WHERE task_name = 'finish' AND (args->>'execution')::bigint = ANY(%s)"
)
OUTCOMES = (
    "SELECT count(*) FROM procrastinate_jobs"
    " WHERE (args->>'execution')::bigint = ANY(%s) AND status = 'succeeded'"
)

app = App(connector=PsycopgConnector(conninfo=URL, min_size=1, max_size=CONCURRENCY + 2))
joins = AsyncConnectionPool(
    URL, min_size=1, max_size=CONCURRENCY, kwargs={"autocommit": True}, open=False
)


@app.task(name="step")
async def step(execution: int, left: int) -> int:
    following = finish if left == 1 else step
    await following.defer_async(execution=execution, left=left - 1)
    return 1


@app.task(name="part")
async def part(execution: int, number: int) -> int:
    async with joins.connection() as connection:
        cursor = await connection.execute(board.ARRIVE, (execution, number, 1, execution))
        row = await cursor.fetchone()
    if row == (0,):
        await finish.defer_async(execution=execution, left=0)
    return 1


@app.task(name="finish")
async def finish(execution: int, left: int) -> int:
    return 1


class Client:
    def __init__(self) -> None:
        self._rows = psycopg.connect(URL, autocommit=True)

    def start(self, shape: str, steps: int) -> int:
        execution, last = random.getrandbits(62), steps - 1
        if shape == "wide":
            self._rows.execute(board.EXPECT, (execution, last))
            part.batch_defer(*({"execution": execution, "number": n} for n in range(last)))
        else:
            (finish if last == 0 else step).defer(execution=execution, left=last)
        return execution

    def wait(self, started: Sequence[int]) -> None:
        def look() -> tuple[int, int]:
            row = self._rows.execute(ENDED, (list(started),)).fetchone()
            assert row is not None
            return row[0], row[1]

        poll(look, len(started))

    def outcomes(self, started: Sequence[int]) -> int:
        row = self._rows.execute(OUTCOMES, (list(started),)).fetchone()
        assert row is not None
        return int(row[0])


async def work() -> None:
    """A worker process; one that was held between rounds is not taken for dead."""
    async with app.open_async(), joins:
        await app.run_worker_async(
            concurrency=CONCURRENCY,
            # A notification that comes while a worker looks is lost; it looks again after this.
            fetch_job_polling_interval=0.1,
            stalled_worker_timeout=86_400.0,
        )


def prepare() -> None:
    """Make the tables."""
    with app.open():
        app.schema_manager.apply_schema()
    with psycopg.connect(URL, autocommit=True) as connection:
        connection.execute(INDEX)


if __name__ == "__main__":
    match sys.argv[1]:
        case "prepare":
            prepare()
        case "work":
            asyncio.run(work())
        case _:
            with app.open():
                serve(Client())
