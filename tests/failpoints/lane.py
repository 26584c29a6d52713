"""A whole system of forked processes in which one case after the other arms a few of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from app.actors.declare import ORCHESTRATE
from app.brokers.nats import NatsBroker
from app.errors import ConflictError, UnavailableError
from app.failpoints import CRASHED
from app.settings import Settings
from app.wiring import pool_queues
from tests.failpoints import story
from tests.failpoints.cases import Case
from tests.nursery import Forked
from tests.system.plane import MODULES, System

#: Recovery within a second or so. The lease is long, so that a machine under load expires nothing
#: that is well, but for the cases that wait for it.
SETTINGS = {
    "CALLBOARD_HEARTBEAT": "0.3",
    "CALLBOARD_SWEEP": "0.3",
    "CALLBOARD_UNCLAIMED_AFTER": "1",
    "CALLBOARD_ACK_WAIT": "1",
    "CALLBOARD_GRACE": "5",
    "CALLBOARD_WORKER_THREADS": "4",
}
LEASE, SHORT_LEASE = "30", "1.5"
#: How often a case is played until its points are hit, and seconds for it once it has ended.
PLAYS, HIT_WITHIN = 3, 20.0


class Lane(System):
    """Runs cases one at a time; ``RESULTS`` of a run without faults are asked for first."""

    #: Several lanes share the machine, and each look costs the web process as much as a step.
    pause = 0.1

    def __init__(self, home: Path, database_url: str) -> None:
        super().__init__(home, settings=SETTINGS, database_url=database_url, launch=Forked)
        self._wanted: dict[str, Mapping[str, str]] = {}
        self._broker: NatsBroker | None = None
        self._witnesses = home / "witness"

    def migrate(self) -> None:
        """Nothing: the database is a copy of one that is migrated."""

    def start(self, module: str, **variables: str) -> None:
        self._wanted[module] = variables
        super().start(module, **variables)

    def __enter__(self) -> Self:
        super().__enter__()
        self._witnesses.mkdir()
        self._witnesses.chmod(0o777)
        self._broker = NatsBroker(self.stack.nats_url)
        for queue in (ORCHESTRATE, *pool_queues(Settings())):
            self._broker.declare_queue(queue)
        for playbook in (story.CHILD, story.SLEEPER):
            self.client.register(playbook)
        return self

    def __exit__(self, *reason: object) -> None:
        if self._broker is not None:
            self._broker.close()
        # How processes end in good order is tested elsewhere.
        for process in self.processes.values():
            process.kill()
        super().__exit__(*reason)

    # ------------------------------------------------------------------ one case
    def play(self, case: Case) -> story.Told:
        """Run *case*; what can be told of its execution afterwards.

        The sweeper may be quicker than the process that is armed, and do its work: then that has
        not failed, and the case is played again.
        """
        for again in range(PLAYS):
            told = self._played(replace(case, name=case.name + "-again" * again))
            if told is not None:
                return told
        raise AssertionError(f"{case.name} was not hit\n{self._tails()}")

    def _played(self, case: Case) -> story.Told | None:
        """As ``play``; nothing where a point was not hit."""
        marks = {module: len(self.log(module)) for module in case.faults}
        idle = self._begun_idle() if case.idles else None
        self._arm(case)
        if case.cancels:
            execution_id = self._begun(case, story.waiting(case.name), {})
            self._cancelled(execution_id)
        else:
            payload = {"witness": str(self._witness(case)), "hold": case.hold}
            execution_id = self._begun(case, story.parent(case.name), payload)
        self._ended(execution_id)
        patience = time.monotonic() + HIT_WITHIN
        self.until(
            lambda: self._hit(case, marks) or time.monotonic() > patience, f"{case.name} to be hit"
        )
        if idle:
            self.until(lambda: self.client.cancel(idle), "the idle one to be cancelled")
        if not self._hit(case, marks):
            return None
        self._spent(case)
        self.until_ready()
        results = () if case.cancels else ("join", "fan", "end")
        return story.told(self, execution_id, self._witness(case), results)

    def _begun_idle(self) -> str:
        """An execution that stays open, waits in the log and needs no worker."""
        execution_id = self.begin(story.IDLE)

        def waits() -> bool:
            events = self.client.events(execution_id)
            return any(event["type"] == "attempt.failed" for event in events)

        self.until(waits, "the idle one to wait")
        return execution_id

    def _witness(self, case: Case) -> Path:
        return self._witnesses / case.name

    def _arm(self, case: Case) -> None:
        """Have every process as *case* wants it, with nothing left to do from the case before."""
        assert self._broker is not None
        wanted = {module: self._variables(case, module) for module in MODULES}
        others = [module for module in MODULES if self._wanted[module] != wanted[module]]
        for module in others:
            self.kill(module)
        self._broker.flush_all()
        for module in others:
            self.start(module, **wanted[module])
        self.until_ready()

    @staticmethod
    def _variables(case: Case, module: str) -> dict[str, str]:
        armed = {"CALLBOARD_FAILPOINT": ",".join(case.faults.get(module, ()))}
        own = {
            "scheduler": {"CALLBOARD_LEASE": SHORT_LEASE if case.expires else LEASE},
            "server": {"CALLBOARD_EAGER": "1" if case.eager else "0"},
        }
        return {**armed, **own.get(module, {})}

    def _begun(self, case: Case, playbook: str, payload: dict[str, Any]) -> str:
        """The id of the execution, whatever became of the answer to the first request."""
        self.until(lambda: self.client.register(playbook), "the playbook to be taken")
        try:
            return self.client.execute(case.name, payload=payload).execution_id
        except UnavailableError:
            # It was taken, or it was not: the list tells, and the second start is the caller's.
            pass
        self.until_ready()
        rows = self.client.executions(path=case.name)
        assert len(rows) <= 1
        if rows:
            return str(rows[0]["execution_id"])
        return self.client.execute(case.name, payload=payload).execution_id

    def _cancelled(self, execution_id: str) -> None:
        """Cancel once its child runs, until it is so."""

        def child_runs() -> bool:
            rows = self.client.executions(parent_execution_id=execution_id)
            return any(
                event["type"] == "step.started"
                for row in rows
                for event in self.client.events(row["execution_id"])
            )

        def cancelled() -> bool:
            with contextlib.suppress(ConflictError):
                self.client.cancel(execution_id)
            return True

        self.until(child_runs, "the child to run")
        self.until(cancelled, "the cancellation to be taken")

    def _ended(self, execution_id: str) -> None:
        def ended() -> bool:
            status = self.client.status(execution_id)
            return bool(status["completed"] or status["failed"])

        self.until(ended, f"execution {execution_id} to end", seconds=60)

    # ------------------------------------------------------------------ armed processes
    def _hit(self, case: Case, marks: Mapping[str, int]) -> bool:
        """Whether every armed point was hit, by its own word, and by its death where it crashes."""
        hits = {
            (module, f"{line['point']}:{line['action']}")
            for module, mark in marks.items()
            for line in self.log(module)[mark:]
            if line["event"] == "failpoint.hit"
        }
        return hits >= {
            (module, _plain(fault)) for module, faults in case.faults.items() for fault in faults
        }

    def _spent(self, case: Case) -> None:
        """A point fails once: what was hit is as good as unarmed, and need not be started again."""
        for module in case.faults:
            self._wanted[module] = {**self._wanted[module], "CALLBOARD_FAILPOINT": ""}

    def until(self, condition: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:
        """As for every system; what crashes meanwhile, as it was told to, is started again."""

        def revived() -> Any:
            self._revive()
            return condition()

        return super().until(revived, what, seconds=seconds)

    def _revive(self) -> None:
        """Start again, unarmed, what crashed as it was told to."""
        dead = [module for module in MODULES if self.processes[module].poll() is not None]
        for module in dead:
            code = self.processes[module].poll()
            assert code == CRASHED, f"{module} ended with {code}\n{self._tails()}"
            assert "crash" in self._wanted[module]["CALLBOARD_FAILPOINT"]
            self.start(module, **{**self._wanted[module], "CALLBOARD_FAILPOINT": ""})


def _plain(fault: str) -> str:
    """*fault* without its numbers, as the log tells a hit."""
    name, action = fault.split(":")[:2]
    return f"{name}:{action.partition('=')[0]}"
