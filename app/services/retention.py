"""Old executions go: in small batches, while everything runs.

What is removed first is the execution itself, in one transaction that notes its id; after that what
lies elsewhere, and the note last. A crash in between leaves notes, which the next turn, or another
process, works off. Two at once are safe: an execution is removed under its lock, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from app.engine.custody import Custody
from app.engine.ports import BlobStore, Clock
from app.engine.retention import Expired, Expiry, Member, RetentionStore
from app.errors import BadRequestError, UnavailableError
from app.wire.retention import EVENTS

log = structlog.get_logger(__name__)

#: Tops of families looked at in one turn.
PAGE = 200
#: Executions that the sweeper removes in one go.
SWEPT = 100
#: Notes of executions that are worked off at once.
NOTES = 100
#: Executions in a row whose files cannot be deleted: after these the store is left alone for now.
REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn removed; ``behind``: where the next one looks, None where all was looked at."""

    removed: Sequence[Member]
    behind: int | None


class Retention:
    """The use cases behind ``callboard prune`` and the sweeper's."""

    def __init__(
        self,
        store: RetentionStore | None,
        custody: Custody,
        blobs: BlobStore | None,
        *,
        workspaces: Callable[[int], None] | None,
        clock: Clock,
    ) -> None:
        self._kept_in = store
        self._custody = custody
        self._blobs = blobs
        self._workspaces = workspaces
        self._clock = clock
        # Where the sweeper goes on.
        self._behind = 0
        # And the notes.
        self._noted = 0

    def moment(self, seconds: float) -> datetime:
        """The moment so many *seconds* ago. Raises ``BadRequestError`` for one without a date."""
        try:
            return datetime.fromtimestamp(self._clock(), UTC) - timedelta(seconds=seconds)
        except OverflowError:
            raise BadRequestError(f"{seconds:g} seconds ago is no time") from None

    def expired(self, expiry: Expiry, *, after: int = 0, limit: int | None = None) -> Expired:
        """Executions that may go, of families whose top has an id above *after*.

        With a *limit* not more than that, nor more than ``EVENTS`` events unless one has more; a
        family that is larger goes in several turns.
        """
        members: list[Member] = []
        kept: dict[str, int] = {}
        tops = self._store.tops(after=after, before=expiry.ended_before, limit=PAGE)
        for top in tops:
            if limit is not None and len(members) >= limit:
                return Expired(members, after)
            if expiry.fits(top) and not self._is_kept(expiry, top.path, top.execution_id, kept):
                family = self._store.family(top.execution_id)
                if all(expiry.is_past(member.summary) for member in family):
                    room = len(family) if limit is None else _room(family, members, limit)
                    members += family[:room]
                    if room < len(family):
                        return Expired(members, after)
            after = top.execution_id
        return Expired(members, after if len(tops) == PAGE else None)

    def _is_kept(self, expiry: Expiry, path: str, top: int, known: dict[str, int]) -> bool:
        """Whether *top* is among the newest of its path that stay."""
        if not expiry.keep:
            return False
        if path not in known:
            known[path] = self._store.oldest_kept(path, expiry.keep)
        return top >= known[path]

    def prune(self, expiry: Expiry, *, after: int = 0, batch: int) -> Turn:
        """Remove up to *batch* executions, in one transaction. Raises ``UnavailableError``."""
        found = self.expired(expiry, after=after, limit=batch)
        chosen = {member.execution_id: member.events for member in found.members}
        gone = set(self.remove(chosen, ended_before=expiry.ended_before))
        removed = [member for member in found.members if member.execution_id in gone]
        behind = found.behind
        if behind == after and not removed and found.members:
            # What cannot go now must not hide the others; it is the end of a family, not its top.
            behind = self._next_top(after, expiry)
        return Turn(removed, behind)

    def _next_top(self, after: int, expiry: Expiry) -> int | None:
        tops = self._store.tops(after=after, before=expiry.ended_before, limit=1)
        return tops[0].execution_id if tops else None

    def remove(self, members: Mapping[int, int], *, ended_before: datetime) -> list[int]:
        """Remove those executions, by the number of their events, that may go now; their ids."""
        self.finish()
        gone = self._store.remove(members, ended_before=ended_before) if members else []
        if gone:
            log.info("executions.pruned", count=len(gone), first=gone[0], last=gone[-1])
            self._clean(gone)
        return gone

    def finish(self) -> int:
        """Remove what is left elsewhere of executions that are gone; of how many.

        Those whose files cannot be deleted keep their notes, and the next call begins behind them.
        """
        ids = self._store.removed(NOTES, after=self._noted)
        self._noted, done = self._clean(ids)
        if len(ids) < NOTES and self._noted == max(ids, default=0):
            self._noted = 0
        return done

    def _clean(self, execution_ids: Sequence[int]) -> tuple[int, int]:
        """Clean up after these; the last one looked at, and how many are done with."""
        done: list[int] = []
        last = refusals = 0
        for each in execution_ids:
            last = each
            try:
                self._delete_files(each)
            except UnavailableError as exc:
                log.warning("executions.not_cleaned", execution_id=each, error=str(exc))
                refusals += 1
                if refusals == REFUSALS:
                    break
                continue
            refusals = 0
            self._custody.variables.delete(each)
            done.append(each)
        if done:
            self._custody.output.forget(done)
            self._custody.tokens.forget(done)
            self._store.forget(done)
        return last, len(done)

    def _delete_files(self, execution_id: int) -> None:
        if self._blobs is not None:
            self._blobs.delete_all(execution_id)
        if self._workspaces is not None:
            self._workspaces(execution_id)

    def sweep(self, days: float) -> int:
        """One batch of what ended more than *days* ago; how many went. The sweeper asks for this."""
        expiry = Expiry(self.moment(86_400 * days))
        turn = self.prune(expiry, after=self._behind, batch=SWEPT)
        self._behind = turn.behind or 0
        return len(turn.removed)

    @property
    def _store(self) -> RetentionStore:
        if self._kept_in is None:
            raise UnavailableError("what runs in one process is not pruned", remedy="end it")
        return self._kept_in


def _room(family: Sequence[Member], chosen: Sequence[Member], limit: int) -> int:
    """How many of *family* go into the batch of *chosen*, by number and by events."""
    events = sum(member.events for member in chosen)
    most = limit - len(chosen)
    for number, member in enumerate(family[:most]):
        events += member.events
        if events > EVENTS and (chosen or number):
            return number
    return min(most, len(family))
