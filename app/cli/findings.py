"""How findings look: one line with the place first, as editors and CI read it, and a line of hint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def finding_line(name: str, row: Mapping[str, Any]) -> str:
    """``file:line:column: severity[code] sentence``; the place is left out where it is not known."""
    place = f"{name}:{row['line']}:{row['column']}" if row.get("line") else name
    return f"{place}: {row['severity']}[{row['code']}] {row['message']}"


def finding_text(name: str, row: Mapping[str, Any]) -> str:
    """The line, and below it what to do, where that is known."""
    hint = row.get("suggestion")
    return finding_line(name, row) + (f"\n    hint: {hint}" if hint else "")


def summary(rows: Iterable[Mapping[str, Any]], files: int, skipped: int) -> str:
    """``3 files: 2 errors, 1 warning``."""
    severities = [row["severity"] for row in rows]
    counts = [_count(severities.count(severity), severity) for severity in ("error", "warning")]
    if severities.count("info"):
        counts.append(_count(severities.count("info"), "hint"))
    told = f"{_count(files, 'file')}: {', '.join(counts)}"
    return f"{told}; {_count(skipped, 'file')} skipped" if skipped else told


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
