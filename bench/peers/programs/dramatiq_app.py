"""Plain Dramatiq on Valkey: outcomes and the join counter in Postgres, the next message sent last."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from psycopg_pool import ConnectionPool

from bench.peers.programs import board
from bench.peers.programs.driver import DATABASE, SUBMITTERS, VALKEY, poll, serve

dramatiq.set_broker(RedisBroker(url=f"unix://{os.environ[VALKEY]}"))  # type: ignore[no-untyped-call]
pool = ConnectionPool(
    os.environ[DATABASE],
    min_size=1,
    max_size=int(os.environ.get("PEER_CONNECTIONS", SUBMITTERS)),
    kwargs={"autocommit": True},
    open=False,
)


@dramatiq.actor
def step(execution: int, number: int, last: int) -> None:
    with pool.connection() as connection:
        connection.execute(board.RECORD, (execution, number, work()))
    if number < last:
        step.send(execution, number + 1, last)


@dramatiq.actor
def part(execution: int, number: int, last: int) -> None:
    with pool.connection() as connection:
        row = connection.execute(board.ARRIVE, (execution, number, work(), execution)).fetchone()
    if row == (0,):
        step.send(execution, last, last)


def work() -> int:
    return 1


class Client:
    def start(self, shape: str, steps: int) -> tuple[int, int]:
        execution, last = random.getrandbits(62), steps - 1
        if shape == "wide":
            with pool.connection() as connection:
                connection.execute(board.EXPECT, (execution, last))
            for number in range(last):
                part.send(execution, number, last)
        else:
            step.send(execution, 0, last)
        return execution, last

    def wait(self, started: Sequence[tuple[int, int]]) -> None:
        ids, last = [execution for execution, _ in started], started[0][1]
        with pool.connection() as connection:

            def look() -> tuple[int, int]:
                row = connection.execute(board.ENDED, (ids, last)).fetchone()
                assert row is not None
                return row[0], 0

            poll(look, len(ids))

    def outcomes(self, started: Sequence[tuple[int, int]]) -> int:
        with pool.connection() as connection:
            ids = [execution for execution, _ in started]
            row = connection.execute(board.OUTCOMES, (ids,)).fetchone()
            assert row is not None
            return int(row[0])


class Connections(dramatiq.Middleware):
    """Opens the pool in each worker process, after its fork."""

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        pool.open()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        pool.close()


dramatiq.get_broker().add_middleware(Connections())

if __name__ == "__main__":
    pool.open()
    serve(Client())
