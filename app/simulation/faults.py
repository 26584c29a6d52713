"""What may go wrong, and how often: each seed draws its own mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

#: Chances per opportunity, before a seed's mixture scales them. Who grants the opportunity tells
#: what the fault is: the broker, the store, or a process between two things it does.
RATES: Mapping[str, float] = {
    "crash": 0.01,
    "interleave": 0.15,
    "answer lost": 0.06,
    "message lost": 0.08,
    "message repeated": 0.20,
    "delivered twice": 0.20,
    "message delayed": 0.10,
    "ack lost": 0.08,
    "publish refused": 0.03,
    "publish unanswered": 0.03,
    "read failed": 0.01,
    "commit refused": 0.02,
    "commit unanswered": 0.03,
    "claim in danger": 0.02,
    "stale view": 0.40,
    "report repeated": 0.20,
    "start repeated": 0.40,
    "long step": 0.05,
}
#: What happens of itself, at random moments, this often in one run.
EVENTS: Mapping[str, int] = {
    "broker forgets": 2,
    "broker away": 2,
    "postgres killed": 3,
    "postgres away": 2,
    "worker killed": 3,
    "worker paused": 3,
    "worker stopped": 2,
    "two leaders": 1,
    "operation": 2,
}
#: Seconds, each way, by which the clock of a process may differ from the database's.
SKEW = 2.0


class Crash(BaseException):
    """The process that acts dies here. No code catches it but the world."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The mixture of one seed: chances by fault, moments (seconds) of events, and the clocks' skew.

    Nothing goes wrong after ``quiet`` seconds.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    events: tuple[tuple[float, str], ...] = ()
    skew: float = 0.0
    quiet: float = 0.0


CALM = Plan()


def drawn(random: Random) -> Plan:
    """A mixture: every fault is in half of them, so that none hides behind another."""
    quiet = random.choice((5.0, 20.0, 40.0))
    strength = random.choice((0.5, 1.0, 2.0))
    rates = {name: rate * strength for name, rate in RATES.items() if random.random() < 0.5}
    events = [
        (random.uniform(0, quiet), name)
        for name, most in EVENTS.items()
        if random.random() < 0.35
        for _ in range(random.randint(1, most))
    ]
    return Plan(rates, tuple(sorted(events)), random.choice((0.0, SKEW)), quiet)
