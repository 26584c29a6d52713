"""The log of a simulated world: the real one in memory, behind a database that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Protocol, TypeVar

from app.engine.ahead import NOTHING, Ahead, Standing
from app.engine.entry import Entry
from app.engine.events import StepKey, StepStarted
from app.engine.ports import AttemptState, Draft, LogTransaction, Pointer
from app.errors import UnavailableError
from app.simulation.agenda import Agenda
from app.simulation.mutants import NONE, Mutant
from app.store.keys import duplicate, keys_of
from app.store.memory import MemoryLog, MemoryRuntime
from app.store.rows import Row
from app.store.shelf import Assuming, Book, MemoryTransaction, Shelf, attempt_state

T = TypeVar("T")
#: Seconds that the database needs to come back after it was killed.
RESTART = 1.5
#: Keys of which a decision that is made again runs into one, at the least.
_GUARDS = frozenset({"U3", "U4", "U5", "U8"})


def _nothing(_: Row) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Outdated:
    """What a view lacks: rows about attempts that ``hides`` names, and the newest ``decision``."""

    hides: Callable[[Row], bool] = _nothing
    decision: bool = False


UP_TO_DATE = Outdated()


class Surroundings(Protocol):
    """What the twins ask of the world around them."""

    @property
    def agenda(self) -> Agenda: ...

    def happens(self, fault: str, what: str = "") -> bool:
        """Whether this fault strikes now; it is counted and told."""

    def comma(self, where: str) -> None:
        """A place between two things; the acting process may die here, or others act first."""

    def outdated(self) -> Outdated:
        """What the next transaction of the acting process does not see; once."""

    def committed(self, entries: Sequence[Entry]) -> None:
        """These events are in the log now."""

    def lost(self, execution_id: int, seq: int) -> None:
        """The events from *seq* on are in the log no more."""

    def tell(self, what: str, fault: str = "") -> None:
        """A line of the story."""


class Transaction(MemoryTransaction):
    """A transaction whose views may be out of date, where a unique key guards what follows."""

    def __init__(
        self, shelf: Shelf, ids: Sequence[int], world: Surroundings, log: StoreTwin
    ) -> None:
        super().__init__(shelf, ids)
        self._world = world
        self._log = log
        self._outdated = world.outdated()
        self.entries: list[Entry] = []
        self.epoch = log.epoch

    def read(self, execution_id: int, *, after: int = 0) -> list[Entry]:
        found = super().read(execution_id, after=after)
        first = self._log.redecidable(execution_id) if self._outdated.decision else None
        return [entry for entry in found if entry.seq < first] if first else found

    def attempts(
        self, keys: Iterable[tuple[int, StepKey]]
    ) -> dict[tuple[int, StepKey], AttemptState]:
        found = super().attempts(keys)
        hides = self._outdated.hides
        if hides is not _nothing:
            # Nothing but the lock guards what a pause makes of a claim that is there already.
            held = super().paused({i for i, _ in found})
            found = {
                (i, key): state
                if i in held
                else attempt_state([s for s in self._shelf.of_key(i, key) if not hides(s.row)])
                for (i, key), state in found.items()
            }
        return self._log.mutant.seen(found)

    def ended(self, execution_ids: Iterable[int]) -> dict[int, str]:
        return {} if self._log.mutant.ends_unseen else super().ended(execution_ids)

    def append(self, execution_id: int, drafts: Sequence[Draft]) -> list[Entry]:
        self._world.comma("before appending")
        for book in (self._shelf.book(execution_id), self._staged.get(execution_id)):
            self._log.forget_keys(book)
        entries = super().append(execution_id, drafts)
        self.entries += entries
        return entries

    def recheck(self) -> None:
        """What Postgres does where nothing kept others from committing meanwhile."""
        for execution_id, staged in self._staged.items():
            known = self._shelf.book(execution_id)
            self._log.forget_keys(known)
            for seq, stored in enumerate(staged.rows, len(known.rows) + 1):
                taken = [key for key in keys_of(stored.row) if key in known.taken]
                if taken or stored.row.seq != seq:
                    raise duplicate(str(taken[0][0]) if taken else "U1", execution_id)


class AssumedTransaction(Assuming, Transaction):
    """A transaction that goes by what is assumed: others may be at work until its end."""

    @classmethod
    def going_by(
        cls, assumed: Mapping[int, Standing], shelf: Shelf, world: Surroundings, log: StoreTwin
    ) -> AssumedTransaction:
        tx = cls(shelf, sorted(assumed), world, log)
        tx.assumed = assumed
        return tx

    def _compare(self) -> None:
        if self._log.mutant.compares:
            super()._compare()


class StoreTwin(MemoryLog):
    """``MemoryLog`` with outages, unanswered commits, outdated views and a disk that forgets."""

    def __init__(
        self,
        world: Surroundings,
        random: Random,
        runtime: MemoryRuntime,
        *,
        mutant: Mutant = NONE,
    ) -> None:
        super().__init__(runtime, clock=lambda: world.agenda.now)
        self._world = world
        self._random = random
        self.mutant = mutant
        self.epoch = 0
        self.away_until = 0.0
        self._locked: set[int] = set()
        #: Commits that are not on disk yet, oldest first: (execution_id, seq).
        self._floating: list[tuple[int, int]] = []
        #: The newest decision of each execution: its first and last seq, and whether keys guard it.
        self._decisions: dict[int, tuple[int, int, bool]] = {}
        self._answers: dict[str, list[object]] = {}

    # ------------------------------------------------------------------ writing
    @contextmanager
    def transaction(
        self,
        execution_ids: Iterable[int],
        *,
        durable: bool = True,
        ahead: Ahead = NOTHING,
        waits: bool = True,  # noqa: ARG002 (there is one thread)
    ) -> Iterator[LogTransaction]:
        self._world.comma("before a transaction")
        ids = sorted(set(execution_ids))
        if ahead.assumed:
            tx: Transaction = AssumedTransaction.going_by(
                ahead.assumed, self._shelf, self._world, self
            )
            yield tx
            # It asks the database for the first time.
            self._world.comma("before the commit")
            self._answer()
            tx.epoch = self.epoch
            with self._holding(ids):
                self._commit(tx, durable=durable)
        else:
            self._answer()
            with self._holding(ids):
                tx = Transaction(self._shelf, ids, self._world, self)
                yield tx
                if tx.entries:
                    self._world.comma("before the commit")
                self._commit(tx, durable=durable)
        if tx.entries:
            if not durable and self._world.happens("claim in danger"):
                self._world.agenda.after(self._random.uniform(0.0, 1.0), self.crash)
            if self._world.happens("commit unanswered"):
                raise UnavailableError("the connection was lost during the commit")
            self._world.comma("after the commit")

    @contextmanager
    def _holding(self, ids: Sequence[int]) -> Iterator[None]:
        if self.mutant.locks and not self._locked.isdisjoint(ids):
            raise UnavailableError(f"execution {ids[0]} is locked for too long")
        self._locked.update(ids)
        try:
            yield
        finally:
            self._locked.difference_update(ids)

    def _commit(self, tx: Transaction, *, durable: bool) -> None:
        if tx.epoch != self.epoch:
            raise UnavailableError("the database was restarted")
        if tx.entries and self._world.happens("commit refused"):
            raise UnavailableError("the connection was lost before the commit")
        if not self.mutant.locks:
            tx.recheck()
        tx.finish()
        if durable and tx.entries:
            self._floating.clear()  # the disk gets everything in its order
        elif not durable:
            assert all(isinstance(entry.event, StepStarted) for entry in tx.entries)
            self._floating += [(entry.execution_id, entry.seq) for entry in tx.entries]
        self._world.committed(tx.entries)

    def decided(self, execution_id: int, entries: Sequence[Entry]) -> None:
        """*entries* were appended by an orchestrator: most often a decision, which may be made again.

        What tells a parent of its child, or cancels a child, would not be decided again.
        """
        rows = [s.row for s in self._shelf.rows(execution_id, after=entries[0].seq - 1)]
        again = all(row.idempotency_key is None for row in rows)
        again = again and rows[-1].type != "execution.cancelled"
        guarded = again and any(key[0] in _GUARDS for row in rows for key in keys_of(row))
        self._decisions[execution_id] = (entries[0].seq, entries[-1].seq, guarded)

    def redecidable(self, execution_id: int) -> int | None:
        """Where the newest decision began, if nothing came after it, and keys guard it."""
        first, last, guarded = self._decisions.get(execution_id, (0, 0, False))
        return first if guarded and last == len(self._shelf.book(execution_id).rows) else None

    def forget_keys(self, book: Book | None) -> None:
        """Take from *book* the unique keys that a mutant lacks."""
        if self.mutant.keys and book is not None:
            book.taken = {key for key in book.taken if key[0] not in self.mutant.keys}

    # ------------------------------------------------------------------ going down
    def crash(self) -> None:
        """The database is killed; of the commits that are not on disk some survive, the oldest."""
        self.epoch += 1
        self.away_until = self._world.agenda.now + RESTART
        kept = self._random.randint(0, len(self._floating))
        self._world.tell("the database is killed")
        for execution_id, seq in reversed(self._floating[kept:]):
            self._remove_last(execution_id, seq)
        self._floating.clear()

    def _remove_last(self, execution_id: int, seq: int) -> None:
        book = self._shelf.book(execution_id)
        row = book.rows.pop().row
        assert row.seq == seq
        assert row.step is not None
        book.taken.difference_update(keys_of(row))
        book.by_key[StepKey(row.step, row.visit or 0, row.iteration or 0)].pop()
        self._world.lost(execution_id, seq)

    # ------------------------------------------------------------------ reading
    def _answer(self) -> None:
        if self._world.agenda.now < self.away_until or self._world.happens("read failed"):
            raise UnavailableError("the database does not answer")

    def entries(self, seqs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Entry]:
        self._answer()
        return super().entries(seqs)

    def iterations(self, execution_id: int, step: str, visit: int) -> list[Entry]:
        self._answer()
        return super().iterations(execution_id, step, visit)

    def unclaimed(
        self, *, older_than: float, limit: int = 1000, after: int = 0
    ) -> list[tuple[Pointer, str, str]]:
        now = super().unclaimed(older_than=older_than, limit=limit, after=after)
        return self._perhaps_earlier("unclaimed", now)

    def abandoned(self, *, lease: float, limit: int = 1000) -> list[tuple[Pointer, str]]:
        return self._perhaps_earlier("abandoned", super().abandoned(lease=lease, limit=limit))

    def untold(self, *, limit: int = 1000) -> list[int]:
        return self._perhaps_earlier("untold", super().untold(limit=limit))

    def orphans(self, *, limit: int = 1000) -> list[int]:
        return self._perhaps_earlier("orphans", super().orphans(limit=limit))

    def open_executions(self, *, limit: int = 1000, after: int = 0) -> list[int]:
        now = super().open_executions(limit=limit, after=after)
        return self._perhaps_earlier("open", now)

    def _perhaps_earlier(self, question: str, now: list[T]) -> list[T]:
        """The answer to a *question*, or what it was the last time: then it may be out of date."""
        self._answer()
        earlier = self._answers.get(question)
        self._answers[question] = list(now)
        if earlier is not None and earlier != now and self._world.happens("stale view", question):
            return earlier  # type: ignore[return-value]  # what this very question gave
        return now

    # ------------------------------------------------------------------ for the judge
    def rows_of(self, execution_id: int) -> list[Row]:
        """The rows of an execution as they are."""
        return [stored.row for stored in self._shelf.rows(execution_id)]

    @property
    def ids(self) -> list[int]:
        """Every execution there is, oldest first."""
        return sorted(summary.execution_id for summary in self._shelf.summaries())
