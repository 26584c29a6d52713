"""What a cancel stops, with the settings that everybody has: every tool, every child, in seconds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from app.settings import Settings
from tests.system.plane import System, readable_home

#: Seconds in which whatever a cancelled execution runs has stopped.
PROMISED = 5.0
MARK = "canary_of_the_cancel"

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\n"
CHILD = f"""{HEAD}metadata: {{name: cancelled/child}}
workflow:
- step: start
  tool: {{kind: shell, command: "exec -a {MARK}_in_child sleep 600", shell: /bin/bash}}
"""
PARENT = f"""{HEAD}metadata: {{name: cancelled/parent}}
workload: {{folder: ""}}
workflow:
- step: start
  next:
    spec: {{mode: inclusive}}
    arcs: [{{step: program}}, {{step: command}}, {{step: query}}, {{step: table}}, {{step: below}}]
- step: program
  tool:
    kind: python
    code: |
      import subprocess
      subprocess.run(["bash", "-c", "exec -a {MARK}_in_python sleep 600"])
- {{step: command, tool: {{kind: shell, command: "exec -a {MARK}_in_shell sleep 600", shell: /bin/bash}}}}
- step: query
  tool: {{kind: postgres, auth: warehouse, query: "SELECT pg_sleep(600) /* {MARK} */"}}
- step: table
  tool:
    kind: duckdb
    query: "SELECT count(*) FROM range(1000000000) a, range(1000000000) b /* {MARK} */"
- {{step: below, tool: {{kind: playbook, path: cancelled/child, return_step: start}}}}
"""


@pytest.fixture
def ordinary() -> Iterator[System]:
    """A system with the default settings; its worker says when it has done with a step."""
    with (
        tempfile.TemporaryDirectory(prefix="cb-") as home,
        System(readable_home(Path(home)), settings={"CALLBOARD_LOG_LEVEL": "debug"}) as running,
    ):
        yield running


def programs() -> set[str]:
    """The names under which steps of this test run programs."""
    lines = [process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"])]
    return {line[0] for line in lines if line[0].startswith(MARK)}


def queries(system: System) -> int:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s AND pid <> pg_backend_pid()"
    assert system.stack.warehouse_url is not None
    with psycopg.connect(system.stack.warehouse_url) as connection:
        row = connection.execute(sql, [f"%{MARK}%"]).fetchone()
    return int(row[0]) if row else 0


def test_a_cancel_stops_every_running_tool_and_child_within_seconds(ordinary: System) -> None:
    ordinary.client.register(CHILD)
    parent = ordinary.begin(PARENT)
    ordinary.until(lambda: len(programs()) == 3 and queries(ordinary) == 1, "all of it to run")
    before = ran(ordinary)

    told = time.monotonic()
    cancelled = ordinary.client.cancel(parent)
    assert len(cancelled["cancelled_executions"]) == 2
    ordinary.until(lambda: not programs() and not queries(ordinary), "all of it to stop")
    ordinary.until(lambda: ran(ordinary) == before + 5, "the worker to be free")
    assert time.monotonic() - told < PROMISED

    for execution_id in cancelled["cancelled_executions"]:
        events = ordinary.client.events(execution_id, page_size=500)
        assert events[-1]["type"] == "execution.cancelled"
        assert ordinary.client.verify(execution_id)["ok"]
    assert Settings().heartbeat < PROMISED / 1.5, "the next heartbeat is when a worker hears of it"


def ran(system: System) -> int:
    """Steps that the worker has done with."""
    return sum(line["event"] == "step.ran" for line in system.log("worker"))
