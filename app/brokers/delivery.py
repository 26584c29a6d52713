"""One message that the server handed to this process, and what may be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

ACK = b"+ACK"
NAK = b"-NAK"
TERM = b"+TERM"
PROGRESS = b"+WPI"
#: After these a message is not run again by this process, whatever the server remembers.
FINAL = frozenset({ACK, TERM})


class Holder(Protocol):
    """Who answers to the server for messages while they are here."""

    def begin(self, delivery: Delivery) -> bool: ...

    def post_end(self, delivery: Delivery, verdict: bytes) -> None: ...


@dataclass(slots=True, eq=False)
class Delivery:
    """One message that the server handed to us and waits to hear about.

    ``count`` is how often it was delivered, from 1; ``arrived`` is the loop's time. ``end`` says what
    became of it, once.
    """

    holder: Holder
    subject: str
    reply: str
    seq: int
    count: int
    data: bytes
    seen: float
    arrived: float = 0.0
    is_begun: bool = False
    is_given_back: bool = False

    def begin(self) -> bool:
        """An actor is about to work on it: from now on a newer wake of its key is another message.

        False where it was given back while it waited.
        """
        return self.holder.begin(self)

    def end(self, verdict: bytes) -> None:
        """Tell the server ACK, NAK or TERM. Returns at once; losing it only means redelivery."""
        self.holder.post_end(self, verdict)
