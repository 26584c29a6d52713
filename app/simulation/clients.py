"""People and programs outside: they start executions, start them again, and meddle with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from app.errors import CallboardError, UnavailableError
from app.services.control import Control
from app.simulation.processes import Process

if TYPE_CHECKING:
    from app.simulation.world import Job, World

#: What an operator may do with an execution. A new operation is one more line here.
OPERATIONS: Mapping[str, Callable[[Control, int], object]] = {
    "cancel": lambda control, execution_id: control.executions.cancel(execution_id),
    "cancel alone": lambda control, execution_id: control.executions.cancel(
        execution_id, cascade=False
    ),
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
        """Do *name* with the execution, once; what comes of it is the outcome's excuse."""
        self.world.watch.meddled.add(execution_id)
        self.world.tell(f"{name} of {execution_id}")
        try:
            self.world.api().serve(lambda control: OPERATIONS[name](control, execution_id))
        except CallboardError as exc:
            self.world.tell(f"{name} of {execution_id}: {exc.message}")
