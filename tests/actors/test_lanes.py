"""Lanes: wakes that gather are decided together, and one's trouble is nobody else's."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.actors.lanes import LANES, Lanes
from app.errors import BadRequestError, CallboardError

IDS = range(1, 41)


class Decider:
    """Keeps its first callers until all have come; odd ones go wrong."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, ids: Sequence[int]) -> list[int | CallboardError]:
        self.batches.append(list(ids))
        self.entered.release()
        assert self.open.wait(10)
        return [BadRequestError(f"{i} is odd") if i % 2 else i * 10 for i in ids]


def test_what_gathers_is_decided_together_and_answered_one_by_one() -> None:
    decider = Decider()
    lanes = Lanes(decider)
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
