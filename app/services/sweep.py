"""The sweeper: finds in the log what got lost outside of it, and sends it again.

Safe to run twice at once: what it appends is fenced by the log's keys, what it sends is a pointer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from app import failpoints
from app.engine.events import AttemptExpired
from app.engine.ports import (
    Clock,
    Dispatch,
    Dispatcher,
    Draft,
    DuplicateEventError,
    EventLog,
    Pointer,
    RuntimeRegistry,
)
from app.errors import CallboardError
from app.services.family import Family
from app.services.resends import Resends

log = structlog.get_logger(__name__)

#: Executions woken per run; the next run goes on behind them.
WAKES = 500
#: Pointers sent again per run, and attempts taken from silent workers.
BATCH = 2_000
#: Batches of either in one run where the broker lost all that it held.
BATCHES_AFTER_LOSS = 10


@dataclass(frozen=True, slots=True)
class Swept:
    """What one run did."""

    expired: int = 0
    resent: int = 0
    woken: int = 0


class Sweeper:
    """The use case behind the scheduler's sweep."""

    def __init__(
        self,
        events: EventLog,
        dispatcher: Dispatcher,
        runtime: RuntimeRegistry,
        *,
        family: Family,
        lease: float,
        unclaimed_after: float,
        clock: Clock,
        prune: Callable[[], int] | None = None,
    ) -> None:
        self._log = events
        self._dispatcher = dispatcher
        self._runtime = runtime
        self._family = family
        self._lease = lease
        self._unclaimed_after = unclaimed_after
        self._clock = clock
        #: Removes a batch of old executions, where they do not stay for ever.
        self._prune = prune or int
        # Where the next run goes on: one crowded execution must not hide the others.
        self._behind = 0
        self._unclaimed_behind = 0
        self._resends = Resends(unclaimed_after)
        self._epoch: str | None = None
        self._lost_pointers = self._lost_wakes = False

    def sweep(self) -> Swept:
        """One run. What goes wrong in one part keeps no other from its work; it is raised at the end."""
        counts: list[int] = []
        trouble: list[CallboardError] = []
        for part in (
            self._notice_loss,
            self._expire,
            self._send_again,
            self._wake_open,
            self._family.repair,
            self._tidy,
            self._forget,
            self._prune,
        ):
            try:
                counts.append(part())
            except CallboardError as exc:
                counts.append(0)
                trouble.append(exc)
        if trouble:
            raise trouble[0]
        return Swept(*counts[1:4])

    def _notice_loss(self) -> int:
        """Begin anew, and without patience, where the broker forgot what it was given."""
        epoch = self._dispatcher.epoch()
        if self._epoch not in {None, epoch}:
            log.warning("broker.lost_everything", remedy="what waits is sent again from the log")
            self._lost_pointers = self._lost_wakes = True
            self._behind = self._unclaimed_behind = 0
        self._epoch = epoch
        return int(self._lost_pointers)

    def _tidy(self) -> int:
        """Have the broker drop what was dealt with."""
        self._dispatcher.tidy()
        return 0

    def _forget(self) -> int:
        """Forget processes that fell silent long ago."""
        return self._runtime.prune(older_than=max(60.0, 20 * self._lease))

    def _expire(self) -> int:
        """Fence off the attempts of workers that stopped beating."""
        count = 0
        touched: set[int] = set()
        for pointer, worker in self._log.abandoned(lease=self._lease, limit=BATCH):
            place = (pointer.execution_id, pointer.key)
            event = AttemptExpired(*pointer.key, attempt=pointer.attempt, worker=worker)
            try:
                with self._log.transaction([pointer.execution_id]) as tx:
                    state = tx.attempts([place])[place]
                    current = state.attempt == pointer.attempt and state.started_by == worker
                    if (
                        not current
                        or state.fenced
                        or state.ended
                        or tx.ended([pointer.execution_id])
                    ):
                        continue
                    tx.append(
                        pointer.execution_id,
                        [Draft(event, f"expired:{pointer.key}:{pointer.attempt}")],
                    )
                    failpoints.before("expire.commit")
                failpoints.after("expire.commit")
            except DuplicateEventError:
                continue  # another sweeper was quicker
            log.warning(
                "attempt.expired",
                execution_id=pointer.execution_id,
                step=str(pointer.key),
                worker=worker,
            )
            touched.add(pointer.execution_id)
            count += 1
        if touched:
            failpoints.before("expire.wake")
            self._dispatcher.wake(touched)
            failpoints.after("expire.wake")
        return count

    def _send_again(self) -> int:
        """Send the pointers that nobody claimed, where they do not wait in their queue any more."""
        count = self._send_overdue()
        for _ in range(1, BATCHES_AFTER_LOSS):
            if not self._lost_pointers:
                break
            count += self._send_overdue()
        return count

    def _send_overdue(self) -> int:
        now, lost = self._clock(), self._lost_pointers
        queues: dict[str, list[tuple[Pointer, str]]] = defaultdict(list)
        for pointer, tool, queue in self._overdue():
            queues[queue].append((pointer, tool))
        self._resends.forget(now)
        count = 0
        for queue, found in queues.items():
            waited = self._dispatcher.waited(queue)
            due = [
                (pointer, tool)
                for pointer, tool in found
                if lost or self._resends.is_due(pointer, waited=waited, now=now)
            ]
            failpoints.before("resend.publish")
            self._dispatcher.dispatch(
                [Dispatch(pointer, tool, queue, nonce=int(now * 1000)) for pointer, tool in due]
            )
            failpoints.after("resend.publish")
            self._resends.note((pointer for pointer, _ in due), now)
            count += len(due)
        return count

    def _overdue(self) -> list[tuple[Pointer, str, str]]:
        """The next batch of pointers that nobody claimed, from the first execution on again at last."""
        found = self._log.unclaimed(
            older_than=0 if self._lost_pointers else self._unclaimed_after,
            limit=BATCH,
            after=self._unclaimed_behind,
        )
        self._unclaimed_behind = found[-1][0].execution_id if len(found) == BATCH else 0
        if not self._unclaimed_behind:
            self._lost_pointers = False  # all of them were looked through
        return found

    def _wake_open(self) -> int:
        """Wake the open executions in turn: whatever one waits for, a wake never harms."""
        count = self._wake_next()
        for _ in range(1, BATCHES_AFTER_LOSS):
            if not self._lost_wakes:
                break
            count += self._wake_next()
        return count

    def _wake_next(self) -> int:
        ids = self._log.open_executions(limit=WAKES, after=self._behind)
        if ids:
            failpoints.before("sweep.wake")
            self._dispatcher.wake(ids)
            failpoints.after("sweep.wake")
        self._behind = ids[-1] if len(ids) == WAKES else 0
        self._lost_wakes = self._lost_wakes and bool(self._behind)
        return len(ids)
