"""How many durable commits a second this disk takes, by the number of connections that ask for one.

    python -m bench.commits [--url URL]

Each commit appends one row to the log, as a step's end does. Postgres writes commits that come
together to the disk together, so the rate grows with the connections.
"""

from __future__ import annotations

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from app.engine.events import ExecutionStarted
from app.engine.ports import Draft
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.ids import Snowflake
from bench.listing import fresh

CONNECTIONS = (1, 4, 16)
#: Commits of each connection in one round.
COMMITS = 100
ROUNDS = 3


def rate(url: str, connections: int) -> float:
    """Commits a second, the median of the rounds."""
    database = Database(url, pool_size=connections, application_name="callboard bench")
    log, new_id = PostgresLog(database), Snowflake()

    def append(_: int) -> None:
        for _ in range(COMMITS):
            execution_id = new_id()
            with log.transaction([execution_id]) as tx:
                tx.append(execution_id, [Draft(ExecutionStarted(1, "bench/commits", 1, {}))])

    rates = []
    try:
        with ThreadPoolExecutor(connections) as pool:
            for _ in range(ROUNDS + 1):
                began = time.perf_counter()
                list(pool.map(append, range(connections)))
                rates.append(connections * COMMITS / (time.perf_counter() - began))
    finally:
        database.close()
    return statistics.median(rates[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--url", help="an empty database to use instead of an embedded one")
    options = parser.parse_args()
    with fresh(options.url) as url:
        for connections in CONNECTIONS:
            print(f"{connections:3} connections: {rate(url, connections):,.0f} commits/s")


if __name__ == "__main__":
    main()
