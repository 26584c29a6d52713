"""The peers beside us: their report, their environments, and a tiny round where they are installed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bench.measure import Contender, Measured, Round, Series, alternate, measure
from bench.peers.__main__ import main
from bench.peers.catalogue import PEERS, Spec, named
from bench.peers.environments import EnvironmentFailedError, is_made, make, requirements
from bench.peers.programs.driver import NotEndedError, carry_out, poll
from bench.peers.report import table
from bench.report import report
from bench.sides import FailedRunError
from bench.stack import Side
from bench.usage import Usage
from bench.workloads import Chain, Growing, Loop, Plan, Wide, Workload

USED = Usage({"client": 1.0}, commits=4, wal=100, own=0.0, busy=2.0, capacity=10.0)


def _round(seconds: float) -> Round:
    return Round((seconds,), (), USED, events=20)


def _series(*rounds: Round) -> Series:
    return Series(rounds, {"client": 2**20}, {"client": 2**20})


SPECS = named(["celery", "procrastinate", "dramatiq"])
OURS = _series(_round(0.2), _round(0.4), _round(0.1))


def _data(workload: Chain | Wide, theirs: float) -> dict[str, Any]:
    peers = {"celery": _series(*[_round(theirs)] * 3)}
    data = report([Measured(Plan(workload, 3), OURS, OURS, peers)])
    missing = {"dramatiq": "no such package"}
    return data | {"absent": missing, "failed": {"procrastinate": {workload.name: "too slow"}}}


@pytest.mark.parametrize(
    ("workload", "theirs", "ours", "cell"),
    [
        pytest.param(
            *(Chain(steps=20), 0.1, "10.00 (20.00 to 5.00)", "5.00 (5.00 to 5.00) · 0.50"),
            id="less time is faster",
        ),
        pytest.param(
            *(Wide(steps=20), 0.4, "100 (50 to 200)", "50 (50 to 50) · 2.00"),
            id="more steps are faster",
        ),
    ],
)
def test_a_figure_has_its_slowest_and_fastest_round_and_our_ratio(
    workload: Chain | Wide, theirs: float, ours: str, cell: str
) -> None:
    text = table(_data(workload, theirs), SPECS)
    assert f"| Callboard | {ours} |" in text
    assert f"| Celery, durable Valkey | {cell} |" in text
    # One second of CPU in 20 steps; one of the machine's ten went to nobody that was measured.
    assert "| Celery, durable Valkey | 50.00, 10 % |" in text


def test_who_is_missing_is_named_with_the_reason() -> None:
    text = table(_data(Chain(steps=20), 0.1), SPECS)
    assert "| Dramatiq, durable Valkey |" not in text
    assert "- Dramatiq, durable Valkey was left out: no such package" in text
    assert "| Procrastinate | - |" in text
    assert "- Procrastinate has no W2: too slow" in text


def test_a_workload_that_no_peer_takes_part_in_has_no_column() -> None:
    data = _data(Chain(steps=20), 0.1)
    data["workloads"] += report([Measured(Plan(Loop(steps=20), 3), OURS, OURS)])["workloads"]
    assert "| | W2, ms/step |\n" in table(data, SPECS)
    assert "W6" not in table(data, SPECS)


def test_an_unknown_peer_or_workload_is_refused_before_anything_starts() -> None:
    with pytest.raises(SystemExit, match="no peer airflow; there are celery, dbos"):
        main(["--only", "airflow"])
    with pytest.raises(SystemExit, match="no workload W9; there are W1, W2, W3, W4"):
        main(["--workloads", "w9"])


def test_an_environment_names_all_peers_that_share_it() -> None:
    assert [spec.name for spec in named(["dbos"])] == ["dbos", "dbos-queue"]


@pytest.mark.parametrize("spec", PEERS, ids=lambda spec: spec.name)
def test_every_peer_has_pinned_requirements(spec: Spec) -> None:
    lines = requirements(spec.environment).read_text().splitlines()
    assert all("==" in line for line in lines if not line.startswith("#"))


def test_an_environment_that_cannot_be_made_says_why_and_is_not_there(tmp_path: Path) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text(f"{tmp_path}/nothing.whl\n")
    with pytest.raises(EnvironmentFailedError, match=r"nothing\.whl"):
        make("celery", tmp_path / "venvs", wanted)
    assert not is_made("celery", tmp_path / "venvs")


@pytest.mark.slow
def test_an_environment_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    wanted = tmp_path / "requirements.txt"
    wanted.write_text("# nothing\n")
    python = make("celery", tmp_path / "venvs", wanted)
    mark = python.parent / "mark"
    mark.touch()
    assert make("celery", tmp_path / "venvs", wanted) == python
    assert mark.exists()
    wanted.write_text("# something else\n")
    make("celery", tmp_path / "venvs", wanted)
    assert not mark.exists()


# ---------------------------------------------------------------------- the client
class Ledger:
    """A program whose steps end at once."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []

    def start(self, shape: str, steps: int) -> int:
        self.started.append((shape, steps))
        return steps

    def wait(self, started: Sequence[int]) -> None:
        poll(lambda: (len(started), 0), len(started))

    def outcomes(self, started: Sequence[int]) -> int:
        return sum(started)


@pytest.mark.parametrize(("together", "times"), [(False, 3), (True, 1)])
def test_a_round_is_timed_by_execution_or_as_a_whole(together: bool, times: int) -> None:
    program = Ledger()
    order = {"shape": "crowd", "steps": 5, "executions": 3, "together": together}
    done = carry_out(program, order)
    assert len(done["seconds"]) == times
    assert done["recorded"] == 15
    assert program.started == [("crowd", 5)] * 3


def test_an_execution_that_failed_ends_the_round() -> None:
    with pytest.raises(NotEndedError, match="1 of 2 executions failed"):
        poll(lambda: (1, 1), 2)


# ---------------------------------------------------------------------- taking turns
class Steady:
    """A contender whose executions end at once."""

    required: ClassVar[bool] = True
    side = Side("", "", {})
    rows: Any = None

    def takes(self, workload: Workload) -> bool:
        return True

    def prepare(self, workload: Workload) -> None:
        """Nothing to prepare."""

    def run(self, workload: Workload) -> tuple[list[float], list[int]]:
        return [0.1], []

    def events(self, executions: Sequence[int]) -> int:
        return 0

    def turn(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class Broken(Steady):
    required: ClassVar[bool] = False

    def run(self, workload: Workload) -> tuple[list[float], list[int]]:
        raise FailedRunError("it broke")


class Bystander(Broken):
    def takes(self, workload: Workload) -> bool:
        return False


def test_a_peer_that_fails_costs_itself_its_figures_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.measure.usage", lambda pids, rows: USED)  # no server, no usage
    monkeypatch.setattr("bench.measure.until_idle", lambda rows: None)
    said: list[str] = []
    sides: dict[str, Contender] = {"ours": Steady(), "theirs": Broken(), "other": Bystander()}
    rounds = alternate(Plan(Chain(), 2), sides, said.append)
    assert {name: len(series.rounds) for name, series in rounds.items()} == {"ours": 2}
    assert said == ["W2 chain of 1: 2 rounds", "W2: theirs is left out: it broke"]
    with pytest.raises(FailedRunError):
        alternate(Plan(Chain(), 2), {"ours": type("Us", (Broken,), {"required": True})()}, print)


class Witness(Steady):
    """Remembers what it was given to run."""

    def __init__(self) -> None:
        self.ran: list[Workload] = []

    def run(self, workload: Workload) -> tuple[list[float], list[int]]:
        self.ran.append(workload)
        return [0.1], []


def test_a_baseline_is_run_by_us_in_the_floors_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.measure.usage", lambda pids, rows: USED)  # no server, no usage
    monkeypatch.setattr("bench.measure.until_idle", lambda rows: None)
    ours, floor, peer = Witness(), Witness(), Bystander()
    growing, chain = Plan(Growing(), 1), Plan(Chain(), 1)
    results = measure([growing, chain], ours, floor, print, {"other": peer})
    empty = growing.workload.baseline()
    # The first of each is not timed.
    assert ours.ran == [growing.workload, empty] * 2 + [chain.workload] * 2
    assert floor.ran == [chain.workload] * 2
    assert [(len(one.engine.rounds), len(one.floor.rounds)) for one in results] == [(1, 1)] * 2
    assert not any(one.peers for one in results)


# ---------------------------------------------------------------------- the real ones
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("spec", PEERS, ids=lambda spec: spec.name)
def test_a_tiny_round_of_every_workload_ends_well(
    spec: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not is_made(spec.environment):
        pytest.skip(f"no environment; python -m bench.peers --only {spec.name} makes it")
    assert main(["--tiny", "--only", spec.name, "--out", str(tmp_path)]) == 0
    assert f"| {spec.title} |" in capsys.readouterr().out
    (path,) = tmp_path.glob("peers-*.json")
    data = json.loads(path.read_text())
    assert data["absent"] == data["failed"] == {}
    for item in data["workloads"]:
        figures = item["peers"][spec.name]
        assert figures["median"] > 0
        # Every step's outcome was found again, and no other.
        assert figures["events_per_step"] == 1
