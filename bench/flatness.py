"""What one more completion costs in a long execution: a loop of 10,000, a cycle of 5,000 turns.

    python -m bench.flatness [--iterations N] [--turns N]

Runs the control plane's own services on Postgres, without broker and workers, one completion at a
time, and takes for each the CPU of deciding and the rows that Postgres read for it. Prints the
cost of the hundredth completion and of the last (medians of the hundred completions around it).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from app.embedded.postgres import EmbeddedPostgres
from app.engine.events import StepStarted
from app.engine.ports import Dispatch, Draft, Pointer
from app.services.control import Control, Ports, control
from app.settings import load
from app.store.catalog import PostgresCatalog
from app.store.database import Database
from app.store.events import PostgresLog
from app.store.ids import Snowflake
from app.store.migrations import upgrade
from app.store.runtime import PostgresRuntime
from app.wire import Exchange, Report
from app.wiring import ToolKinds, memory_custody

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: flat}\n"
LOOP = (
    HEAD
    + """
workload: {n: 10000}
workflow:
- step: start
  loop: {in: "{{ n }}", iterator: i, spec: {mode: parallel, max_in_flight: 100}}
  tool: {kind: noop}
"""
)
CYCLE = (
    HEAD
    + """
workload: {n: 5000}
workflow:
- step: start
  tool: {kind: noop}
  set: {ctx.turn: "{{ (turn | default(0)) + 1 }}"}
  next: {arcs: [{step: start, when: "{{ turn < n }}"}]}
"""
)
#: Completions around a place of which the median is taken.
AROUND = 100


@dataclass
class Outbox:
    """A dispatcher that keeps what it is told."""

    pointers: list[Pointer] = field(default_factory=list)

    def dispatch(self, steps: Sequence[Dispatch]) -> None:
        self.pointers.extend(step.pointer for step in steps)

    def wake(self, execution_ids: Iterable[int], *, delay: float = 0.0) -> None:
        """Nobody sleeps here."""

    def calm(self, execution_ids: Iterable[int]) -> None:
        """Nobody wakes here."""

    def tidy(self) -> None:
        """Nothing is kept here."""

    def waited(self, queue: str) -> float:  # noqa: ARG002 (nothing waits)
        return 0.0

    def epoch(self) -> str:
        return ""


@dataclass(frozen=True)
class Cost:
    """Of one completion: CPU of this process in seconds, and rows read by Postgres."""

    seconds: float
    rows: int


class Rows:
    """Counts the rows that the only connection of a database read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> int:
        with self._database.raw() as connection:
            connection.execute("SELECT pg_stat_force_next_flush()")
        with self._database.raw() as connection:
            row = connection.execute(
                "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_user_tables"
                " WHERE schemaname = 'noetl'"
            ).fetchone()
        assert row is not None
        return int(row[0])


def measure(
    plane: Control, outbox: Outbox, playbook: str, rows: Rows, log: PostgresLog
) -> list[Cost]:
    """Run *playbook* to its end; the cost of deciding after each completion, in their order."""
    entry = plane.catalog.register(playbook)
    execution_id = plane.executions.start(catalog_id=entry.catalog_id).execution_id
    plane.advance.advance(execution_id)
    costs: list[Cost] = []
    while outbox.pointers:
        pointer = outbox.pointers.pop(0)
        complete(plane, log, pointer)
        sampled = len(costs) < 2 * AROUND or len(costs) % 10 == 0
        before = rows.read() if sampled else 0
        began = time.process_time()
        plane.advance.advance(execution_id)
        took = time.process_time() - began
        costs.append(Cost(took, rows.read() - before if sampled else -1))
    assert plane.executions.get(execution_id).status == "COMPLETED"
    return costs


def complete(plane: Control, log: PostgresLog, pointer: Pointer) -> None:
    started = StepStarted(*pointer.key, attempt=pointer.attempt, worker="w")
    with log.transaction([pointer.execution_id], durable=False) as tx:
        tx.append(pointer.execution_id, [Draft(started)])
    report = Report(**pointer._asdict(), key=str(pointer), outcome="done", result={})
    (answer,) = plane.work.exchange(Exchange(worker="w", reports=[report])).reports
    assert answer.accepted, answer


def told(name: str, costs: Sequence[Cost]) -> str:
    early = costs[AROUND // 2 : AROUND // 2 + AROUND]
    # The last ones of a loop only drain its window: they schedule nothing and cost less.
    late = costs[-2 * AROUND - 50 : -AROUND - 50]
    first = statistics.median(cost.seconds for cost in early) * 1e6
    last = statistics.median(cost.seconds for cost in late) * 1e6
    rows = [
        statistics.median([cost.rows for cost in part if cost.rows >= 0]) for part in (early, late)
    ]
    return (
        f"{name}: {len(costs)} completions; CPU of the 100th {first:.0f} µs, of the last"
        f" {last:.0f} µs, ratio {last / first:.2f}; rows read {rows[0]:.0f} and {rows[1]:.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5_000)
    options = parser.parse_args()
    for name, (taken, _) in costs(options.iterations, options.turns).items():
        print(told(name, taken), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory of this process, at its peak: {peak:.0f} MB")


def costs(iterations: int, turns: int) -> dict[str, tuple[list[Cost], int]]:
    """Of a ``loop`` and a ``cycle``: what each completion cost, and how many events there are."""
    with tempfile.TemporaryDirectory(prefix="cb-flat-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        postgres = EmbeddedPostgres(home / "postgres")
        postgres.start()
        try:
            upgrade(postgres.url)
            return run(postgres.url, home, iterations, turns)
        finally:
            postgres.stop()


def run(url: str, home: Path, iterations: int, turns: int) -> dict[str, tuple[list[Cost], int]]:
    database = Database(url, pool_size=1)
    log, outbox = PostgresLog(database), Outbox()
    ports = Ports(
        events=log,
        catalog=PostgresCatalog(database),
        runtime=PostgresRuntime(database),
        dispatcher=outbox,
        kinds=ToolKinds(),
        clock=time.time,
        new_id=Snowflake(),
        custody=memory_custody(),
    )
    # A cycle has as many visits as it has turns.
    settings = replace(load({}, home=home).settings, max_visits=max(10_000, turns))
    plane = control(ports, settings)
    rows = Rows(database)
    found = {}
    try:
        for name, playbook in (
            ("loop", LOOP.replace("10000", str(iterations))),
            ("cycle", CYCLE.replace("5000", str(turns))),
        ):
            before = _events(database)
            taken = measure(plane, outbox, playbook, rows, log)
            found[name] = (taken, _events(database) - before)
    finally:
        database.close()
    return found


def _events(database: Database) -> int:
    with database.raw() as connection:
        row = connection.execute("SELECT count(*) FROM noetl.event").fetchone()
    assert row is not None
    return int(row[0])


if __name__ == "__main__":
    main()
