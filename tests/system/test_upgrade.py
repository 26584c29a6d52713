"""An orchestrator that was rolled back: the log holds an event that the processes do not know."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from app.cli.root import cli
from app.errors import CallboardError
from tests.system.plane import MODULES, System, readable_home

WAITS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: waits, path: tests/waits}
workload: {file: ""}
workflow:
- step: start
  tool:
    kind: python
    input: {file: "{{ file }}"}
    code: |
      import pathlib, time
      while not pathlib.Path(file).exists():
          time.sleep(0.01)
      result = "it is there"
  next: {arcs: [{step: end}]}
- {step: end, tool: {kind: noop, result: "{{ start }}"}}
"""
PEACEFUL = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: peaceful, path: tests/peaceful}
workflow: [{step: start, tool: {kind: noop, result: well}}]
"""
#: What the newer version wrote: to this one's eyes a type it has never heard of.
NEWER = """
INSERT INTO noetl.event (execution_id, seq, type, step, visit, iteration, payload)
SELECT execution_id, max(seq) + 1, 'step.reviewed', 'start', 1, -1, '{"values": {"seen": true}}'
FROM noetl.event WHERE execution_id = %s GROUP BY execution_id
"""
#: The upgrade: from now on everybody knows what such a row says. (The log refuses changes.)
UPGRADE = """
ALTER TABLE noetl.event DISABLE TRIGGER USER;
UPDATE noetl.event SET type = 'ctx.updated' WHERE type = 'step.reviewed';
ALTER TABLE noetl.event ENABLE TRIGGER USER
"""


def execute(system: System, statement: str, *parameters: Any) -> None:
    with psycopg.connect(system.stack.database_url) as connection:
        connection.execute(statement, parameters or None)


@pytest.fixture
def file() -> Iterator[Path]:
    """A file that the step waits for, in a folder that it can look into, whoever it runs as."""
    with tempfile.TemporaryDirectory(prefix="cb-") as folder:
        yield readable_home(Path(folder)) / "go"


def call(system: System, *words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--server-url", system.client.url])


def stops(system: System) -> list[dict[str, Any]]:
    return [line for line in system.log("orchestrator") if line["event"] == "advance.stopped"]


def test_an_event_of_a_newer_version_stops_its_execution_and_no_other(
    system: System, file: Path
) -> None:
    before = {module: system.processes[module].pid for module in MODULES}
    execution_id = system.begin(WAITS, {"file": str(file)})
    system.until(
        lambda: any(row["type"] == "step.started" for row in system.client.events(execution_id)),
        "the step to run",
    )
    execute(system, NEWER, int(execution_id))
    file.touch()

    # The orchestrator comes back to it again and again, says why, and does not fall over.
    system.until(lambda: len(stops(system)) >= 3, "the orchestrator to say so")
    message = f"of execution {execution_id} has the type 'step.reviewed'"
    assert all(
        message in line["error"] and "newer version" in line["error"] for line in stops(system)
    )
    assert not any("exception" in line for line in stops(system))
    assert system.run(PEACEFUL)["status"] == "COMPLETED"

    # Everybody who asks is told the same.
    for ask in (system.client.status, system.client.events, system.client.result):
        with pytest.raises(CallboardError, match=message) as told:
            ask(execution_id)
        assert "a newer version wrote it" in (told.value.remedy or "")
    for command in ("status", "events", "replay"):
        answer = call(system, command, execution_id)
        assert (answer.exit_code, message in answer.stderr) == (1, True), answer.output
        assert "a newer version wrote it" in answer.stderr
    verified = json.loads(call(system, "verify", execution_id, "--json").stdout)
    assert any(message in finding["message"] for finding in verified["findings"])
    (row,) = [row for row in system.client.executions() if row["execution_id"] == execution_id]
    assert row["status"] == "RUNNING"

    # Rolled forward, it goes on by itself from where it stood; nothing was lost meanwhile.
    execute(system, UPGRADE)
    assert system.wait(execution_id)["status"] == "COMPLETED"
    assert system.client.result(execution_id) == "it is there"
    assert system.client.verify(execution_id)["ok"]
    assert {module: system.processes[module].pid for module in MODULES} == before
    assert all(process.poll() is None for process in system.processes.values())
