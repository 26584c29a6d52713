"""Ids that sort by time: NoETL's snowflakes, as users' scripts and dashboards know them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

#: Milliseconds since 1970 of the first possible id.
EPOCH = 1_704_067_200_000
#: Above every id.
MAX_ID = 2**63 - 1
_SEQUENCE_BITS = 12
_NODE_BITS = 11
_TIME_SHIFT = _SEQUENCE_BITS + _NODE_BITS
_SEQUENCES = 1 << _SEQUENCE_BITS
_NODES = 1 << _NODE_BITS


class Snowflake:
    """A generator of ids: 40 bits of milliseconds since 2024, 11 of node, 12 of sequence.

    They last until 2058, as NoETL's do.

    Ids of one generator only ever grow, also where the clock steps back, and any number of threads
    may call it. *node* tells generators apart; by default it is drawn at random, so two processes
    that make ids in the same millisecond collide once in 2,048 times at the most, and then the
    unique keys of the log refuse the second execution.
    """

    def __init__(self, node: int | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._node = (secrets.randbelow(_NODES) if node is None else node) % _NODES
        self._clock = clock
        self._lock = threading.Lock()
        self._last = -1

    def __call__(self) -> int:
        now = (int(self._clock() * 1000) - EPOCH) << _SEQUENCE_BITS
        with self._lock:
            # Time and sequence count as one number: a full millisecond borrows from the next.
            self._last = max(self._last + 1, now)
            moment, sequence = divmod(self._last, _SEQUENCES)
        return moment << _TIME_SHIFT | self._node << _SEQUENCE_BITS | sequence


def first_id_at(moment: datetime) -> int:
    """The lowest id that can be made at *moment*; a time without zone is UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(int(aware.timestamp() * 1000) - EPOCH, 0) << _TIME_SHIFT


def moment_of(identity: int) -> datetime:
    """When that id was made, to the millisecond."""
    return datetime.fromtimestamp(((identity >> _TIME_SHIFT) + EPOCH) / 1000, UTC)
