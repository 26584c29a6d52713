"""Iterations of a loop that travel together: one message for a chunk of them.

What a message costs, it costs whatever it asks for, so short iterations travel many at a time. Each
remains a unit of work of its own in the log, is claimed and reported on its own, and is sent again
where its message got lost. Slow ones must spread over all workers: a chunk takes no longer
than ``SLICE`` by what its loop's iterations took so far, and a worker gives back what it does not
come to in that time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from app.engine.ports import Dispatch

#: Seconds that the iterations of a chunk may take together.
SLICE = 0.05
#: Iterations in a chunk, at the most.
LONGEST = 32
#: Into how many chunks a loop is cut, at the least, while nobody knows what its iterations take:
#: those of a small one travel alone.
SPREAD = 32


class Chunk(NamedTuple):
    """*length* iterations from that of *first* on."""

    first: Dispatch
    length: int


def chunks(steps: Iterable[Dispatch]) -> Iterator[Chunk]:
    """*steps* in their order; iterations next to each other that may travel together as one."""
    for first, count in _neighbours(steps):
        size = _size(first, count)
        for start in range(0, count, size):
            pointer = first.pointer._replace(iteration=first.pointer.iteration + start)
            yield Chunk(first._replace(pointer=pointer), min(size, count - start))


def _neighbours(steps: Iterable[Dispatch]) -> Iterator[tuple[Dispatch, int]]:
    """What could go into one chunk: the first, and how many follow each other from it on."""
    first, count = None, 0
    for step in steps:
        if first is not None and _follows(first, count, step):
            count += 1
            continue
        if first is not None:
            yield first, count
        first, count = step, 1
    if first is not None:
        yield first, count


def _follows(first: Dispatch, count: int, step: Dispatch) -> bool:
    pointer = first.pointer
    next_one = pointer._replace(iteration=pointer.iteration + count)
    alike = (step.tool, step.queue, step.pace) == (first.tool, first.queue, first.pace)
    # Other attempts than the first follow a failure or a loss: each goes its own way.
    alone = step.delay or first.delay or pointer.iteration < 0 or pointer.attempt != 1
    return alike and not alone and step.pointer == next_one


def _size(first: Dispatch, count: int) -> int:
    if first.pace is None:
        return max(1, min(LONGEST, count // SPREAD))
    # Two halves at the least, so that two processors share even a few.
    return max(1, min(LONGEST, int(SLICE / max(first.pace, 1e-6)), (count + 1) // 2))
