"""A plan is decided by its seed, has all kinds of faults, and is spread over the run."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.chaos.faults import ACTS
from tests.chaos.plan import LINKS, SHARES, Cast, counts, last_moment, plan


def test_the_same_seed_gives_the_same_plan_and_another_one_another() -> None:
    first, same, other = (plan(seed, faults=50, seconds=100, lease=15) for seed in (1, 1, 2))
    assert first == same != other


def test_a_full_plan_has_what_the_gate_asks_for() -> None:
    kinds = Counter(fault.kind for fault in plan(7, faults=110, seconds=330, lease=15))
    assert kinds == Counter(SHARES)
    assert kinds.total() >= 100
    least = {"kill-postgres": 10, "kill-nats": 10, "lose-nats": 3, "kill-worker": 40, "pause": 15}
    assert all(kinds[kind] >= count for kind, count in least.items())


@pytest.mark.parametrize("faults", [0, 1, 5, 15, 16, 20, 57, 110, 500])
def test_there_are_as_many_faults_as_were_asked_for(faults: int) -> None:
    found = counts(faults)
    assert found.total() == faults
    assert faults < len(SHARES) or set(found) == set(SHARES), "and one of each if there is room"


def test_faults_are_spread_over_the_whole_time() -> None:
    times = [fault.at for fault in plan(3, faults=110, seconds=330, lease=15)]
    assert times == sorted(times)
    assert all(number * 3 <= at < (number + 1) * 3.01 for number, at in enumerate(times))


def test_most_pauses_outlive_the_lease_and_none_lasts_longer_than_the_plan_says() -> None:
    faults = plan(3, faults=500, seconds=330, lease=15)
    pauses = [fault.seconds for fault in faults if fault.kind == "pause"]
    assert all(10 <= seconds <= 25 for seconds in pauses)
    assert sum(seconds > 15 for seconds in pauses) > len(pauses) / 2


def test_each_fault_can_be_done_and_hits_what_is_there() -> None:
    cast = Cast()
    known = {*cast.names(), *LINKS, "postgres", "nats", "all"}
    for fault in plan(4, faults=500, seconds=330, lease=15):
        assert fault.kind in ACTS
        assert fault.target in known
        if fault.kind.startswith("kill-"):
            assert fault.target.startswith(fault.kind.removeprefix("kill-"))


def test_the_last_moment_is_when_the_last_fault_is_over() -> None:
    faults = plan(4, faults=20, seconds=60, lease=15)
    assert last_moment(faults) == max(fault.at + fault.seconds for fault in faults)
    assert last_moment([]) == 0.0
