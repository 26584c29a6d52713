"""Real processes that are stopped, frozen and missing, and what the doctor and ``why`` say of it."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app.version import software_version
from app.wire import Beat
from tests.system.plane import System, readable_home

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: trouble}\n"
GPU = f"{HEAD}workflow: [{{step: start, pool: gpu, tool: {{kind: noop}}}}]"
SLEEPS = f"{HEAD}workflow: [{{step: start, tool: {{kind: shell, cmd: 'sleep 600'}}}}]"
FAILS = f"""{HEAD}workload: {{n: 7}}
workflow: [{{step: start, tool: {{kind: shell, cmd: 'echo got {{{{ workload.n }}}}; exit 3'}}}}]
"""
QUICK = f"{HEAD}workflow: [{{step: start, tool: {{kind: noop}}}}]"
#: What only an orchestrator decides.
WIDE = QUICK.replace("}}]", "}, loop: {in: [1], iterator: i, spec: {mode: parallel}}}]")


#: Seconds for what takes a few: these tests start and freeze processes, on machines that are busy.
PATIENCE = 100.0
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def watched() -> Iterator[System]:
    with (
        tempfile.TemporaryDirectory(prefix="cb-") as home,
        System(readable_home(Path(home))) as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def well(watched: System) -> None:
    """Each test begins where all is well."""
    watched.until(
        lambda: watched.client.doctor()["status"] == "well", "all to be well", seconds=PATIENCE
    )


def said(watched: System, name: str, words: str) -> dict[str, Any] | None:
    """The check *name* of the doctor that is not ok and says *words*."""
    for check in watched.client.doctor()["checks"]:
        if check["name"] == name and not check["ok"] and words in check["message"]:
            assert check["remedy"]
            return dict(check)
    return None


def told(watched: System, name: str, words: str) -> dict[str, Any]:
    found = watched.until(lambda: said(watched, name, words), f"{name}: {words}", seconds=PATIENCE)
    return dict(found)


def because(watched: System, execution_id: str, code: str) -> dict[str, Any]:
    """The reason for the execution, once it has *code*."""

    def reason() -> dict[str, Any] | None:
        found = watched.client.why(execution_id)["reason"]
        return dict(found) if found["code"] == code else None

    return dict(watched.until(reason, f"the reason {code}", seconds=PATIENCE))


def test_heartbeats_say_version_host_and_claims(watched: System) -> None:
    watched.run(QUICK)

    def claimed() -> bool:
        (worker,) = watched.client.pools()
        runtime = worker["runtime"]
        assert runtime["version"] == software_version()
        assert runtime["host"]
        return bool(runtime["claims"] >= 1 and runtime["reports"] >= 1 and runtime["idle"] >= 0)

    watched.until(claimed, "the worker to say what it claimed")


def test_a_pool_without_a_worker(watched: System) -> None:
    execution_id = watched.begin(GPU)
    check = told(watched, "queues", "for a worker of pool 'gpu' (queue 'io'), which has none")
    assert "CALLBOARD_POOL=gpu" in check["remedy"]
    assert check["severity"] == "warning"
    reason = because(watched, execution_id, "no_worker")
    assert reason["because"].startswith("Nothing is lost: step start waits since")
    assert watched.client.health()["status"] == "ready", "the server itself can serve"
    watched.client.cancel(execution_id)


def test_a_frozen_worker_is_silent_and_its_lease_runs_out(watched: System) -> None:
    execution_id = watched.begin(SLEEPS)
    running = because(watched, execution_id, "running")
    assert "its last heartbeat was" in running["because"]
    worker = watched.processes["worker"]
    scheduler = watched.processes["scheduler"]
    worker.send_signal(signal.SIGSTOP)
    scheduler.send_signal(signal.SIGSTOP)
    try:
        check = told(watched, "silent", f"worker worker-{os.uname().nodename}-{worker.pid}-")
        assert "gave no sign of life" in check["message"]
        told(watched, "schedulers", "no scheduler is alive")
        told(watched, "workers", "no worker is alive")
        check = told(watched, "leases", "1 attempt held by worker-")
        assert "is one alive?" in check["remedy"]
        reason = because(watched, execution_id, "expired")
        assert reason["needs_help"]
        assert "its lease has run out" in reason["because"]
        scheduler.send_signal(signal.SIGCONT)
        # While the worker stands still: a sign of life of it would renew the lease.
        watched.until(
            lambda: _outcomes(watched, execution_id)[:1] == ["expired"], "the attempt to be taken"
        )
    finally:
        scheduler.send_signal(signal.SIGCONT)
        worker.send_signal(signal.SIGCONT)
    watched.client.cancel(execution_id)


def _outcomes(watched: System, execution_id: str) -> list[str]:
    (step,) = watched.client.why(execution_id, "start")["steps"]
    return [one["outcome"] for unit in step["units"] for one in unit["attempts"]]


def test_an_orchestrator_that_is_frozen(watched: System) -> None:
    process = watched.processes["orchestrator"]
    process.send_signal(signal.SIGSTOP)
    try:
        execution_id = watched.begin(WIDE)
        told(watched, "orchestrators", "no orchestrator is alive")
        told(watched, "wakes", "1 execution waits to be decided on, and no orchestrator took one")
        reason = because(watched, execution_id, "lag")
        assert "no orchestrator is alive" in reason["because"]
        assert "python -m app.orchestrator" in reason["remedy"]
    finally:
        process.send_signal(signal.SIGCONT)
    assert watched.wait(execution_id)["status"] == "COMPLETED"


def test_workers_that_beat_and_claim_nothing(watched: System) -> None:
    """The server delivers nothing to them: their consumer is paused."""
    from tests.trouble.test_servers import on_nats

    assert watched.stack.nats is not None
    on_nats(
        watched.stack.nats,
        lambda js: js.pause_consumer("callboard_STEPS", "default=2Eio", "2100-01-01T00:00:00Z"),
    )
    try:
        execution_id = watched.begin(QUICK)
        check = told(watched, "queues", "claimed nothing for")
        assert "wedged" in check["message"]
        assert "start the workers again" in check["remedy"]
        told(watched, "consumers", "is paused")
        assert because(watched, execution_id, "wedged")["needs_help"]
    finally:
        on_nats(
            watched.stack.nats,
            lambda js: js.resume_consumer("callboard_STEPS", "default=2Eio"),
        )
    assert watched.wait(execution_id)["status"] == "COMPLETED"


def test_another_version_and_another_clock(watched: System) -> None:
    name = "worker-of-old"
    beat = Beat(name=name, runtime={"version": "0.0.1", "clock": 1_000_000_000.0, "host": "attic"})
    watched.client.beat(beat)
    try:
        found = told(watched, "versions", f"0.0.1: {name}")
        assert "finish the upgrade" in found["remedy"]
        found = told(watched, "clocks", "the clock of attic is")
        assert "behind the database's" in found["message"]
    finally:
        assert watched.client.leave("worker_pool", name)


def test_why_a_step_failed(watched: System) -> None:
    status = watched.run(FAILS)
    assert status["status"] == "FAILED"
    found = watched.client.why(status["execution_id"])
    assert found["reason"]["because"].startswith("It failed: ")
    (step,) = found["steps"]
    assert step["error"]["rendered"] == {"cmd": "echo got 7; exit 3"}
    assert step["written"]["cmd"] == "echo got {{ workload.n }}; exit 3"
    assert step["tail"] == "got 7\n"
    ((attempt,),) = [unit["attempts"] for unit in step["units"]]
    assert (attempt["attempt"], attempt["outcome"]) == (1, "failed")
    assert attempt["worker"].startswith("worker-")
    assert attempt["started"] <= attempt["ended"]
    assert attempt["duration_ms"] > 0


def test_a_migration_that_is_behind_turns_readiness_red(watched: System) -> None:
    with psycopg.connect(watched.stack.database_url, autocommit=True) as connection:
        connection.execute("UPDATE noetl.alembic_version SET version_num = '0001'")
        watched.until(lambda: watched.client.health()["status"] == "unready", "readiness to be red")
        assert said(watched, "migrations", "is at revision 0001") is not None
        from app.store.migrations import head

        connection.execute("UPDATE noetl.alembic_version SET version_num = %s", [head()])
    watched.until(lambda: watched.client.health()["status"] == "ready", "readiness to be green")
