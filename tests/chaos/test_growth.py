"""What grows is told from what only wobbles."""

from __future__ import annotations

import random

import pytest

from tests.chaos.growth import Slope, rise, slope
from tests.chaos.soak import Growth, leaks

HOUR = 3600.0


def series(
    per_hour: float, *, noise: float, seed: int = 1, count: int = 300
) -> list[tuple[float, float]]:
    """Half an hour of measurements."""
    chance = random.Random(seed)
    times = [number * 1800 / count for number in range(count)]
    return [(at, 100 + per_hour * at / HOUR + chance.gauss(0, noise)) for at in times]


@pytest.mark.parametrize("per_hour", [-20.0, 0.0, 3.0, 50.0])
def test_the_slope_is_found_through_noise(per_hour: float) -> None:
    found = slope(series(per_hour, noise=0.5))
    assert found.least <= per_hour <= found.most
    assert found.estimate == pytest.approx(per_hour, abs=0.6)


def test_a_leak_is_certain_and_noise_is_not() -> None:
    assert slope(series(4.0, noise=0.5)).rises_above(1.0)
    assert not any(slope(series(0.0, noise=2.0, seed=seed)).rises_above(1.0) for seed in range(20))


def test_spikes_decide_nothing() -> None:
    points = series(0.0, noise=0.1)
    for place in range(200, 300, 10):
        points[place] = (points[place][0], 500.0)
    assert abs(slope(points).estimate) < 1.0


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(0.0, 1.0), (1.0, 9.0)]])
def test_too_few_points_say_nothing(points: list[tuple[float, float]]) -> None:
    assert slope(points) == Slope(0.0, 0.0, 0.0)


def test_the_rise_is_from_the_first_fifth_to_the_last() -> None:
    assert rise([(float(at), float(at // 20)) for at in range(100)]) == 4.0


@pytest.mark.parametrize(
    ("what", "per_hour", "risen", "judged", "leaks_"),
    [
        ("RSS MB", 4.0, 2.0, True, True),
        ("RSS MB", 4.0, 2.0, False, False),
        ("RSS MB", 0.5, 0.25, True, False),
        ("PSS MB", 4.0, 2.0, True, False),
        ("descriptors", 8.0, 4.0, False, True),
        ("descriptors", 1.0, 0.5, False, False),
        ("threads", -8.0, -4.0, False, False),
        ("messages", 8.0, 4.0, False, False),
    ],
)
def test_what_is_a_leak(
    what: str, per_hour: float, risen: float, judged: bool, leaks_: bool
) -> None:
    certain = Slope(per_hour, per_hour - 0.4, per_hour + 0.4)
    found = leaks([Growth(what, "worker-1", 100.0, certain, risen, 0.0)], judged=judged)
    assert bool(found) == leaks_


def test_what_follows_the_load_must_be_gone_at_rest() -> None:
    level = Slope(0.0, -1.0, 1.0)
    assert not leaks([Growth("children", "worker-1", 2.0, level, 0.0, left=1.0)], judged=False)
    assert leaks([Growth("children", "worker-1", 5.0, level, 0.0, left=3.0)], judged=False)
