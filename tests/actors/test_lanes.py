"""Lanes: wakes that gather are decided together, and one's trouble is nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.actors.lanes import LANES, Lanes
from app.engine.state import NEW
from app.engine.values import Values
from app.errors import BadRequestError
from app.services.advance import Cached, Turn

IDS = range(1, 41)


NOTHING = Cached(NEW, Values())


class Decider:
    """Keeps its first callers until all have come."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, ids: Sequence[int]) -> list[Turn]:
        self.batches.append(list(ids))
        self.entered.release()
        assert self.open.wait(10)
        return [Turn(execution_id, NOTHING, (), NOTHING) for execution_id in ids]


def concluded(turn: Turn) -> int:
    """Odd ones go wrong."""
    if turn.execution_id % 2:
        raise BadRequestError(f"{turn.execution_id} is odd")
    return turn.execution_id * 10


def test_what_gathers_is_decided_together_and_answered_one_by_one() -> None:
    decider = Decider()
    lanes = Lanes(decider, concluded)
    with ThreadPoolExecutor(len(IDS)) as pool:
        answers = {i: pool.submit(lanes, i) for i in IDS}
        for _ in range(LANES):
            assert decider.entered.acquire(timeout=10)
        line = threading.Event()
        while sum(len(lane._gathered) for lane in lanes._lanes) < len(IDS) - LANES:
            assert not line.wait(0.001)
        decider.open.set()
        for i, answer in answers.items():
            if i % 2:
                with pytest.raises(BadRequestError, match=f"{i} is odd"):
                    answer.result()
            else:
                assert answer.result() == i * 10
    assert len(decider.batches) == 2 * LANES
    assert sorted(i for batch in decider.batches for i in batch) == list(IDS)


def test_what_takes_long_is_done_outside_of_the_lane() -> None:
    decider = Decider()
    decider.open.set()
    stands, goes = threading.Event(), threading.Event()

    def slowly(turn: Turn) -> int:
        if turn.execution_id == 1:
            stands.set()
            assert goes.wait(10)
        return turn.execution_id

    lanes = Lanes(decider, slowly)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(lanes, 1)
        assert stands.wait(10)
        assert [pool.submit(lanes, i).result(10) for i in range(2, 20)] == list(range(2, 20))
        goes.set()
        assert slow.result() == 1
