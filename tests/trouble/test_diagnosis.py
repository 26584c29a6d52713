"""What the doctor makes of facts: a table of what was found and what must be said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.engine.ports import Overdue, RuntimeEntry
from app.services.diagnosis import Facts, diagnose
from app.services.fleet import Fleet, Process, fleet_of

LEASE = 15.0


def worker(name: str = "w1", **more: object) -> Process:
    told = {"version": "1", "pool": "default", "queues": ("default.cpu",), "capacity": 2}
    return Process(name, "worker_pool", **{**told, **more})  # type: ignore[arg-type]  # of the tests


ORCHESTRATOR = Process("o1", "orchestrator", version="1")
SCHEDULER = Process("s1", "scheduler", status="leader", version="1", known=100)
WELL = Facts(Fleet([ORCHESTRATOR, SCHEDULER, worker()], LEASE), "1")


def with_workers(*workers: Process, **facts: object) -> Facts:
    fleet = Fleet([ORCHESTRATOR, SCHEDULER, *workers], LEASE)
    return replace(WELL, fleet=fleet, **facts)  # type: ignore[arg-type]  # of the tests


def without(kind: str) -> Facts:
    left = [process for process in WELL.fleet.processes if process.kind != kind]
    return replace(WELL, fleet=Fleet(left, LEASE))


def late(seconds: float = 20, count: int = 3, queue: str = "default.cpu") -> dict[str, object]:
    return {"overdue": [Overdue(queue, count, seconds)]}


def told(facts: Facts) -> list[tuple[str, str]]:
    """(check, message) of all that is wrong; every one has a remedy, and none is an error."""
    wrong = [check for check in diagnose(facts) if not check.ok]
    assert all(check.remedy and check.severity == "warning" for check in wrong)
    return [(check.name, check.message) for check in wrong]


def test_all_well_is_a_check_per_subject() -> None:
    assert told(WELL) == []
    assert [check.name for check in diagnose(WELL)] == [
        "orchestrators",
        "schedulers",
        "workers",
        "silent",
        "queues",
        "leases",
        "wakes",
        "versions",
        "clocks",
    ]


@pytest.mark.parametrize(
    ("facts", "name", "words"),
    [
        pytest.param(
            without("orchestrator"), "orchestrators", "stand still", id="no orchestrator is alive"
        ),
        pytest.param(
            without("scheduler"), "schedulers", "no scheduler is alive", id="no scheduler is alive"
        ),
        pytest.param(
            replace(
                WELL,
                fleet=Fleet([ORCHESTRATOR, replace(SCHEDULER, status="standby"), worker()], LEASE),
            ),
            "schedulers",
            "none of s1 leads",
            id="schedulers are alive and none leads",
        ),
        pytest.param(without("worker_pool"), "workers", "no worker is alive", id="no worker"),
        pytest.param(
            with_workers(worker(), worker("w2", silent=40.0)),
            "silent",
            "worker w2 gave no sign of life for 40 s",
            id="a process fell silent without signing off",
        ),
        pytest.param(
            with_workers(worker(), **late(queue="gpu.cpu")),
            "queues",
            "3 steps wait since 20 s for a worker of pool 'gpu' (queue 'cpu'), which has none",
            id="a pool has no worker",
        ),
        pytest.param(
            with_workers(worker(queues=("default.io",)), **late(count=1)),
            "queues",
            "1 step waits since 20 s for a worker of pool 'default' (queue 'cpu')",
            id="workers of the pool serve other queues",
        ),
        pytest.param(
            with_workers(worker(in_progress=2, idle=30.0), **late(90)),
            "queues",
            "all 2 slots of w1 are busy",
            id="all slots are busy",
        ),
        pytest.param(
            with_workers(worker(in_progress=0, idle=30.0), **late()),
            "queues",
            "w1, alive and with free slots, claimed nothing for 30 s: wedged",
            id="a pool beats and claims nothing",
        ),
        pytest.param(
            with_workers(worker(idle=30.0), worker("w2", idle=1.0), **late(90)),
            "queues",
            "while w1, w2 claims others",
            id="one of two workers claims",
        ),
        pytest.param(
            with_workers(worker(), expired={"w9": 2}),
            "leases",
            "2 attempts held by w9",
            id="leases ran out",
        ),
        pytest.param(
            with_workers(worker(), wakes=7, unwoken=12.0),
            "wakes",
            "7 executions wait to be decided on, and no orchestrator took one for 12 s",
            id="wakes are not taken",
        ),
        pytest.param(
            with_workers(worker(), worker("w2", version="0.9")),
            "versions",
            "this server is version 1, and there are others: 0.9: w2",
            id="versions are mixed",
        ),
        pytest.param(
            with_workers(worker(host="blade", clock_ahead=-90.0)),
            "clocks",
            "the clock of blade is 90 s behind the database's",
            id="a clock is wrong",
        ),
    ],
)
def test_each_trouble_is_named_alone(facts: Facts, name: str, words: str) -> None:
    ((found, message),) = told(facts)
    assert found == name
    assert words in message


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(with_workers(worker(idle=30.0), **late(2.0)), id="a step waits for seconds"),
        pytest.param(
            with_workers(worker(), wakes=900, unwoken=0.5), id="many wakes, and they are taken"
        ),
        pytest.param(with_workers(worker(), wakes=None, unwoken=None), id="NATS does not tell"),
        pytest.param(
            with_workers(worker(clock_ahead=1.5)), id="clocks differ by a heartbeat's way"
        ),
        pytest.param(
            replace(
                WELL,
                fleet=Fleet(
                    [ORCHESTRATOR, replace(SCHEDULER, status="standby", known=2.0), worker()], LEASE
                ),
            ),
            id="a scheduler has just begun and does not lead yet",
        ),
    ],
)
def test_what_is_no_trouble(facts: Facts) -> None:
    assert told(facts) == []


def test_a_backlog_is_told_before_it_is_wrong() -> None:
    (queues,) = [
        check
        for check in diagnose(with_workers(worker(in_progress=2), **late(20)))
        if check.name == "queues"
    ]
    assert queues.ok
    assert "3 steps wait since 20 s in default.cpu: all 2 slots of w1 are busy" in queues.message


def test_a_worker_that_has_just_begun_to_wait_is_not_wedged() -> None:
    fleet = Fleet([worker(idle=60.0)], LEASE)
    assert fleet.condition("default.cpu", 3.0) == "moving"
    assert fleet.condition("default.cpu", 30.0) == "stuck"


def test_heartbeats_that_say_nonsense_say_nothing() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    entry = RuntimeEntry(
        "w",
        "worker_pool",
        labels={"pool": 7, "queues": "default.cpu"},
        runtime={"version": ["1"], "clock": "noon", "idle": True, "in_progress": None},
        heartbeat=now - timedelta(seconds=4),
        created_at=now - timedelta(seconds=60),
    )
    (process,) = fleet_of([entry], now, lease=LEASE).processes
    assert process == Process("w", "worker_pool", silent=4.0, known=60.0)


def test_a_clock_is_compared_with_the_moment_of_its_heartbeat() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    beat = now - timedelta(seconds=4)
    entry = RuntimeEntry(
        "w",
        "worker_pool",
        runtime={"clock": beat.timestamp() + 90},
        heartbeat=beat,
        created_at=beat,
    )
    (process,) = fleet_of([entry], now, lease=LEASE).processes
    assert process.clock_ahead == pytest.approx(90)
