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


#: Seconds for what takes a few: these tests start and freeze processes, on machines that are busy.
PATIENCE = 100.0
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with (
        tempfile.TemporaryDirectory(prefix="cb-") as home,
        System(readable_home(Path(home))) as running,
    ):
        yield running


@pytest.fixture(autouse=True)
def well(system: System) -> None:
    """Each test begins where all is well."""
    system.until(
        lambda: system.client.doctor()["status"] == "well", "all to be well", seconds=PATIENCE
    )


def said(system: System, name: str, words: str) -> dict[str, Any] | None:
    """The check *name* of the doctor that is not ok and says *words*."""
    for check in system.client.doctor()["checks"]:
        if check["name"] == name and not check["ok"] and words in check["message"]:
            assert check["remedy"]
            return dict(check)
    return None


def told(system: System, name: str, words: str) -> dict[str, Any]:
    found = system.until(lambda: said(system, name, words), f"{name}: {words}", seconds=PATIENCE)
    return dict(found)


def because(system: System, execution_id: str, code: str) -> dict[str, Any]:
    """The reason for the execution, once it has *code*."""

    def reason() -> dict[str, Any] | None:
        found = system.client.why(execution_id)["reason"]
        return dict(found) if found["code"] == code else None

    return dict(system.until(reason, f"the reason {code}", seconds=PATIENCE))


def test_heartbeats_say_version_host_and_claims(system: System) -> None:
    system.run(QUICK)

    def claimed() -> bool:
        (worker,) = system.client.pools()
        runtime = worker["runtime"]
        assert runtime["version"] == software_version()
        assert runtime["host"]
        return bool(runtime["claims"] >= 1 and runtime["reports"] >= 1 and runtime["idle"] >= 0)

    system.until(claimed, "the worker to say what it claimed")


def test_a_pool_without_a_worker(system: System) -> None:
    execution_id = system.begin(GPU)
    check = told(system, "queues", "for a worker of pool 'gpu' (queue 'io'), which has none")
    assert "CALLBOARD_POOL=gpu" in check["remedy"]
    assert check["severity"] == "warning"
    reason = because(system, execution_id, "no_worker")
    assert reason["because"].startswith("Nothing is lost: step start waits since")
    assert system.client.health()["status"] == "ready", "the server itself can serve"
    system.client.cancel(execution_id)


def test_a_frozen_worker_is_silent_and_its_lease_runs_out(system: System) -> None:
    execution_id = system.begin(SLEEPS)
    running = because(system, execution_id, "running")
    assert "its last heartbeat was" in running["because"]
    worker = system.processes["worker"]
    scheduler = system.processes["scheduler"]
    worker.send_signal(signal.SIGSTOP)
    scheduler.send_signal(signal.SIGSTOP)
    try:
        check = told(system, "silent", f"worker worker-{os.uname().nodename}-{worker.pid}-")
        assert "gave no sign of life" in check["message"]
        told(system, "schedulers", "no scheduler is alive")
        told(system, "workers", "no worker is alive")
        check = told(system, "leases", "1 attempt held by worker-")
        assert "is one alive?" in check["remedy"]
        reason = because(system, execution_id, "expired")
        assert reason["needs_help"]
        assert "its lease has run out" in reason["because"]
    finally:
        scheduler.send_signal(signal.SIGCONT)
        worker.send_signal(signal.SIGCONT)
    attempts = system.until(
        lambda: _outcomes(system, execution_id)[:1] == ["expired"], "the attempt to be taken"
    )
    assert attempts
    system.client.cancel(execution_id)


def _outcomes(system: System, execution_id: str) -> list[str]:
    (step,) = system.client.why(execution_id, "start")["steps"]
    return [one["outcome"] for unit in step["units"] for one in unit["attempts"]]


def test_an_orchestrator_that_is_frozen(system: System) -> None:
    process = system.processes["orchestrator"]
    process.send_signal(signal.SIGSTOP)
    try:
        execution_id = system.begin(QUICK)
        told(system, "orchestrators", "no orchestrator is alive")
        told(system, "wakes", "1 execution waits to be decided on, and no orchestrator took one")
        reason = because(system, execution_id, "lag")
        assert "no orchestrator is alive" in reason["because"]
        assert "python -m app.orchestrator" in reason["remedy"]
    finally:
        process.send_signal(signal.SIGCONT)
    assert system.wait(execution_id)["status"] == "COMPLETED"


def test_workers_that_beat_and_claim_nothing(system: System) -> None:
    """The server delivers nothing to them: their consumer is paused."""
    from tests.trouble.test_servers import on_nats

    assert system.stack.nats is not None
    on_nats(
        system.stack.nats,
        lambda js: js.pause_consumer("callboard_STEPS", "default=2Eio", "2100-01-01T00:00:00Z"),
    )
    try:
        execution_id = system.begin(QUICK)
        check = told(system, "queues", "claimed nothing for")
        assert "wedged" in check["message"]
        assert "start the workers again" in check["remedy"]
        told(system, "consumers", "is paused")
        assert because(system, execution_id, "wedged")["needs_help"]
    finally:
        on_nats(
            system.stack.nats,
            lambda js: js.resume_consumer("callboard_STEPS", "default=2Eio"),
        )
    assert system.wait(execution_id)["status"] == "COMPLETED"


def test_another_version_and_another_clock(system: System) -> None:
    name = "worker-of-old"
    beat = Beat(name=name, runtime={"version": "0.0.1", "clock": 1_000_000_000.0, "host": "attic"})
    system.client.beat(beat)
    try:
        found = told(system, "versions", f"0.0.1: {name}")
        assert "finish the upgrade" in found["remedy"]
        found = told(system, "clocks", "the clock of attic is")
        assert "behind the database's" in found["message"]
    finally:
        assert system.client.leave("worker_pool", name)


def test_why_a_step_failed(system: System) -> None:
    status = system.run(FAILS)
    assert status["status"] == "FAILED"
    found = system.client.why(status["execution_id"])
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


def test_a_migration_that_is_behind_turns_readiness_red(system: System) -> None:
    with psycopg.connect(system.stack.database_url, autocommit=True) as connection:
        connection.execute("UPDATE noetl.alembic_version SET version_num = '0001'")
        system.until(lambda: system.client.health()["status"] == "unready", "readiness to be red")
        assert said(system, "migrations", "is at revision 0001") is not None
        from app.store.migrations import head

        connection.execute("UPDATE noetl.alembic_version SET version_num = %s", [head()])
    system.until(lambda: system.client.health()["status"] == "ready", "readiness to be green")
