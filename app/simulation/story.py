"""What happened in a run, line by line, for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Story:
    """Lines as they come, where they are *wanted*; faults are counted always."""

    wanted: bool = False
    lines: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def tell(self, now: float, actor: str, what: str, fault: str = "") -> None:
        """One line: the virtual time, who, what, and the fault that it is."""
        mark = f"  !! {fault}" if fault else ""
        self.lines.append(f"{now:9.3f}  {actor:<15} {what}{mark}".rstrip())
