"""How long to wait before a process that died is started again, and when to give up on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST, LONGEST = 0.5, 30.0
#: A run of this many seconds was a good one: the next failure starts from the beginning.
GOOD_RUN = 60.0
#: A process that ended by itself within this many seconds did not come up.
QUICK = 10.0
#: After this many starts in a row of a process that never came up, there is no point in more.
ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Backoff:
    """The history of one process, as far as it matters: ``delay`` is the next wait in seconds.

    ``came_up`` says that one of its runs was longer than ``QUICK``; ``quick`` counts the runs in a
    row that were not and that ended with an exit code of their own.
    """

    delay: float = FIRST
    quick: int = 0
    came_up: bool = False

    def after(self, ran: float, code: int) -> Backoff:
        """The history after a run of *ran* seconds that ended with exit code *code*.

        Codes above 128 say that a signal ended it: somebody killed it, which tells nothing about
        whether it can start.
        """
        delay = FIRST if ran >= GOOD_RUN else self.delay
        quick = self.quick + 1 if ran < QUICK and code <= 128 else 0
        return replace(
            self,
            delay=min(delay * 2, LONGEST),
            quick=quick,
            came_up=self.came_up or ran >= QUICK,
        )

    def wait(self, ran: float) -> float:
        """Seconds to wait after a run of *ran* seconds."""
        return FIRST if ran >= GOOD_RUN else self.delay

    @property
    def is_hopeless(self) -> bool:
        """True for a process that never came up and failed by itself every time."""
        return not self.came_up and self.quick >= ATTEMPTS
