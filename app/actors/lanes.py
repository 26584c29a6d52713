"""Wakes that arrive together are decided together: one transaction for many executions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zlib import crc32

from app.actors.batch import Batcher
from app.errors import CallboardError

#: Transactions of one process at a time. While one waits for the disk, the other decides.
LANES = 2


class Lanes:
    """``advance`` for the threads of an orchestrator; an execution is always decided in one lane.

    *advance_many* gives for each execution, in order, how many events followed, or what went wrong.
    """

    def __init__(
        self, advance_many: Callable[[Sequence[int]], Sequence[int | CallboardError]]
    ) -> None:
        self._lanes = [Batcher[int, int | CallboardError](advance_many) for _ in range(LANES)]

    def __call__(self, execution_id: int) -> int:
        lane = self._lanes[crc32(b"%d" % execution_id) % LANES]
        answer = lane(execution_id)
        if isinstance(answer, CallboardError):
            raise answer
        return answer
