"""Whatever keeps us safe is needed: without it the simulation finds something."""

from __future__ import annotations

import pytest

from app.simulation.mutants import MUTANTS
from app.simulation.run import simulate

#: Seeds until a mutant must have shown.
BOUND = 2_000

# The best hidden one takes some seconds of a core; a machine that many share takes its time.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_world_that_lacks_a_guard_is_found_out(name: str) -> None:
    assert any(simulate(seed, mutant=MUTANTS[name]).findings for seed in range(BOUND))


def test_a_cache_that_keeps_what_the_disk_forgot_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.services.advance.durable", lambda entries: entries)
    assert any(simulate(seed).findings for seed in range(BOUND))


def test_a_family_that_nobody_mends_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.services.family.Family.repair", lambda self: 0)
    assert any(simulate(seed).findings for seed in range(BOUND))
