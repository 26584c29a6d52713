"""What workers make of steps: a pure function, so that a step done twice ends the same way twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from zlib import crc32

from app.engine.children import Call
from app.engine.ports import Pointer
from app.wire import Variables

_PLANNED = {"kind": "test", "message": "planned", "retryable": False}
#: Rows that a cursor's table holds at the most.
ROWS = 5


@dataclass(frozen=True, slots=True)
class Fate:
    """How an attempt ends: the fields of its report, and the seconds it takes, as a factor."""

    report: dict[str, Any]
    slowness: float = 1.0


def fate(pointer: Pointer, variables: Variables, variant: int) -> Fate:
    """The end of the attempt at *pointer*, whoever makes it and however often. *variant* sets its luck."""
    key = pointer.key
    if key.is_claim:
        return Fate({"outcome": "done", "result": _rows(pointer, variant)})
    luck = crc32(f"{variant} {key}".encode())
    behaviour = key.step.partition("_")[0]
    tries = int(variables.local.get("_tries", 0))
    report = _failed(behaviour, luck, tries)
    if report is None and variables.resume is None:
        report = _parked(behaviour, luck)
    return Fate(report or _done(luck), slowness=6.0 if behaviour == "slow" else 1.0)


def _failed(behaviour: str, luck: int, tries: int) -> dict[str, Any] | None:
    """The report of a step that fails always, fails with this luck, or fails a few times."""
    if behaviour == "bad" or (behaviour == "maybe" and luck % 3 == 0):
        return {"outcome": "failed", "error": _PLANNED}
    if behaviour == "flaky" and tries < luck % 3:
        return {"outcome": "failed", "error": _PLANNED, "retry_in": 0.5 + luck % 4}
    return None


def _parked(behaviour: str, luck: int) -> dict[str, Any] | None:
    """The report of a step that first waits for a sub-playbook, or for a time."""
    if behaviour == "park":
        call = Call(path="child", waits=True).to_dict()
        return {"outcome": "parked", "progress": {"at": 1}, "call": call}
    if behaviour == "wait":
        return {"outcome": "parked", "progress": {"at": 1}, "retry_in": 1.0 + luck % 3}
    return None


def _done(luck: int) -> dict[str, Any]:
    return {"outcome": "done", "result": {"flag": bool(luck & 16), "number": luck % 10}}


def _rows(pointer: Pointer, variant: int) -> dict[str, Any]:
    """What a claim of a cursor gives: two rows at a time, until the table is empty."""
    taken = 2 * (-2 - pointer.iteration)
    there = variant % (ROWS + 1)
    return {"rows": list(range(taken, min(taken + 2, there)))}
