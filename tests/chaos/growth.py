"""Whether a series of measurements grows: the slope of Theil and Sen, with its interval.

The slope is the median of the slopes between all pairs of points, so that no single spike (a
restart, a garbage collection) decides; its interval counts, after Kendall, how many pairs would
have to go the other way by chance. What is certain to 95 % grows; what may be noise does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Points that are compared at the most: pairs cost by the square.
POINTS = 400
#: The standard normal quantile of a two-sided interval of 95 %.
CERTAIN = 1.96

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Slope:
    """Units per hour: the estimate, and between what bounds it is to 95 %."""

    estimate: float
    least: float
    most: float

    def rises_above(self, limit: float) -> bool:
        """Whether it is certain that it grows by more than *limit* per hour."""
        return self.least > limit


def slope(points: Sequence[Point]) -> Slope:
    """The slope of *points* (seconds, value), which are in order; zero where there are too few."""
    thinned = points[:: max(1, math.ceil(len(points) / POINTS))]
    pairs = sorted(
        3600 * (later[1] - earlier[1]) / (later[0] - earlier[0])
        for number, earlier in enumerate(thinned)
        for later in thinned[number + 1 :]
        if later[0] > earlier[0]
    )
    if len(thinned) < 3 or not pairs:
        return Slope(0.0, 0.0, 0.0)
    n = len(thinned)
    away = CERTAIN * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(int((len(pairs) - away) / 2), 0)
    high = min(math.ceil((len(pairs) + away) / 2), len(pairs) - 1)
    return Slope(_median(pairs), pairs[low], pairs[high])


def rise(points: Sequence[Point]) -> float:
    """How much higher the last fifth of *points* is than the first, by their medians."""
    fifth = max(1, len(points) // 5)
    values = [value for _, value in points]
    return _median(sorted(values[-fifth:])) - _median(sorted(values[:fifth]))


def _median(ordered: Sequence[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
