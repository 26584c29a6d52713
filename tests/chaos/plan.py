"""What will be broken, and when: the same plan for the same seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: How often each kind of fault occurs among 110.
SHARES: Mapping[str, int] = {
    "kill-worker": 40,
    "pause": 15,
    "kill-postgres": 10,
    "kill-nats": 10,
    "terminate-backends": 5,
    "kill-orchestrator": 4,
    "kill-web": 4,
    "reset": 4,
    "lose-nats": 3,
    "kill-scheduler": 3,
    "latency": 3,
    "black-hole": 3,
    "drop-reply": 3,
    "rolling-restart": 2,
    "disk-full": 1,
}
#: Where bad networks are; a link is named ``process>server``.
LINKS = ("worker-*>api", "worker-1>api", "worker-2>nats", "orchestrator-1>postgres", "web-1>postgres",
         "*>nats", "*>postgres", "client>api", "scheduler-*>postgres")  # fmt: skip
#: Whom faults hit that leave no choice, where it is not NATS.
TARGETS = {"terminate-backends": "postgres", "kill-postgres": "postgres", "rolling-restart": "all"}
#: Seconds that a fault lasts, from and to, in leases: a pause shall outlive one more often than not.
LASTS: Mapping[str, tuple[float, float]] = {
    "pause": (0.7, 1.65),
    "kill-postgres": (0.0, 0.2),
    "kill-nats": (0.0, 0.2),
    "lose-nats": (0.0, 0.2),
    "latency": (0.2, 0.6),
    "reset": (0.0, 0.2),
    "black-hole": (0.2, 0.8),
    "drop-reply": (0.05, 0.2),
    "disk-full": (0.3, 0.5),
}
#: After a kill a supervisor starts the process again, as soon as this (seconds) or later.
RESTARTED = (0.1, 2.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """Begins *at* seconds after the start, hits *target*, and lasts *seconds*."""

    at: float
    kind: str
    target: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Cast:
    """How many processes of each kind there are."""

    web: int = 2
    orchestrator: int = 2
    worker: int = 3
    scheduler: int = 2

    def names(self, kind: str = "") -> list[str]:
        """``worker-1``, …; of one kind, or of all."""
        counts = {k: getattr(self, k) for k in ("web", "orchestrator", "worker", "scheduler")}
        return [f"{k}-{n}" for k in counts if kind in {"", k} for n in range(1, counts[k] + 1)]


def counts(faults: int) -> Counter[str]:
    """How often each kind occurs among *faults*: once if there is room, and then in proportion."""
    kinds = list(SHARES)[:faults]
    found = Counter(kinds)
    rest, further = faults - len(kinds), sum(SHARES.values()) - len(SHARES)
    for kind in kinds:
        found[kind] += (SHARES[kind] - 1) * rest // further
    # What rounding left over are the commonest faults.
    if kinds:
        found[kinds[0]] += faults - found.total()
    return found


def plan(
    seed: int, *, faults: int, seconds: float, lease: float, cast: Cast | None = None
) -> list[Fault]:
    """*faults* of all kinds, spread evenly over *seconds* in an order that *seed* decides."""
    chance = random.Random(seed)
    kinds = list(counts(faults).elements())
    chance.shuffle(kinds)
    distance = seconds / max(faults, 1)
    return [
        _fault(chance, kind, (number + chance.random()) * distance, lease, cast or Cast())
        for number, kind in enumerate(kinds)
    ]


def _fault(chance: random.Random, kind: str, at: float, lease: float, cast: Cast) -> Fault:
    shortest, longest = LASTS.get(kind, (0.0, 0.0))
    seconds = chance.uniform(shortest, longest) * lease if longest else chance.uniform(*RESTARTED)
    return Fault(round(at, 2), kind, _target(chance, kind, cast), round(seconds, 2))


def _target(chance: random.Random, kind: str, cast: Cast) -> str:
    if kind == "pause":
        # Mostly workers: they hold leases.
        return chance.choice([*cast.names("worker") * 2, *cast.names()])
    if kind in {"latency", "reset", "black-hole", "drop-reply"}:
        return chance.choice(LINKS)
    if kind.startswith("kill-") and (names := cast.names(kind.removeprefix("kill-"))):
        return chance.choice(names)
    return TARGETS.get(kind, "nats")


def last_moment(faults: Sequence[Fault]) -> float:
    """When the last of them is over, as planned."""
    return max((fault.at + fault.seconds for fault in faults), default=0.0)
