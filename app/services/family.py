"""Parents and children: starting sub-playbooks, telling who waits, cancelling what is left behind.

A child begins in the same transaction as the event of its parent that says so. Its end is told to
the parent in a transaction of its own; where a process dies in between, the sweeper tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import structlog

from app import failpoints
from app.engine.children import Caller, CallName, Outcome, Target, ending
from app.engine.decide import cancel, last_step
from app.engine.events import ChildStarted, Event, StepKey
from app.engine.language.tasks import PLAYBOOK
from app.engine.ports import (
    Clock,
    Dispatcher,
    Draft,
    DuplicateEventError,
    EventLog,
    ExecutionFilter,
    LogTransaction,
)
from app.engine.state import Execution, replay
from app.errors import (
    BadRequestError,
    CallboardError,
    InvalidPlaybookError,
    NotFoundError,
)
from app.services.catalog import CatalogService
from app.services.durable import durable
from app.services.large import Storage
from app.services.opening import opening
from app.services.reading import MissingValueError, Reader

log = structlog.get_logger(__name__)

#: Children settled per run of the sweeper, and looked at in one go.
BATCH = 500


class Family:
    """What binds executions to each other."""

    def __init__(
        self,
        events: EventLog,
        catalog: CatalogService,
        dispatcher: Dispatcher,
        reader: Reader,
        *,
        storage: Storage,
        clock: Clock,
    ) -> None:
        self._log = events
        self._catalog = catalog
        self._dispatcher = dispatcher
        self._reader = reader
        self._storage = storage
        self._clock = clock

    # ------------------------------------------------------------------ starting
    def target(self, call: CallName) -> Target | None:
        """What a call leads to; None where nothing is registered there, or nothing that can run."""
        try:
            entry = self._catalog.entry(call.path, version=call.version, catalog_id=call.catalog_id)
            self._catalog.playbook(entry.catalog_id)
        except (NotFoundError, InvalidPlaybookError, BadRequestError) as exc:
            log.info("call.refused", call=str(call), reason=exc.message)
            return None
        return Target(entry.catalog_id, entry.path, entry.version)

    def begin(self, tx: LogTransaction, parent: int, state: Execution, event: Event) -> Event:
        """*event* as the parent's log keeps it, and the log of the child that it starts begun."""
        if not isinstance(event, ChildStarted):
            return event
        entry = self._catalog.entry(catalog_id=event.catalog_id)
        caller = Caller(*event.key, event.attempt, event.returns or "", event.resumes, event.fails)
        started = opening(
            event.child_execution_id,
            entry,
            self._catalog.playbook(event.catalog_id),
            event.payload,
            now=self._clock(),
            parent_execution_id=parent,
            depth=state.depth + 1,
            caller=caller.to_dict() if event.waits else None,
        )
        failpoints.before("child.begin")
        tx.begin(event.child_execution_id)
        tx.append(event.child_execution_id, [Draft(started)])
        failpoints.after("child.begin")
        return replace(event, payload=None)

    def wake(self, execution_id: int, events: Sequence[Event]) -> None:
        """Wake the children that *events* of *execution_id* started, and see to their deadlines."""
        started = [event for event in events if isinstance(event, ChildStarted)]
        if not started:
            return
        failpoints.before("child.wake")
        self._dispatcher.wake(event.child_execution_id for event in started)
        failpoints.after("child.wake")
        now = self._clock()
        for at in {event.deadline for event in started if event.deadline is not None}:
            self._dispatcher.wake([execution_id], delay=max(0.0, at - now))
        if any(not event.waits for event in started):
            self._dispatcher.wake([execution_id])

    # ------------------------------------------------------------------ ending
    def settle(self, execution_id: int, state: Execution) -> None:
        """After the end of *execution_id*: tell who waits for it, cancel what it waited for, and drop
        its wakes for later.

        Whoever cancels an execution cancels its children himself.
        """
        if state.caller is not None and state.parent_execution_id is not None:
            self._tell(execution_id, state)
        if state.status == "failed":
            for child in state.children.values():
                if child.waits:
                    self.cancel(child.execution_id, f"execution {execution_id} has ended")
        if self._may_have_timers(state):
            # A time limit of an hour would be kept by the broker for an hour after a short run.
            self._dispatcher.calm([execution_id])

    def _may_have_timers(self, state: Execution) -> bool:
        """Whether wakes for later may be left: of its own time limit, or of those of its children."""
        if state.deadline is not None:
            return True
        try:
            steps = self._catalog.playbook(state.catalog_id).steps.values()
        except CallboardError:
            return True  # it cannot be read just now, and has ended all the same
        return any(task.kind == PLAYBOOK for step in steps for task in step.tasks)

    def _tell(self, execution_id: int, state: Execution) -> None:
        assert state.caller is not None
        assert state.parent_execution_id is not None
        caller, parent = Caller(**state.caller), state.parent_execution_id
        try:
            told = self._append_end(parent, caller, self._outcome(execution_id, caller, state))
        except (BadRequestError, MissingValueError) as exc:
            # What can never be handed over must not keep the parent waiting for ever.
            error = f"its result cannot be handed over: {exc}"
            lost = Outcome(execution_id, state.path, "failed", error=error)
            told = self._append_end(parent, caller, lost)
        if told:
            failpoints.before("tell.wake")
            self._dispatcher.wake([parent])
            failpoints.after("tell.wake")

    def _append_end(self, parent: int, caller: Caller, outcome: Outcome) -> bool:
        """Whether the parent was told by this call; it may have ended, or know already."""
        try:
            with self._log.transaction([parent]) as tx:
                if not self._is_waiting(tx, parent, caller.key):
                    return False
                event = self._storage.lighten(tx, parent, ending(caller, outcome))
                tx.append(parent, [Draft(event, f"child:{outcome.execution_id}")])
                failpoints.before("tell.commit")
            failpoints.after("tell.commit")
        except DuplicateEventError:
            return False
        return True

    @staticmethod
    def _is_waiting(tx: LogTransaction, parent: int, key: StepKey) -> bool:
        return not tx.ended([parent]) and tx.attempts([(parent, key)])[parent, key].ended is None

    def _outcome(self, execution_id: int, caller: Caller, state: Execution) -> Outcome:
        error = str(state.error.get("message", "")) if state.error else None
        value: Any = None
        name = caller.returns or last_step(state)
        seq = state.step(name).result_seq if name else 0
        if seq:
            value = self._reader.result(execution_id, seq)
        return Outcome(execution_id, state.path, state.status, value, error)

    # ------------------------------------------------------------------ cancelling
    def cancel(self, execution_id: int, reason: str | None) -> list[int]:
        """End the execution and its open descendants; the ids of those that this call ended."""
        cancelled = [execution_id] if self.cancel_one(execution_id, reason) else []
        return cancelled + self.cancel_children(execution_id, reason)

    def cancel_children(self, execution_id: int, reason: str | None) -> list[int]:
        """End the open descendants of an execution, those included that nobody waits for."""
        return [child for child in self.open_below(execution_id) if self.cancel_one(child, reason)]

    def open_below(self, execution_id: int) -> Iterator[int]:
        """The running descendants of an execution, each before those below it.

        What an execution started is looked up when it was dealt with: by then it starts no more.
        Those that have ended are looked below, too: they may have left children behind.
        """
        query = ExecutionFilter(parent_execution_id=execution_id, limit=BATCH)
        while found := self._log.executions(query):
            for child in found:
                if child.status == "RUNNING":
                    yield child.execution_id
                yield from self.open_below(child.execution_id)
            query = replace(query, before=found[-1].execution_id)

    def cancel_one(self, execution_id: int, reason: str | None, *, cascade: bool = True) -> bool:
        """End the execution alone, and tell who waits for it; False where it had ended."""
        # Most of it is folded before the lock is taken: others wait for what is new alone.
        known = replay(durable(self._log.read(execution_id)))
        with self._log.transaction([execution_id]) as tx:
            state = replay(tx.read(execution_id, after=known.version), known)
            events = cancel(state, reason, cascade=cascade)
            if not events:
                return False
            entries = tx.append(execution_id, [Draft(event) for event in events])
            failpoints.before("cancel.commit")
        failpoints.after("cancel.commit")
        self.settle(execution_id, replay(entries, state))
        return True

    # ------------------------------------------------------------------ repair
    def repair(self) -> int:
        """Tell ends that nobody told, cancel orphans; how many. The sweeper asks for this.

        Trouble with one of them keeps no other waiting; it is raised at the end.
        """
        count, trouble = 0, None
        for execution_id, mend in self._broken():
            try:
                count += mend(execution_id)
            except CallboardError as exc:
                log.warning("family.not_mended", execution_id=execution_id, error=str(exc))
                trouble = exc
        if trouble is not None:
            raise trouble
        return count

    def _broken(self) -> Iterator[tuple[int, Callable[[int], bool]]]:
        """Executions whose family must be mended, each with what does it."""
        for execution_id in self._log.untold(limit=BATCH):
            yield execution_id, self._tell_again
        for execution_id in self._log.orphans(limit=BATCH):
            yield execution_id, self._cancel_orphan

    def _tell_again(self, execution_id: int) -> bool:
        self._tell(execution_id, replay(self._log.read(execution_id)))
        return True

    def _cancel_orphan(self, execution_id: int) -> bool:
        return self.cancel_one(execution_id, "the execution that waited for it has ended")
