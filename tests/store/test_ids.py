"""Ids sort by time, are never the same, and fit where ids must fit."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from app.store.ids import EPOCH, Snowflake, first_id_at, moment_of


def test_ids_of_many_threads_are_all_different_and_grow_in_each() -> None:
    new = Snowflake()

    def make(_: int) -> list[int]:
        return [new() for _ in range(2000)]

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make, range(8)))
    assert all(ids == sorted(ids) for ids in made)
    assert len({i for ids in made for i in ids}) == 16_000


def test_ids_grow_while_the_clock_stands_still_or_steps_back() -> None:
    times = iter([100.0] * 10_000 + [50.0] * 10)
    new = Snowflake(3, clock=lambda: EPOCH / 1000 + next(times))
    ids = [new() for _ in range(10_010)]
    assert ids == sorted(set(ids))


def test_two_nodes_never_make_the_same_id() -> None:
    first, second = (Snowflake(node, clock=lambda: EPOCH / 1000 + 1) for node in (1, 2))
    assert not {first() for _ in range(5000)} & {second() for _ in range(5000)}


@pytest.mark.parametrize("year", [2024, 2026, 2058])
def test_ids_are_positive_63_bit_numbers_for_decades(year: int) -> None:
    moment = datetime(year, 6, 1, tzinfo=UTC)
    identity = Snowflake(2047, clock=moment.timestamp)()
    assert 0 < identity < 2**63
    assert moment_of(identity) == moment


def test_an_id_tells_when_it_was_made() -> None:
    moment = datetime(2026, 3, 4, 5, 6, 7, 891_000, tzinfo=UTC)
    identity = Snowflake(clock=moment.timestamp)()
    assert moment_of(identity) == moment
    assert first_id_at(moment) <= identity < first_id_at(moment + timedelta(milliseconds=1))
    # As NoETL makes them: ((now_ms - 1704067200000) << 23) | …
    assert identity >> 23 == int(moment.timestamp() * 1000) - 1_704_067_200_000


def test_times_before_the_epoch_are_before_every_id() -> None:
    assert first_id_at(datetime(1999, 1, 1, tzinfo=UTC)) == 0
