"""NATS absent for minutes while executions go on being started; then its store lost under waiting steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from tests.chaos import scenario
from tests.chaos.checker import Violation
from tests.chaos.gauges import messages
from tests.chaos.load import Load
from tests.chaos.plan import Fault
from tests.chaos.report import Report
from tests.chaos.scenario import Options, starts, wait_ended
from tests.chaos.stage import Stage
from tests.chaos.witness import Witness

#: Seconds of load before the outage and after it.
MARGIN = 5.0
#: Steps that wait when the store is lost, and the seconds in which each must have been sent again.
WAITING, AGAIN = 50, 30.0
WAITED = "NATS lost: waiting steps claimed"
#: Steps that are due in running executions and that nobody has claimed or ended.
UNCLAIMED = """
SELECT s.execution_id, s.step, s.visit, s.iteration FROM noetl.event s
JOIN noetl.execution x USING (execution_id)
WHERE s.type = 'step.scheduled' AND x.status = 'RUNNING' AND NOT EXISTS (
    SELECT 1 FROM noetl.event t WHERE t.execution_id = s.execution_id AND t.step = s.step
    AND t.visit = s.visit AND t.iteration = s.iteration AND t.seq > s.seq)
"""
CLAIMED = """
SELECT extract(epoch FROM min(created_at)) FROM noetl.event WHERE type = 'step.started'
AND execution_id = %s AND step = %s AND visit = %s AND iteration = %s
"""


def run(options: Options, home: Path, *, minutes: float) -> Report:
    """Take NATS away for *minutes*, bring it back; then lose its store. Below *home*, as ``scenario.run``."""
    faults = [Fault(MARGIN, "kill-nats", "nats", minutes * 60)]
    report = scenario.run(options, home, faults, lost_store)
    waited = report.recovery[WAITED]
    if waited.most > AGAIN:
        message = f"a waiting step was claimed {waited.most:.1f} s after NATS was back, empty"
        report.violations.append(Violation("not-sent-again", 0, message))
    return report


def lost_store(stage: Stage, witness: Witness, options: Options) -> dict[str, list[float]]:
    """Seconds from when NATS is back without its store until each step that waited is claimed.

    That includes the start of the workers, which are away meanwhile.
    """
    load = Load(stage.api("client"))
    wanted = starts(options, witness, WAITING, "waiting")
    with _without_workers(stage):
        load.run(wanted, per_second=50)
        waiting = _waiting(stage, WAITING)
        held = messages(stage.servers.nats.url)
        assert sum(held.values()) >= WAITING, f"NATS holds {held}, so little is lost with it"
        stage.servers.nats.kill()
        stage.servers.lose_store()
        stage.servers.nats.start()
        back = time.time()
    if not wait_ended(stage.servers.postgres.url, 0, seconds=options.settle):
        raise AssertionError(f"not everything ended after NATS was lost; see {stage.home}/logs")
    with psycopg.connect(stage.servers.postgres.url) as connection:
        claims = [connection.execute(CLAIMED, place).fetchone() for place in waiting]
    return {WAITED: [max(0.0, float(claim[0]) - back) for claim in claims if claim]}


@contextmanager
def _without_workers(stage: Stage) -> Iterator[None]:
    """No worker is there for as long as the block lasts: one that only sleeps would be sent messages."""
    with ExitStack() as holds:
        for name in stage.cast.names("worker"):
            holds.enter_context(stage.holds[name])
            stage.kill(name)
            holds.callback(stage.start, name)
        yield


def _waiting(stage: Stage, count: int, seconds: float = 60.0) -> list[tuple[object, ...]]:
    """The steps that wait to be claimed, once they are at least *count*."""
    deadline = time.monotonic() + seconds
    with psycopg.connect(stage.servers.postgres.url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            rows = connection.execute(UNCLAIMED).fetchall()
            if len(rows) >= count:
                return rows
            time.sleep(0.2)
    raise AssertionError(f"{len(rows)} steps wait after {seconds} s, not {count}")
