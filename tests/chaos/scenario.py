"""The chaos run: load, a plan of faults, and a sceptical look at all that was written meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import structlog

from app.client import Client
from app.errors import CallboardError
from app.store.database import Database
from app.store.events import PostgresLog
from tests.chaos import findings
from tests.chaos.checker import Log, Violation
from tests.chaos.faults import Saboteur
from tests.chaos.findings import Findings
from tests.chaos.load import Load, Start
from tests.chaos.plan import Cast, Fault, plan
from tests.chaos.playbooks import ALL, STARTED
from tests.chaos.report import Report
from tests.chaos.stage import Stage
from tests.chaos.tail import Tail
from tests.chaos.witness import Witness

log = structlog.get_logger(__name__)

#: The numbers that executions are given: each runs once in peace, for comparison.
VARIANTS = 4
#: Seconds of recovery as the defaults have them, and for smoke runs.
LEASE = 15.0
QUICK = {
    "CALLBOARD_HEARTBEAT": "0.5",
    "CALLBOARD_LEASE": "3",
    "CALLBOARD_SWEEP": "1",
    "CALLBOARD_UNCLAIMED_AFTER": "3",
    "CALLBOARD_ACK_WAIT": "3",
    "CALLBOARD_GRACE": "3",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How large a run is. Times in seconds.

    *settle* is how long after the last fault all must have ended; *takeover* is how soon 95 % of what
    a killed worker was working on must run elsewhere.
    """

    seed: int = 1
    executions: int = 1000
    faults: int = 110
    seconds: float = 330.0
    slow: float = 1.5
    settle: float = 120.0
    takeover: float = 45.0
    settings: Mapping[str, str] = field(default_factory=dict)
    cast: Cast = Cast()  # noqa: RUF009 (frozen, so the shared default cannot change)

    @property
    def lease(self) -> float:
        return float(self.settings.get("CALLBOARD_LEASE", LEASE))


#: What a scenario does after the plan: it gets the stage, the witness and the options, and gives
#: seconds of recovery by name.
Afterwards = Callable[[Stage, Witness, Options], dict[str, list[float]]]


def run(
    options: Options,
    home: Path,
    faults: Sequence[Fault] | None = None,
    afterwards: Afterwards | None = None,
) -> Report:
    """Do all of it below *home*, which must be empty and reachable by other users."""
    begin = time.monotonic()
    if faults is None:
        faults = plan(
            options.seed,
            faults=options.faults,
            seconds=options.seconds,
            lease=options.lease,
            cast=options.cast,
        )
    found = Findings()
    witness = Witness(home / "witness")
    with Stage(home / "stage", settings=options.settings, cast=options.cast) as stage:
        with Tail(stage.servers.postgres.url) as tail:
            register(stage)
            in_peace(stage, witness, options, found)
            under_fire(stage, witness, options, faults, found)
            if afterwards is not None:
                found.recovered = afterwards(stage, witness, options)
        found.seen = tail.seen
        found.log = read_log(stage.servers.postgres.url)
        found.runs = witness.runs()
        found.violations += verified(stage, found.log)
        found.violations += [
            Violation("stubborn", 0, f"{n} ignored SIGTERM") for n in stage.stubborn
        ]
        found.exits = dict(stage.exits)
    found.violations += findings.violations(found)
    found.violations += findings.slow(found, settle=options.settle, takeover=options.takeover)
    return findings.report(
        found,
        seed=options.seed,
        executions=options.executions,
        settle=options.settle,
        took=time.monotonic() - begin,
    )


# ---------------------------------------------------------------------- what happens
def register(stage: Stage) -> None:
    with Client(stage.direct_api()) as client:
        for text in ALL.values():
            client.register(text)


def starts(options: Options, witness: Witness, count: int, name: str) -> list[Start]:
    """*count* starts, of all playbooks with all numbers in turn."""
    paths = list(STARTED)
    return [
        Start(
            f"{name}-{options.seed}-{number}",
            paths[number % len(paths)],
            {
                "n": number // len(paths) % VARIANTS,
                "slow": options.slow,
                "witness": str(witness.path),
            },
        )
        for number in range(count)
    ]


def in_peace(stage: Stage, witness: Witness, options: Options, found: Findings) -> None:
    """Run each playbook with each number while nothing is broken."""
    load = Load(stage.api("client"))
    load.run(starts(options, witness, len(STARTED) * VARIANTS, "peace"), per_second=20)
    if not wait_ended(stage.servers.postgres.url, len(load.accepted), seconds=90):
        raise AssertionError(f"not even in peace does everything end; see {stage.home}/logs")
    found.peace = read_log(stage.servers.postgres.url)
    log.info("chaos.peace", executions=len(found.peace))


def under_fire(
    stage: Stage, witness: Witness, options: Options, faults: Sequence[Fault], found: Findings
) -> None:
    """Run the load and the plan side by side, and wait until everything has ended."""
    load, saboteur = Load(stage.api("client")), Saboteur(stage, faults)
    wanted = starts(options, witness, options.executions, "fire")
    rate = options.executions / options.seconds
    starting = threading.Thread(target=load.run, args=(wanted,), kwargs={"per_second": rate})
    starting.start()
    try:
        saboteur.run()
        until = time.monotonic() + options.settle
        starting.join(options.settle)
    finally:
        load.over.set()
        starting.join()
    wait_ended(stage.servers.postgres.url, 0, seconds=max(0.0, until - time.monotonic()) + 5)
    found.over = time.time()
    found.incidents, found.accepted, found.answers = saboteur.incidents, load.accepted, load.answers
    found.violations += [Violation("double-start", 0, key) for key in load.doubles]
    found.violations += [Violation("refused", 0, said) for said in load.refused]
    missing = [start.key for start in wanted if start.key not in load.accepted]
    found.violations += [Violation("never-accepted", 0, key) for key in missing]


def wait_ended(database_url: str, least: int, *, seconds: float) -> bool:
    """Wait until there are *least* executions and none runs any more; whether that came to be."""
    deadline = time.monotonic() + seconds
    ask = "SELECT count(*), count(*) FILTER (WHERE status = 'RUNNING') FROM noetl.execution"
    with psycopg.connect(database_url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            row = connection.execute(ask).fetchone()
            if row is not None and row[0] >= least and row[1] == 0:
                return True
            time.sleep(0.2)
    return False


# ---------------------------------------------------------------------- what is read
def read_log(database_url: str) -> Log:
    """All events of all executions, in order."""
    database = Database(database_url, pool_size=1, application_name="chaos")
    try:
        events = PostgresLog(database)
        with psycopg.connect(database_url) as connection:
            rows = connection.execute("SELECT DISTINCT execution_id FROM noetl.event").fetchall()
        return {execution_id: events.read(execution_id) for (execution_id,) in sorted(rows)}
    finally:
        database.close()


def verified(stage: Stage, log: Log) -> Iterator[Violation]:
    """What the system itself finds when it compares all it shows with the log, replayed from its begin."""

    def ask(execution_id: int) -> list[Violation]:
        try:
            answer = client.verify(execution_id)
        except CallboardError as exc:
            return [Violation("verify", execution_id, str(exc))]
        return [Violation("verify", execution_id, str(finding)) for finding in answer["findings"]]

    with Client(stage.direct_api()) as client, ThreadPoolExecutor(4) as pool:
        for violations in pool.map(ask, log):
            yield from violations
