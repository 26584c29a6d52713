"""What a run found, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.checker import Violation
from tests.chaos.recovery import Spread

#: Violations that are shown; all of them are in the JSON.
SHOWN = 20
LOST = {"lost", "not-ended"}
DOUBLE = {"second-end", "step-ended-twice", "double-start"}


@dataclass(frozen=True, slots=True)
class Report:
    """One run: what was done to the system, and how it took it. Times in seconds."""

    seed: int
    executions: int
    accepted: int
    children: int
    steps: int
    events: int
    faults: Mapping[str, int]
    skipped: Mapping[str, str]
    answers: Mapping[str, int]
    exits: Mapping[str, int]
    settled: float
    settle: float
    took: float
    recovery: Mapping[str, Spread]
    counts: Mapping[str, int]
    violations: list[Violation] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.violations

    def count(self, codes: set[str]) -> int:
        return sum(violation.code in codes for violation in self.violations)

    def write(self, path: Path) -> None:
        """As JSON."""
        write_json(path, {**asdict(self), "ok": self.ok})

    def table(self) -> str:
        """For people."""
        rows = [
            ("seed", self.seed),
            (
                "executions",
                f"{self.accepted} accepted of {self.executions}, {self.children} children",
            ),
            ("steps, events", f"{self.steps}, {self.events}"),
            ("faults", sum(self.faults.values())),
            *((f"  {kind}", count) for kind, count in self.faults.items()),
            *((f"  {kind} skipped", why) for kind, why in self.skipped.items()),
            ("answers to clients", _counted(self.answers)),
            ("processes that ended by themselves", _counted(self.exits) or "none"),
            ("lost", self.count(LOST)),
            ("duplicate ends", self.count(DOUBLE)),
            ("outcomes that differ", self.count({"outcome", "no-reference"})),
            ("other violations", self._others()),
            ("all ended after the last fault", f"{self.settled:.1f} s (at most {self.settle:.0f})"),
            *((f"  {name}", _spread(spread)) for name, spread in self.recovery.items()),
            *((name, count) for name, count in self.counts.items()),
            ("took", f"{self.took:.0f} s"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows)

    def _others(self) -> str:
        told = LOST | DOUBLE | {"outcome", "no-reference"}
        found = Counter(v.code for v in self.violations if v.code not in told)
        return _counted(found) or "0"


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n")


def complaints(violations: Sequence[Violation], seed: int) -> str:
    """What does not hold, and where to look."""
    found = Counter(violation.code for violation in violations)
    lines = [f"{_counted(found)}; seed {seed}"]
    lines += [f"{v.code}: execution {v.execution_id}: {v.message}" for v in violations[:SHOWN]]
    return "\n".join(lines)


def _counted(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items(), key=str))


def _spread(spread: Spread) -> str:
    if not spread.count:
        return "none"
    return (
        f"p50 {spread.p50:.1f} s, p95 {spread.p95:.1f} s, most {spread.most:.1f} s ({spread.count})"
    )
