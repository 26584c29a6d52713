"""``callboard logs`` against the real API, with workers behind it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.client import Client
from app.settings import process_environment
from tests.cli.fakes import Call
from tests.places import reachable

HEAD = "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: talks, path: tests/talks}\n"
TALKS = (
    HEAD
    + """
workflow:
- step: start
  tool: {kind: shell, command: "echo one; echo two; echo bad >&2"}
  next: {arcs: [{step: end}]}
- step: end
  tool: {kind: shell, command: "printf three"}
"""
)
WAITS = (
    HEAD.replace("talks", "waits")
    + """
workload: {folder: ""}
workflow:
- step: start
  tool:
    kind: shell
    command: |
      echo before
      while [ ! -e {{ folder }}/go ]; do sleep 0.01; done
      echo after
"""
)


@pytest.fixture(scope="module")
def client(api: str) -> Iterator[Client]:
    with Client(api) as connected:
        for playbook in (TALKS, WAITS):
            connected.register(playbook)
        yield connected


@pytest.fixture(scope="module")
def talked(api: str, client: Client) -> str:
    """An execution that has ended, and what its steps printed with it."""
    execution_id = client.execute("tests/talks").execution_id
    after = "0"
    while not (page := client.output(execution_id, after=after, wait=30))["ended"]:
        after = page["next"]
    return execution_id


def test_lines_begin_with_their_step(call: Call, api: str, talked: str) -> None:
    result = call("logs", talked, "-s", api, "--stream", "stdout")
    assert result.stdout == "start | one\nstart | two\nend | three"
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["--step", "start", "--stream", "stdout"], "one\ntwo\n"),
        (["--step", "end"], "three"),
        (["--stream", "stderr"], "start | bad\n"),
        (["--stream", "stdout", "--tail", "2"], "start | two\nend | three"),
        (["--tail", "0"], ""),
        (["--step", "start", "--stream", "stdout", "--follow"], "one\ntwo\n"),
        (["--step", "end", "--follow", "--tail", "5"], "three"),
    ],
)
def test_what_is_asked_for(
    call: Call, api: str, talked: str, options: list[str], shown: str
) -> None:
    result = call("logs", talked, "-s", api, *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, shown, "")


def test_as_json_each_line_is_a_piece(call: Call, api: str, talked: str) -> None:
    result = call("logs", talked, "-s", api, "--step", "end", "--json")
    (piece,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert (piece["step"], piece["stream"], piece["text"]) == ("end", "stdout", "three")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["{}", "--step", "none"], 0, "step none of execution {} has printed nothing"),
        (["{}", "--step", "end", "--stream", "stderr"], 0, "has printed nothing to stderr"),
        (["4711"], 1, "there is no execution 4711"),
        (["abc"], 2, "is not the id of an execution"),
        (["{}", "--stream", "both"], 2, "both"),
    ],
)
def test_what_is_not_there_is_said(
    call: Call, api: str, talked: str, *, words: list[str], code: int, said: str
) -> None:
    result = call("logs", *(word.format(talked) for word in words), "-s", api)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said.format(talked) in result.stderr


@pytest.fixture
def folder() -> Iterator[Path]:
    with reachable(0o755) as made:
        yield made


@contextmanager
def follower(api: str, execution_id: str, home: Path) -> Iterator[subprocess.Popen[str]]:
    """``callboard logs --follow`` in a process of its own, which ends with the block."""
    command = [sys.executable, "-m", "app.cli", "logs", execution_id, "-s", api, "-f"]
    with subprocess.Popen(
        command,
        env={**process_environment(), "CALLBOARD_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_followed_live_until_the_end(api: str, client: Client, home: Path, folder: Path) -> None:
    execution_id = client.execute("tests/waits", {"folder": str(folder)}).execution_id
    with follower(api, execution_id, home) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "start | before\n"
        (folder / "go").touch()
        told, wrong = process.communicate(timeout=60)
        assert (process.returncode, told, wrong) == (0, "start | after\n", "")


def test_ctrl_c_ends_it_and_nothing_else(
    api: str, client: Client, home: Path, folder: Path
) -> None:
    execution_id = client.execute("tests/waits", {"folder": str(folder)}).execution_id
    with follower(api, execution_id, home) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "start | before\n"
        process.send_signal(signal.SIGINT)
        _, wrong = process.communicate(timeout=60)
        assert (process.returncode, wrong) == (130, "stopped looking on\n")
    assert client.status(execution_id)["status"] == "RUNNING"
    (folder / "go").touch()
