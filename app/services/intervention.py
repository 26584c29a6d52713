"""What a person does about an execution: pause it, let it go on, try again what failed.

An execution that has ended stays as it ended: trying again starts another one, which takes over
what was done. So one execution has one end, whoever was told of it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import structlog

from app.engine.events import Event, ExecutionPaused, ExecutionResumed, ExecutionStarted
from app.engine.playbook import Playbook
from app.engine.ports import (
    CatalogEntry,
    Clock,
    Dispatch,
    Dispatcher,
    Draft,
    EventLog,
    ExecutionSummary,
    LogTransaction,
    NewId,
)
from app.errors import BadRequestError, ConflictError, NotFoundError, UnavailableError
from app.services.catalog import CatalogService
from app.services.executions import Executions, Started
from app.services.family import Family
from app.services.opening import opening

log = structlog.get_logger(__name__)

#: Pointers sent at once when an execution goes on; the sweeper sends those that are left.
BATCH = 2_000
#: A time so far ahead that every attempt is due before it (seconds).
EVER = 1e9


@dataclass(frozen=True, slots=True)
class Retried:
    """What came of trying again: ``started`` another execution, or ``resent`` pointers of this one."""

    started: Started | None = None
    resent: int = 0


class Intervention:
    """The use cases behind pause, resume, retry and rerun."""

    def __init__(
        self,
        events: EventLog,
        catalog: CatalogService,
        dispatcher: Dispatcher,
        executions: Executions,
        family: Family,
        *,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._log = events
        self._catalog = catalog
        self._dispatcher = dispatcher
        self._executions = executions
        self._family = family
        self._clock = clock
        self._new_id = new_id

    # ------------------------------------------------------------------ pause
    def pause(
        self, execution_id: int, *, reason: str | None = None, cascade: bool = True
    ) -> list[int]:
        """Start nothing new in the execution, and with *cascade* in those below it; their ids.

        What runs may end, and its outcome is kept. Pausing twice changes nothing. Deadlines go on.
        One that has ended may have left others running. Raises ``NotFoundError``, and
        ``ConflictError`` where it has ended and nothing below it changed.
        """

        def paused(tx: LogTransaction, each: int) -> Event | None:
            return None if tx.paused([each]) else ExecutionPaused(reason)

        return self._changed(execution_id, paused, cascade=cascade)

    def resume(self, execution_id: int, *, cascade: bool = True) -> list[int]:
        """Let the execution go on, and with *cascade* those below it; their ids.

        Resuming twice changes nothing. One that has ended may have left paused ones behind. Raises
        ``NotFoundError``, and ``ConflictError`` where it has ended and nothing below it changed.
        """

        def resumed(tx: LogTransaction, each: int) -> Event | None:
            return ExecutionResumed() if tx.paused([each]) else None

        ids = self._changed(execution_id, resumed, cascade=cascade)
        for each in ids:
            self._set_going(each)
        return ids

    def _changed(
        self,
        execution_id: int,
        change: Callable[[LogTransaction, int], Event | None],
        *,
        cascade: bool,
    ) -> list[int]:
        """The executions in whose log the event of *change* was written."""
        self._executions.get(execution_id)
        changed, how = [], ""
        # The parent first: once it is paused it starts no other child.
        for each in self._with_those_below(execution_id, cascade=cascade):
            with self._log.transaction([each]) as tx:
                ended = tx.ended([each])
                event = None if ended else change(tx, each)
                if event is not None:
                    tx.append(each, [Draft(event)])
                    changed.append(each)
            if ended and each == execution_id:
                how = ended[each]
        if how and not changed:
            raise ConflictError(f"execution {execution_id} has ended already ({how})")
        return changed

    def _with_those_below(self, execution_id: int, *, cascade: bool) -> Iterator[int]:
        yield execution_id
        if cascade:
            yield from self._family.open_below(execution_id)

    def _set_going(self, execution_id: int) -> None:
        try:
            self._resend(execution_id)
            self._dispatcher.wake([execution_id])
        except UnavailableError as exc:
            # The log is the outbox: the sweeper does both when the broker is back.
            log.warning("resume.not_told", execution_id=execution_id, error=str(exc))

    # ------------------------------------------------------------------ try again
    def retry(
        self, execution_id: int, *, step: str | None = None, version: int | str | None = None
    ) -> Retried:
        """Try again what failed, or everything from *step* on.

        Of an execution that has ended another one is started, of the same version of its playbook
        or of *version* ("latest" or a number): it takes over what was done, and does the rest. In
        one that runs, the attempts that wait for a later time, or for a worker, are sent now.

        Raises ``NotFoundError``; ``ConflictError`` where there is nothing to try again.
        """
        summary = self._executions.get(execution_id)
        if summary.status == "RUNNING":
            return self._hurry(execution_id, step)
        if summary.status == "COMPLETED" and step is None:
            raise ConflictError(
                f"execution {execution_id} completed: nothing failed in it",
                remedy="name the step to begin again from, or use rerun",
            )
        entry = self._version(summary, version)
        playbook = self._catalog.playbook(entry.catalog_id)
        redo = () if step is None else _from(playbook, step)
        new_id, started = self._opened(execution_id, entry, playbook)
        started = replace(started, retry_of=execution_id, redo=redo or None)
        self._executions.accept(new_id, started)
        return Retried(Started(new_id, entry))

    def rerun(self, execution_id: int, *, version: int | str | None = None) -> Started:
        """Start the playbook of the execution again from the beginning, with the same workload.

        *version* is as for ``retry``. Raises ``NotFoundError``.
        """
        entry = self._version(self._executions.get(execution_id), version)
        playbook = self._catalog.playbook(entry.catalog_id)
        new_id, started = self._opened(execution_id, entry, playbook)
        self._executions.accept(new_id, started)
        return Started(new_id, entry)

    def _hurry(self, execution_id: int, step: str | None) -> Retried:
        sent = self._resend(execution_id, step=step, ahead=EVER)
        if not sent:
            where = f"step {step!r} of it" if step else "it"
            raise ConflictError(
                f"execution {execution_id} runs, and nothing of {where} waits for another attempt",
                remedy=f"see 'callboard why {execution_id}'",
            )
        return Retried(resent=sent)

    def _resend(self, execution_id: int, *, step: str | None = None, ahead: float = 0.0) -> int:
        """Send the pointers nobody claimed that are due, or will be within *ahead* seconds; how many."""
        found = self._log.unclaimed(older_than=-ahead, limit=BATCH, after=execution_id - 1)
        nonce = int(self._clock() * 1000)
        steps = [
            Dispatch(pointer, tool, queue, nonce=nonce)
            for pointer, tool, queue in found
            if pointer.execution_id == execution_id and step in {None, pointer.step}
        ]
        self._dispatcher.dispatch(steps)
        return len(steps)

    def _version(self, summary: ExecutionSummary, version: int | str | None) -> CatalogEntry:
        if version is None:
            return self._catalog.entry(catalog_id=summary.catalog_id)
        if version == "latest":
            return self._catalog.entry(summary.path)
        if not isinstance(version, int):
            raise BadRequestError(f"'version' is a number or 'latest', not {version!r}")
        return self._catalog.entry(summary.path, version=version)

    def _opened(
        self, before: int, entry: CatalogEntry, playbook: Playbook
    ) -> tuple[int, ExecutionStarted]:
        """A new id, and the first event of an execution that begins with the workload of *before*."""
        found = self._log.read(before, limit=1)
        if not found:
            raise NotFoundError(f"there is no execution {before} any more")
        first = found[0].event
        assert isinstance(first, ExecutionStarted)
        new_id = self._new_id()
        return new_id, opening(new_id, entry, playbook, first.workload, now=self._clock())


def _from(playbook: Playbook, step: str) -> tuple[str, ...]:
    """*step* and what it leads to. Raises ``NotFoundError``."""
    if step not in playbook.steps:
        near = difflib.get_close_matches(step, list(playbook.steps), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(playbook.steps)}"
        raise NotFoundError(f"playbook {playbook.path!r} has no step {step!r}", remedy=hint)
    reaches = playbook.graph.reaches
    return tuple(name for name in playbook.steps if name == step or reaches(step, name))
