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


@dataclass(slots=True)
class Granted:
    """An iteration that was claimed: what the control plane answered."""

    attempt: Attempt
    answer: ClaimAnswer
    raw: dict[str, Any] | None


class Chunk:
    """What is left of a message's iterations: not claimed yet, or claimed and waiting their turn.

    The thread that works on it takes from the front, the watch takes all that is left; each
    iteration is taken once.
    """

    def __init__(self, first: Pointer, count: int) -> None:
        self._open = deque(
            first._replace(iteration=first.iteration + place) for place in range(count)
        )
        self._granted: deque[Granted] = deque()
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

    def give_up(self) -> tuple[list[Pointer], list[Granted]]:
        """All that is left."""
        with self._lock:
            rest = list(self._open), list(self._granted)
            self._open.clear()
            self._granted.clear()
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
                for granted in chunk.give_up()[1]:
                    self._worker.leave(granted.attempt)

    def _work_through(self, chunk: Chunk, loop: tuple[int, str]) -> None:
        done: list[tuple[Attempt, Report]] = []
        while True:
            # While nobody knows what they take, the first goes alone.
            size = max(1, int(SLICE / max(self._paces.get(loop) or SLICE, 1e-6)))
            fresh = [] if self._settler.is_stopping else self._entered(chunk.take(size))
            if not fresh and not done:
                break
            granted = self._settle(done, fresh)
            chunk.grant(granted)
            began = time.monotonic()
            done = list(self._worked(iter(chunk.begin, None)))
            if done:
                self._paces.put(loop, max(1e-6, (time.monotonic() - began) / len(done)))
        if chunk.take(1):
            raise UnavailableError("this worker is shutting down")

    def _entered(self, pointers: Iterable[Pointer]) -> list[Attempt]:
        return [each for each in map(self._worker.enter, pointers) if each is not None]

    def _settle(
        self, done: Sequence[tuple[Attempt, Report]], fresh: Sequence[Attempt]
    ) -> list[Granted]:
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

    def _worked(self, granted: Iterator[Granted]) -> Iterator[tuple[Attempt, Report]]:
        for each in granted:
            report = self._worker.work(each)
            if report is None:
                self._worker.leave(each.attempt)
            else:
                yield each.attempt, report

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
                self._give_back(*chunk.give_up())
            time.sleep(GLANCE)

    def _give_back(self, pointers: Sequence[Pointer], granted: Sequence[Granted]) -> None:
        """Have others work on these: what was claimed is scheduled again, the rest sent again."""
        if granted:
            reports = [self._worker.given_back(each.attempt) for each in granted]
            self._settle([(each.attempt, r) for each, r in zip(granted, reports, strict=True)], ())
        if not pointers:
            return
        wires = [PointerWire(**pointer._asdict()) for pointer in pointers]
        try:
            self._work.exchange(Exchange(worker=self._name, released=wires))
        except CallboardError as exc:
            # They are in the log: the sweeper sends what nobody claims.
            log.warning("chunk.not_released", error=str(exc), iterations=len(wires))
