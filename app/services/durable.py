"""Which of the events that were read a crash of the database cannot take back."""

from __future__ import annotations

from collections.abc import Sequence

from app.engine.entry import Entry
from app.engine.events import StepStarted


def durable(entries: Sequence[Entry]) -> Sequence[Entry]:
    """*entries* without the claims at their end; what is remembered is folded from these.

    A claim commits before it is on disk, so a crash of Postgres may take it back and give its seq
    to another event. An event behind it that waited for the disk makes it safe.
    """
    end = len(entries)
    while end and isinstance(entries[end - 1].event, StepStarted):
        end -= 1
    return entries[:end]
