"""The threads that run actors, stopped so that all of them are waited for."""

from __future__ import annotations

import time

import dramatiq

#: Milliseconds that the threads which fetch messages get to end, whatever the others took.
LEAST = 2_000


class Worker(dramatiq.Worker):
    """Dramatiq's worker with another ``stop``.

    Its own waits for one thread after the other, and takes the time since the beginning from what is
    left each time: of sixteen threads the last are not waited for at all where the first took a
    second, and their messages are given up half done.
    """

    def stop(self, timeout: int = 600_000) -> None:
        """Stop in good order; for what is at work it waits *timeout* milliseconds, all in all."""
        deadline = time.monotonic() + timeout / 1000
        # First, so that nothing more is begun while we wait. It will hear of it once more.
        self.broker.emit_before("worker_shutdown", self)
        for thread in self.workers:
            thread.stop()
        for thread in self.workers:
            thread.join(max(0.0, deadline - time.monotonic()))
        super().stop(max(LEAST, int(1000 * (deadline - time.monotonic()))))
