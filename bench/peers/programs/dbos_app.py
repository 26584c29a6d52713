"""DBOS on Postgres: steps in the process of their workflow, or each step a queued workflow.

``client`` runs chains in its own process, as a program with DBOS in it does; ``queue-client`` puts
every execution into a queue, from which the worker processes take them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Sequence

import psycopg
from dbos import DBOS, DBOSClient

from bench.peers.programs.driver import DATABASE, SUBMITTERS, poll, serve

URL = os.environ[DATABASE]
#: Seconds between two looks into a queue, and for the result of a child: DBOS has no other way.
POLL = float(os.environ.get("PEER_POLL", "0.01"))
RUNS, STEPS = "runs", "steps"
ENDED = (
    "SELECT count(*) FILTER (WHERE status = 'SUCCESS'),"
    " count(*) FILTER (WHERE status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'))"
    " FROM dbos.workflow_status WHERE workflow_uuid = ANY(%s)"
)
#: Steps in process and queued ones; a parent's notes on its children's are no outcomes.
OUTCOMES = """
    SELECT (SELECT count(*) FROM dbos.operation_outputs
            WHERE workflow_uuid = ANY(%(ids)s) AND function_name IN ('step', 'part') AND error IS NULL)
         + (SELECT count(*) FROM dbos.workflow_status
            WHERE parent_workflow_id = ANY(%(ids)s) AND name = 'item' AND status = 'SUCCESS')
"""


@DBOS.step(name="step")
def step() -> int:
    return 1


@DBOS.workflow(name="item")
def item() -> int:
    return 1


@DBOS.step(name="part")
async def part() -> int:
    return 1


@DBOS.workflow(name="spread")
async def spread(width: int) -> None:
    await asyncio.gather(*(part() for _ in range(width)))
    await part()


@DBOS.workflow(name="chain")
def chain(steps: int) -> None:
    for _ in range(steps):
        step()


@DBOS.workflow(name="relay")
def relay(steps: int) -> None:
    for _ in range(steps):
        DBOS.enqueue_workflow(STEPS, item).get_result(polling_interval_sec=POLL)


@DBOS.workflow(name="wide")
async def wide(width: int) -> None:
    # Side by side: each enqueue and each result is a commit of the parent's.
    handles = await asyncio.gather(
        *(DBOS.enqueue_workflow_async(STEPS, item) for _ in range(width))
    )
    await asyncio.gather(*(handle.get_result(polling_interval_sec=POLL) for handle in handles))
    await part()


class Rows:
    """What DBOS' tables say."""

    def __init__(self) -> None:
        self._rows = psycopg.connect(URL, autocommit=True)

    def wait(self, started: Sequence[str]) -> None:
        def look() -> tuple[int, int]:
            row = self._rows.execute(ENDED, (list(started),)).fetchone()
            assert row is not None
            return row[0], row[1]

        poll(look, len(started))

    def outcomes(self, started: Sequence[str]) -> int:
        row = self._rows.execute(OUTCOMES, {"ids": list(started)}).fetchone()
        assert row is not None
        return int(row[0])


class InProcess(Rows):
    def start(self, shape: str, steps: int) -> str:
        if shape == "wide":
            return str(DBOS.start_workflow(spread, steps - 1).workflow_id)
        return str(DBOS.start_workflow(chain, steps).workflow_id)


class Queued(Rows):
    """A lone chain goes step by step through the queue; of a crowd each chain is queued as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self._client = DBOSClient(system_database_url=URL, system_database_pool_size=SUBMITTERS)

    def start(self, shape: str, steps: int) -> str:
        name, count = ("wide", steps - 1) if shape == "wide" else ("chain", steps)
        if shape == "chain" and steps > 1:
            name = "relay"
        options = {"queue_name": RUNS, "workflow_name": name, "app_version": "peer"}
        return str(self._client.enqueue(options, count).workflow_id)


def launch(*queues: str) -> None:
    DBOS(
        config={
            "name": "peer",
            "system_database_url": URL,
            "application_version": "peer",
            "executor_id": os.environ.get("PEER_EXECUTOR", "client"),
            "sys_db_pool_size": int(os.environ.get("PEER_CONNECTIONS", "8")),
            "sys_db_idle_transaction_timeout_sec": 0.0,
            "max_executor_threads": int(os.environ.get("PEER_THREADS", "16")),
            "log_level": "WARNING",
        }
    )
    DBOS.listen_queues(queues)
    DBOS.launch()


if __name__ == "__main__":
    match sys.argv[1]:
        case "prepare":
            launch()
            DBOS.register_queue(RUNS, polling_interval_sec=POLL)
            DBOS.register_queue(STEPS, polling_interval_sec=POLL)
            DBOS.destroy()
        case "work":
            launch(RUNS, STEPS)
            threading.Event().wait()
        case "queue-client":
            serve(Queued())
        case _:
            launch()
            serve(InProcess())
