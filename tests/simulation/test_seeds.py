"""The world as it is has no finding, whatever goes wrong in it."""

from __future__ import annotations

import pytest

from app.simulation.cli import tallied
from app.simulation.faults import EVENTS, RATES
from app.simulation.run import simulate

#: Seeds of one test, and how many tests there are.
CHUNK, CHUNKS = 250, 20

# A chunk takes about four seconds of a core; on a machine that many share, it may take a minute.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_nothing_is_lost_nothing_happens_twice_and_nothing_hangs(chunk: int) -> None:
    tally = tallied(range(chunk * CHUNK, (chunk + 1) * CHUNK))
    assert tally.seeds == CHUNK
    assert tally.found == {}


def test_every_fault_strikes() -> None:
    missing = {*RATES, *EVENTS}
    for seed in range(CHUNK * CHUNKS):
        missing -= simulate(seed).story.faults.keys()
        if not missing:
            break
    assert not missing
