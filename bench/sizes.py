"""How much is measured: in full, quickly, or only to see that it works."""

from __future__ import annotations

from dataclasses import dataclass

from bench.workloads import FULL, QUICK, TINY, Plan


@dataclass(frozen=True, slots=True)
class Sizes:
    """*plans* are W1 to W7; the others say themselves what they belong to."""

    plans: tuple[Plan, ...]
    #: W4 again, with that many chains at once.
    chains: tuple[int, ...]
    #: W8: executions in the log, rounds, requests of each kind in a round, width of the loop.
    log: tuple[int, int, int, int]
    #: W9.
    startups: int
    #: W10: seconds to settle, and at rest.
    rest: tuple[float, float]
    #: Calls of each tool.
    calls: int
    #: Long: iterations of one loop and turns of one cycle; events in the log.
    completions: tuple[int, int]
    events: tuple[int, ...]


SIZES = {
    "full": Sizes(
        FULL,
        chains=(1, 2, 4, 8, 16, 32, 64),
        log=(100_000, 3, 40, 1_000),
        startups=3,
        rest=(5.0, 30.0),
        calls=300,
        completions=(34_000, 20_000),
        events=(0, 10_000, 100_000, 1_000_000, 10_000_000),
    ),
    "quick": Sizes(
        QUICK,
        chains=(1, 8, 64),
        log=(100_000, 1, 30, 1_000),
        startups=1,
        rest=(3.0, 10.0),
        calls=300,
        completions=(3_400, 2_000),
        events=(0, 10_000, 100_000),
    ),
    # Its times say nothing.
    "tiny": Sizes(
        TINY,
        chains=(1, 2),
        log=(50, 1, 2, 5),
        startups=1,
        rest=(0.0, 1.0),
        calls=20,
        completions=(120, 120),
        events=(0, 24),
    ),
}
