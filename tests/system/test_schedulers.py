"""Of several schedulers one leads; where it is frozen with its lock, another does its work."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.system.plane import System, readable_home

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: schedulers}\n"
SLEEPS = f"{HEAD}workflow: [{{step: start, tool: {{kind: shell, cmd: 'sleep 600'}}}}]"


@pytest.fixture
def pair() -> Iterator[System]:
    """A system with a second scheduler, under the name ``other``."""
    with (
        tempfile.TemporaryDirectory(prefix="cb-") as home,
        System(readable_home(Path(home))) as running,
    ):
        running.until(lambda: _said(running, "scheduler", "scheduler.leads"), "one to lead")
        log = running.home / "other.log"
        running.processes["other"] = running.launch("scheduler", running.environment(), log)
        yield running


def _said(system: System, name: str, what: str) -> bool:
    return any(line["event"] == what for line in system.log(name))


def test_a_frozen_leader_keeps_nobody_from_repairing(pair: System) -> None:
    execution_id = pair.begin(SLEEPS)
    pair.until(lambda: "step.started" in types(pair, execution_id), "the step to run")
    leader = pair.processes["scheduler"]
    leader.send_signal(signal.SIGSTOP)
    try:
        pair.kill("worker")
        pair.until(lambda: "attempt.expired" in types(pair, execution_id), "the attempt to expire")
        assert _said(pair, "other", "scheduler.deputises")
        assert not _said(pair, "other", "scheduler.leads")
    finally:
        leader.send_signal(signal.SIGCONT)
    pair.until(lambda: _said(pair, "other", "scheduler.stands_by"), "the other to stand by")
    pair.client.cancel(execution_id)


def test_a_leader_that_froze_before_it_said_so_keeps_nobody_from_repairing(pair: System) -> None:
    leader = pair.processes["scheduler"]
    leader.send_signal(signal.SIGSTOP)
    try:
        # As where it froze between taking the lead and its next heartbeat, or was forgotten since.
        with psycopg.connect(pair.stack.database_url) as connection:
            connection.execute("DELETE FROM noetl.runtime WHERE kind = 'scheduler'")
        pair.until(lambda: _said(pair, "other", "scheduler.deputises"), "the other to repair")
    finally:
        leader.send_signal(signal.SIGCONT)


def types(system: System, execution_id: str) -> list[str]:
    return [event["type"] for event in system.client.events(execution_id)]
