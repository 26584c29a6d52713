"""Worlds in which one of the things that keep us safe is missing: each must show, or nothing tests it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from app.engine.ports import AttemptState

K = TypeVar("K")


class Unfenced(int):
    """A number of an attempt that no other differs from: the fence does not see who comes."""

    __slots__ = ()

    __hash__ = int.__hash__

    def __ne__(self, other: object) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is missing: unique ``keys`` of the log, or another of its guards."""

    name: str = "none"
    keys: frozenset[str] = frozenset()
    fences: bool = True
    locks: bool = True
    sweeps: bool = True
    ends_unseen: bool = False
    compares: bool = True

    def seen(self, states: dict[K, AttemptState]) -> dict[K, AttemptState]:
        """What a transaction is told of attempts."""
        return states if self.fences else {place: _open(s) for place, s in states.items()}


def _open(state: AttemptState) -> AttemptState:
    """*state* as if the attempt asked about were the current one."""
    return replace(state, attempt=Unfenced(state.attempt), fenced=False)


NONE = Mutant()
MUTANTS: Mapping[str, Mutant] = {
    **{f"U{n}": Mutant(f"U{n}", keys=frozenset({f"U{n}"})) for n in range(2, 9)},
    "fence": Mutant("fence", fences=False),
    "lock": Mutant("lock", locks=False),
    "sweeper": Mutant("sweeper", sweeps=False),
    "end-guard": Mutant("end-guard", ends_unseen=True),
    "assumption": Mutant("assumption", compares=False),
}
