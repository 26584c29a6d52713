"""People and programs outside: they start executions, start them again, and meddle with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.errors import CallboardError, UnavailableError
from app.services.control import Control
from app.services.intervention import Retried
from app.simulation.processes import Process

if TYPE_CHECKING:
    from app.simulation.world import Job, World


@dataclass(frozen=True, slots=True)
class Operation:
    """What an operator does with an execution, and what undoes it, a while later.

    ``excuses``: the outcome may be another one than without it.
    """

    do: Callable[[Control, int], object]
    undo: Callable[[Control, int], object] | None = None
    excuses: bool = True


#: What an operator may do. A new operation is one more line here.
OPERATIONS: Mapping[str, Operation] = {
    "cancel": Operation(lambda control, i: control.executions.cancel(i)),
    "cancel alone": Operation(lambda control, i: control.executions.cancel(i, cascade=False)),
    "pause": Operation(
        lambda control, i: control.intervention.pause(i),
        undo=lambda control, i: control.intervention.resume(i),
    ),
    "retry": Operation(lambda control, i: control.intervention.retry(i), excuses=False),
}


class Client(Process):
    """Whoever uses the API. It is trusted to repeat what was not answered, with the same id."""

    kind = "client"

    def __init__(self, world: World, number: int) -> None:
        super().__init__(world, number)
        self.waiting = 0

    def start(self, job: Job) -> None:
        """Start *job*, and insist."""
        self.waiting += 1
        self.later(job.at, lambda: self._start(job))

    def _start(self, job: Job) -> None:
        def ask(control: Control) -> Any:
            return control.executions.start(
                job.template, payload=job.workload, execution_id=job.execution_id
            )

        try:
            self.world.api().serve(ask)
            if self.world.happens("answer lost"):
                raise UnavailableError("the answer was lost")
        except UnavailableError as exc:
            self.world.tell(f"will start {job.execution_id} again: {exc.message}")
            self.later(self.world.random.uniform(0.5, 3.0), lambda: self._start(job))
            return
        self.waiting -= 1
        self.world.watch.accepted.add(job.execution_id)
        if self.world.happens("start repeated", str(job.execution_id)):
            self.waiting += 1
            self.later(self.world.random.uniform(0.0, 8.0), lambda: self._start(job))

    def operate(self, name: str, execution_id: int) -> None:
        """Do *name* with the execution, once; undo it later, where that can be done."""
        operation = OPERATIONS[name]
        if operation.excuses:
            self.world.watch.meddled.add(execution_id)
        self.world.tell(f"{name} of {execution_id}")
        if operation.undo is not None:
            self.waiting += 1
            pause = self.world.random.uniform(1.0, 30.0)
            self.later(pause, lambda: self._undo(name, execution_id))
        try:
            done = self.world.api().serve(lambda control: operation.do(control, execution_id))
        except CallboardError as exc:
            self.world.tell(f"{name} of {execution_id}: {exc.message}")
            return
        if isinstance(done, Retried) and done.started is not None:
            self.world.watch.accepted.add(done.started.execution_id)
            self.world.watch.meddled.add(done.started.execution_id)

    def _undo(self, name: str, execution_id: int) -> None:
        """Undo *name*, and insist: what is left half undone would wait for ever."""
        undo = OPERATIONS[name].undo
        assert undo is not None
        try:
            self.world.api().serve(lambda control: undo(control, execution_id))
        except UnavailableError:
            self.later(self.world.random.uniform(0.5, 3.0), lambda: self._undo(name, execution_id))
            return
        except CallboardError as exc:
            self.world.tell(f"{name} of {execution_id} need not be undone: {exc.message}")
        self.waiting -= 1
