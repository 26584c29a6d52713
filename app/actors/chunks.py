"""Iterations that came with one message: worked on one after the other, given back where they are slow."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from app.actors.attempt import Attempt
from app.actors.settling import Settler
from app.brokers.chunks import SLICE
from app.engine.ports import Pointer
from app.errors import CallboardError, UnavailableError
from app.services.cache import Lru
from app.services.work import Worked
from app.wire import Claim, ClaimAnswer, Exchange, PointerWire, Report

log = structlog.get_logger(__name__)

#: Seconds between two looks for chunks that take too long.
GLANCE = SLICE / 2
#: Loops whose pace is remembered.
REMEMBERED = 1024


#: An attempt that has run, and what is to be said of it.
Done = tuple[Attempt, Report]


@dataclass(slots=True)
class Granted:
    """An iteration that was claimed: what the control plane answered."""

    attempt: Attempt
    answer: ClaimAnswer
    raw: dict[str, Any] | None


@dataclass(slots=True)
class Rest:
    """What a chunk holds: not claimed yet, claimed and waiting, or done and not reported."""

    open: list[Pointer]
    granted: list[Granted]
    done: list[Done]


class Chunk:
    """The iterations of a message that are not reported yet.

    The thread that works on it takes from the front, the watch takes all that is there; each
    iteration is taken once.
    """

    def __init__(self, first: Pointer, count: int) -> None:
        self._open = deque(
            first._replace(iteration=first.iteration + place) for place in range(count)
        )
        self._granted: deque[Granted] = deque()
        self._done: list[Done] = []
        self._lock = threading.Lock()
        self._since = math.inf

    def take(self, most: int) -> list[Pointer]:
        """The next ones to claim."""
        with self._lock:
            return [self._open.popleft() for _ in range(min(most, len(self._open)))]

    def grant(self, granted: Iterable[Granted]) -> None:
        with self._lock:
            self._granted.extend(granted)

    def begin(self) -> Granted | None:
        """The next one to run; None where there is none."""
        with self._lock:
            self._since = time.monotonic() if self._granted else math.inf
            return self._granted.popleft() if self._granted else None

    def finish(self, attempt: Attempt, report: Report) -> None:
        """This one has run."""
        with self._lock:
            self._done.append((attempt, report))

    def finished(self) -> list[Done]:
        """Those that have run since they were asked for."""
        with self._lock:
            done, self._done = self._done, []
            return done

    def give_up(self) -> Rest:
        """All that is left."""
        with self._lock:
            rest = Rest(list(self._open), list(self._granted), self._done)
            self._open.clear()
            self._granted.clear()
            self._done = []
            return rest

    @property
    def is_slow(self) -> bool:
        """The iteration that runs takes longer than the whole chunk should."""
        return time.monotonic() - self._since > SLICE


class Worker(Protocol):
    """What runs attempts; see ``Runner``."""

    def enter(self, pointer: Pointer) -> Attempt | None: ...

    def leave(self, attempt: Attempt) -> None: ...

    def claim_of(self, attempt: Attempt) -> Claim: ...

    def granted(self, attempt: Attempt, answer: ClaimAnswer) -> bool: ...

    def work(self, granted: Granted) -> Report | None: ...

    def given_back(self, attempt: Attempt) -> Report: ...

    def reported(self, answer: Any) -> None: ...


class Chunks:
    """Works through chunks for the threads of one worker process."""

    def __init__(self, worker: Worker, settler: Settler, work: Worked, name: str) -> None:
        self._worker = worker
        self._settler = settler
        self._work = work
        self._name = name
        self._paces: Lru[tuple[int, str], float] = Lru(REMEMBERED)
        self._watched: set[Chunk] = set()
        self._some = threading.Condition()
        self._watch: threading.Thread | None = None

    def run(self, first: Pointer, count: int) -> None:
        """Work on *count* iterations from that of *first* on.

        Returns when the message may be acked. Raises ``UnavailableError`` where some are left
        while shutting down, so that it goes back.
        """
        chunk = Chunk(first, count)
        with self._watching(chunk):
            try:
                self._work_through(chunk, (first.execution_id, first.step))
            finally:
                rest = chunk.give_up()
                for attempt in (*(g.attempt for g in rest.granted), *(a for a, _ in rest.done)):
                    self._worker.leave(attempt)
        if rest.open:
            raise UnavailableError("this worker is shutting down")

    def _work_through(self, chunk: Chunk, loop: tuple[int, str]) -> None:
        while True:
            # While nobody knows what they take, the first goes alone.
            size = max(1, int(SLICE / max(self._paces.get(loop) or SLICE, 1e-6)))
            pointers = [] if self._settler.is_stopping else chunk.take(size)
            done = chunk.finished()
            if not pointers and not done:
                return
            chunk.grant(self._settle(done, self._entered(pointers)))
            began, count = time.monotonic(), 0
            for granted in iter(chunk.begin, None):
                self._take_up(chunk, granted)
                count += 1
            if count:
                self._paces.put(loop, max(1e-6, (time.monotonic() - began) / count))

    def _take_up(self, chunk: Chunk, granted: Granted) -> None:
        report = self._worker.work(granted)
        if report is None:
            self._worker.leave(granted.attempt)
        else:
            chunk.finish(granted.attempt, report)

    def _entered(self, pointers: Iterable[Pointer]) -> list[Attempt]:
        return [each for each in map(self._worker.enter, pointers) if each is not None]

    def _settle(self, done: Sequence[Done], fresh: Sequence[Attempt]) -> list[Granted]:
        """Report *done* and claim *fresh* in one go; those that were granted."""
        claims = [self._worker.claim_of(attempt) for attempt in fresh]
        granted: list[Granted] = []
        try:
            answers = self._settler.settle_all([*(report for _, report in done), *claims])
            for answer, _ in answers[: len(done)]:
                self._worker.reported(answer)
            for attempt, (answer, raw) in zip(fresh, answers[len(done) :], strict=True):
                if self._worker.granted(attempt, answer):
                    granted.append(Granted(attempt, answer, raw))
        finally:
            kept = {id(each.attempt) for each in granted}
            for attempt in (*(attempt for attempt, _ in done), *fresh):
                if id(attempt) not in kept:
                    self._worker.leave(attempt)
        return granted

    # ------------------------------------------------------------------ what is slow
    @contextmanager
    def _watching(self, chunk: Chunk) -> Iterator[None]:
        """Give back what is left of *chunk* once it takes too long."""
        with self._some:
            self._watched.add(chunk)
            if self._watch is None:
                self._watch = threading.Thread(target=self._look, name="chunks", daemon=True)
                self._watch.start()
            self._some.notify()
        try:
            yield
        finally:
            with self._some:
                self._watched.discard(chunk)

    def _look(self) -> None:
        while True:
            with self._some:
                self._some.wait_for(lambda: self._watched)
                slow = [chunk for chunk in self._watched if chunk.is_slow]
            for chunk in slow:
                try:
                    self._give_back(chunk.give_up())
                except Exception:
                    # All of it is in the log; and without this thread no other chunk is looked after.
                    log.exception("chunk.not_given_back")
            time.sleep(GLANCE)

    def _give_back(self, rest: Rest) -> None:
        """Have others work on what waits: the rest is sent again, what was claimed is scheduled again.

        What is done is reported: it need not wait for the slow one either.
        """
        wires = [PointerWire(**pointer._asdict()) for pointer in rest.open]
        if wires:
            try:
                self._work.exchange(Exchange(worker=self._name, released=wires))
            except CallboardError as exc:
                # The sweeper sends what nobody claims.
                log.warning("chunk.not_released", error=str(exc), iterations=len(wires))
        back = [(each.attempt, self._worker.given_back(each.attempt)) for each in rest.granted]
        self._settle([*rest.done, *back], ())
