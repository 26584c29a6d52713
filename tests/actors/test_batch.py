"""Batching: a lone caller goes at once, a crowd travels together, and everybody hears of a failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from app.actors.batch import Batcher


class Door:
    """A ``send`` that stays closed until it is opened, and remembers what came through."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.entered.release()
        assert self.open.wait(10)
        return [item * 2 for item in items]


def gathered(batcher: Batcher[int, int], count: int) -> None:
    """Wait until *count* callers stand in line."""
    line = threading.Event()
    while len(batcher._gathered) < count:
        assert not line.wait(0.001)


def crowd(
    call: Callable[[int], int], batcher: Batcher[int, int], door: Door, pool: ThreadPoolExecutor
) -> list[Future[int]]:
    """The first caller inside, nine more waiting outside."""
    first = pool.submit(call, 0)
    assert door.entered.acquire(timeout=10)
    rest = [pool.submit(call, number) for number in range(1, 10)]
    gathered(batcher, 9)
    return [first, *rest]


def test_a_lone_caller_is_sent_alone_and_at_once() -> None:
    door = Door()
    door.open.set()
    batcher = Batcher(door)
    assert [batcher(1), batcher(2)] == [2, 4]
    assert door.batches == [[1], [2]]


def test_those_who_wait_travel_together_and_each_gets_its_own_answer() -> None:
    door = Door()
    batcher = Batcher(door)
    with ThreadPoolExecutor(10) as pool:
        answers = crowd(batcher, batcher, door, pool)
        door.open.set()
        assert [answer.result(10) for answer in answers] == [number * 2 for number in range(10)]
    assert door.batches[0] == [0]
    assert sorted(door.batches[1]) == list(range(1, 10))
    assert len(door.batches) == 2


def test_a_batch_is_never_larger_than_asked_for() -> None:
    door = Door()
    batcher = Batcher(door, most=4)
    with ThreadPoolExecutor(10) as pool:
        answers = crowd(batcher, batcher, door, pool)
        door.open.set()
        assert [answer.result(10) for answer in answers] == [number * 2 for number in range(10)]
    assert [len(batch) for batch in door.batches] == [1, 4, 4, 1]


def test_all_of_a_failed_batch_hear_of_it_and_the_next_goes_on() -> None:
    door = Door()

    def send(items: Sequence[int]) -> list[int]:
        answers = door(items)
        if len(door.batches) == 2:
            raise OSError("no route")
        return answers

    batcher = Batcher(send)
    with ThreadPoolExecutor(10) as pool:
        answers = crowd(batcher, batcher, door, pool)
        door.open.set()
        assert answers[0].result(10) == 0
        for answer in answers[1:]:
            with pytest.raises(OSError, match="no route"):
                answer.result(10)
    assert batcher(7) == 14


def test_an_answer_too_few_is_an_error_and_not_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Batcher[int, int](lambda _: [])(1)


def test_an_interrupt_ends_the_sender_and_is_told_to_the_batch() -> None:
    def interrupted(_: Sequence[int]) -> list[int]:
        raise KeyboardInterrupt

    batcher = Batcher(interrupted)
    with pytest.raises(KeyboardInterrupt):
        batcher(1)


def test_several_items_of_one_caller_are_answered_in_their_order() -> None:
    door = Door()
    door.open.set()
    batcher = Batcher(door, most=4)
    assert batcher.many([]) == []
    assert batcher.many(list(range(10))) == [number * 2 for number in range(10)]
    assert door.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_those_of_many_callers_travel_together() -> None:
    door = Door()
    batcher = Batcher(door, most=7)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(batcher, 0)
        assert door.entered.acquire(timeout=10)
        rest = [pool.submit(batcher.many, [n, n + 1, n + 2]) for n in (10, 20, 30)]
        gathered(batcher, 9)
        door.open.set()
        assert first.result() == 0
        assert [each.result() for each in rest] == [
            [n * 2, n * 2 + 2, n * 2 + 4] for n in (10, 20, 30)
        ]
    assert [len(batch) for batch in door.batches] == [1, 7, 2]
