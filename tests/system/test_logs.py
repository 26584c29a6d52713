"""What a step prints, through all processes: seen while it runs, and whole when it has ended."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from tests.system.plane import System, readable_home

TALKS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: talks, path: tests/talks}
workload: {folder: "", lines: 3}
workflow:
- step: start
  tool:
    kind: python
    input: {folder: "{{ folder }}", lines: "{{ lines }}"}
    code: |
      import pathlib, sys, time
      for number in range(lines):
          print(f"line {number}", flush=True)
          print(f"error {number}", file=sys.stderr, flush=True)
          while not (pathlib.Path(folder) / str(number)).exists():
              time.sleep(0.01)
      print("unfinished", end="")
      result = {"lines": lines}
"""
FLOODS = """
apiVersion: noetl.io/v2
kind: Playbook
metadata: {name: floods, path: tests/floods}
workflow:
- step: start
  loop: {in: "{{ range(8) | list }}", iterator: i, spec: {mode: parallel}}
  tool:
    kind: python
    input: {i: "{{ iter.i }}"}
    code: |
      for number in range(20000):
          print(f"{i}: {number}")
      result = i
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that the step can look into, whoever it runs as."""
    with tempfile.TemporaryDirectory(prefix="cb-") as path:
        yield readable_home(Path(path))


def test_a_step_is_followed_while_it_runs(system: System, folder: Path) -> None:
    execution_id = system.begin(TALKS, {"folder": str(folder)})
    command = [sys.executable, "-m", "app.cli", "logs", execution_id, "--follow"]
    command += ["--server-url", system.client.url, "--step", "start", "--stream", "stdout"]
    with Popen(command, env=system.environment(), stdout=PIPE, text=True) as follower:
        assert follower.stdout is not None
        for number in range(3):
            # The step goes on only when this line has been seen outside.
            assert follower.stdout.readline() == f"line {number}\n"
            assert system.client.status(execution_id)["status"] == "RUNNING"
            (folder / str(number)).touch()
        assert follower.stdout.read() == "unfinished"
        assert follower.wait(60) == 0
    assert system.wait(execution_id)["status"] == "COMPLETED"
    page = system.client.output(execution_id)
    assert said(page, "stdout") == "line 0\nline 1\nline 2\nunfinished"
    assert said(page, "stderr") == "error 0\nerror 1\nerror 2\n"
    assert page["ended"] is True


def said(page: dict[str, Any], stream: str, iteration: int = -1) -> str:
    return "".join(
        piece["text"]
        for piece in page["chunks"]
        if (piece["stream"], piece["iteration"]) == (stream, iteration)
    )


def test_whoever_sees_the_end_finds_all_of_it(system: System) -> None:
    status = system.run(FLOODS)
    assert status["status"] == "COMPLETED", status
    execution_id = status["execution_id"]
    for iteration in range(8):
        page = system.client.output(execution_id, iteration=iteration)
        assert page["ended"] is True
        whole = "".join(f"{iteration}: {number}\n" for number in range(20_000))
        assert said(page, "stdout", iteration) == whole
    # None of it is in the log of events, beyond the end.
    largest = max(len(str(event)) for event in system.client.events(execution_id))
    assert largest < 5_000
