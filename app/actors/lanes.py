"""Wakes that arrive together are decided together: one transaction for many executions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from zlib import crc32

from app.actors.batch import Batcher
from app.services.advance import Turn

#: Transactions of one process at a time. While one waits for the disk, the other decides.
LANES = 2


class Lanes:
    """``advance`` for the threads of an orchestrator; an execution is always decided in one lane.

    *decide_many* gives a turn for each execution, in order. What takes long is left to *conclude*,
    on the thread whose wake it was: in the lane others would wait for it.
    """

    def __init__(
        self,
        decide_many: Callable[[Sequence[int]], Sequence[Turn]],
        conclude: Callable[[Turn], int],
    ) -> None:
        self._lanes = [Batcher[int, Turn](decide_many) for _ in range(LANES)]
        self._conclude = conclude

    def __call__(self, execution_id: int) -> int:
        lane = self._lanes[crc32(b"%d" % execution_id) % LANES]
        return self._conclude(lane(execution_id))
