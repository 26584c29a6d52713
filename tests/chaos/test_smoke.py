"""Each scenario once, small: real processes, real faults, and nothing lost."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import outage, scenario, soak
from tests.chaos.plan import SHARES, Cast
from tests.chaos.report import DOUBLE, LOST, complaints
from tests.chaos.scenario import QUICK, Options

#: One web process, so that its death is an outage.
SMALL = Cast(web=1, orchestrator=1, worker=2, scheduler=2)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        path = Path(folder)
        path.chmod(0o755)  # programs of other users look for the witness below it
        yield path


def test_a_hundred_executions_under_twenty_faults(home: Path) -> None:
    options = Options(
        seed=5,
        executions=100,
        faults=20,
        seconds=15,
        slow=0.2,
        settle=90,
        settings=QUICK,
        cast=SMALL,
    )
    report = scenario.run(options, home)
    assert report.ok, f"{report.table()}\n{complaints(report.violations, options.seed)}"
    assert report.accepted == 100
    assert report.steps >= 900
    assert sum(report.faults.values()) + len(report.skipped) == 20
    assert set(report.faults) | set(report.skipped) == set(SHARES)
    assert report.count(LOST) == report.count(DOUBLE) == 0
    assert report.counts["runs seen by the witness"] >= 500


def test_nats_is_absent_for_a_few_seconds_and_then_loses_its_store(home: Path) -> None:
    options = Options(seed=6, executions=20, seconds=10, slow=0.1, settings=QUICK, cast=SMALL)
    report = outage.run(options, home, minutes=0.1)
    assert report.ok, f"{report.table()}\n{complaints(report.violations, options.seed)}"
    assert report.accepted == 20
    assert set(report.answers) <= {"200", "503", "none"}
    assert report.recovery[outage.WAITED].count >= outage.WAITING


def test_a_short_soak_leaks_nothing(home: Path) -> None:
    options = Options(seed=7, executions=20, seconds=12, slow=0.1, settle=60, settings=QUICK)
    soaked = soak.run(options, home)
    assert soaked.ok, f"{soaked.table()}\n{complaints(soaked.violations, options.seed)}"
    assert (soaked.executions, soaked.faults, soaked.judged) == (20, 1, False)
    read = {growth.what for growth in soaked.growths}
    assert read >= {"RSS MB", "descriptors", "threads", "connections", "messages", "rows"}
