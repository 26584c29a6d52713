"""One attempt in progress on a worker."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from app.actors.printing import Printer
from app.engine.masking import Masker
from app.engine.ports import Pointer


@dataclass(slots=True)
class Attempt:
    """``stop`` ends its tool; ``reason`` says why: fenced or shutdown. ``key`` is that of its claim."""

    pointer: Pointer
    key: str
    stop: threading.Event = field(default_factory=threading.Event)
    reason: str | None = None
    #: Takes what it prints, from the moment that there is something to run.
    printer: Printer | None = None
    masker: Masker = field(default_factory=Masker)

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.stop.set()

    @property
    def tail(self) -> str | None:
        """The end of what it printed."""
        return self.printer.tail if self.printer else None
