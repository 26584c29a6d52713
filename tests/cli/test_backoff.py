"""When a process that died is started again."""

from __future__ import annotations

import pytest

from app.cli.backoff import ATTEMPTS, GOOD_RUN, LONGEST, QUICK, Backoff

KILLED = 137


def test_waits_twice_as_long_each_time_up_to_a_limit() -> None:
    backoff, waits = Backoff(), []
    for _ in range(9):
        waits.append(backoff.wait(QUICK + 1))
        backoff = backoff.after(QUICK + 1, KILLED)
    assert waits == [0.5, 1, 2, 4, 8, 16, LONGEST, LONGEST, LONGEST]


def test_a_good_run_starts_the_waiting_anew() -> None:
    backoff = Backoff()
    for _ in range(5):
        backoff = backoff.after(QUICK + 1, KILLED)
    assert backoff.wait(GOOD_RUN) == 0.5
    assert backoff.after(GOOD_RUN, KILLED).wait(1) == 1.0


@pytest.mark.parametrize(
    ("runs", "hopeless"),
    [
        pytest.param([(0.2, 1)] * ATTEMPTS, True, id="never came up"),
        pytest.param([(0.2, 1)] * (ATTEMPTS - 1), False, id="not often enough yet"),
        pytest.param([(0.2, KILLED)] * 20, False, id="somebody kills it"),
        pytest.param([(0.2, 1)] * 3 + [(0.2, KILLED)] + [(0.2, 1)] * 3, False, id="killed between"),
        pytest.param([(QUICK, 1), *[(0.2, 1)] * 20], False, id="it did run once"),
    ],
)
def test_gives_up_on_what_never_came_up(runs: list[tuple[float, int]], hopeless: bool) -> None:
    backoff = Backoff()
    for ran, code in runs:
        backoff = backoff.after(ran, code)
    assert backoff.is_hopeless is hopeless
