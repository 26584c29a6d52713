"""The world as it is has no finding, whatever goes wrong in it."""

from __future__ import annotations

import pytest

from app.simulation.cli import tallied
from app.simulation.faults import EVENTS, RATES

#: Seeds of one test, and how many tests there are.
CHUNK, CHUNKS = 250, 20


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_is_lost_nothing_happens_twice_and_nothing_hangs(chunk: int) -> None:
    tally = tallied(range(chunk * CHUNK, (chunk + 1) * CHUNK))
    assert tally.found == {}
    # A world without faults would be a good world, too.
    assert {*RATES, *EVENTS} <= tally.faults.keys()
