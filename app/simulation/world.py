"""A world of processes around one log and one broker, all moved by one seed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from app.engine.custody import Custody
from app.engine.entry import Entry
from app.engine.ports import Clock
from app.keychain.envelope import KEY_BYTES
from app.keychain.keyring import Keyring
from app.services.control import Control, Ports, control
from app.settings import Settings, load
from app.simulation.agenda import Agenda
from app.simulation.broker import BrokerTwin, Message
from app.simulation.clients import Client
from app.simulation.faults import CALM, Crash, Plan
from app.simulation.mutants import NONE, Mutant
from app.simulation.playbooks import KINDS, TEMPLATES, library
from app.simulation.processes import Api, Orchestrator, Process, Scheduler, describe
from app.simulation.store import UP_TO_DATE, Outdated, StoreTwin
from app.simulation.story import Story
from app.simulation.strikes import STRIKES
from app.simulation.watch import Watch
from app.simulation.workers import Worker
from app.store.memory import MemoryRuntime
from app.store.memory_custody import MemoryCredentials
from app.store.memory_output import MemoryOutput
from app.store.memory_tokens import MemoryTokens
from app.store.memory_variables import MemoryVariables

#: Actions that may run inside each other at a comma.
NESTING = 2
#: Acts of others, at the most, between two things that a process does.
MEANWHILE = 8
#: Virtual seconds after the last fault in which everything must have ended.
BOUND = 300.0
#: Acts of one run; more would be a world that runs in circles.
MOST_ACTS = 10_000


@dataclass(frozen=True, slots=True)
class Job:
    """An execution to be started *at* so many seconds; ``variant`` is the luck of its steps."""

    execution_id: int
    template: str
    workload: Mapping[str, Any]
    variant: int
    at: float = 0.0


@cache
def base_settings(max_attempts: int) -> Settings:
    """The settings of every process, whatever the environment says."""
    given = load({}, home=Path("/nowhere"), max_attempts=max_attempts, heartbeat=5.0, lease=15.0)
    return given.settings


def _custody(clock: Clock) -> Custody:
    """What is kept beside the log; no playbook here asks for any of it."""
    return Custody(
        Keyring({"simulation": bytes(KEY_BYTES)}),
        MemoryCredentials(),
        MemoryVariables(),
        MemoryOutput(),
        MemoryTokens(clock=clock),
    )


class World:
    """One run. ``random`` is the only source of chance, ``agenda`` the only clock."""

    def __init__(
        self,
        random: Random,
        plan: Plan,
        *,
        mutant: Mutant = NONE,
        story: Story | None = None,
        max_attempts: int = 5,
    ) -> None:
        self.random = random
        self.plan = plan
        self.mutant = mutant
        self.story = story or Story()
        self.settings = base_settings(max_attempts)
        self.agenda = Agenda()
        self.watch = Watch(lambda execution_id: self.log.read(execution_id))  # noqa: PLW0108 (the log comes next)
        self.runtime = MemoryRuntime(clock=lambda: self.agenda.now)
        self.log = StoreTwin(self, random, self.runtime, mutant=mutant)
        self.broker = BrokerTwin(self, random, self._deliver)
        self.broker.is_worked_on = lambda number: any(w.holds(number) for w in self.workers)
        self.jobs: dict[int, Job] = {}
        self._calm = plan == CALM
        self._acting: list[Process] = []
        self._ids = itertools.count(1)
        self._custody = _custody(lambda: self.agenda.now)
        self.two_lead = False
        self._populate()

    def _populate(self) -> None:
        kinds = (Api, Orchestrator, Scheduler, Worker)
        self._numbers = {kind: itertools.count(1) for kind in kinds}
        self.client = Client(self, 1)
        self.apis = [self._made(Api) for _ in range(2)]
        self.orchestrators = [self._made(Orchestrator) for _ in range(2)]
        self.schedulers = [self._made(Scheduler) for _ in range(2)]
        self.workers = [self._made(Worker) for _ in range(self.random.choice((2, 3)))]
        self._leader = self.schedulers[0].name

    # ------------------------------------------------------------------ processes
    def _made(self, kind: type[Any]) -> Any:
        process = kind(self, next(self._numbers[kind]))
        if isinstance(process, Scheduler | Worker):
            process.begin()
        return process

    def replace(self, dead: Process) -> None:
        """A fresh process in the place of *dead*."""
        self.tell(f"{dead.name} is gone", "")
        for kind, living in self._by_kind().items():
            if isinstance(dead, kind):
                living[living.index(dead)] = self._made(kind)
        if dead.name == self._leader:
            self._leader = self.schedulers[0].name

    def _by_kind(self) -> dict[type[Any], list[Any]]:
        return {
            Api: self.apis,
            Orchestrator: self.orchestrators,
            Scheduler: self.schedulers,
            Worker: self.workers,
        }

    def services(self, process: Process) -> Control:
        """The real services, for one process."""
        ports = Ports(
            events=self.log,
            catalog=library().catalog,
            runtime=self.runtime,
            dispatcher=self.broker,
            kinds=KINDS,
            clock=process.clock,
            new_id=self.new_id,
            custody=self._custody,
        )
        settings = replace(self.settings, eager=process.is_eager)
        return control(ports, settings, catalog=library().service)

    def new_id(self) -> int:
        return next(self._ids)

    def leads(self, scheduler: Scheduler) -> bool:
        """Whether *scheduler* believes that it leads."""
        return self.two_lead or scheduler.name == self._leader

    def api(self) -> Api:
        """Whichever process of the API a request reaches."""
        free = [api for api in self.apis if not self.is_busy(api)]
        chosen: Api = self.random.choice(free or self.apis)
        return chosen

    # ------------------------------------------------------------------ acting
    def is_busy(self, process: Process) -> bool:
        return process in self._acting

    def perform(self, process: Process, act: Callable[[], object]) -> None:
        """*process* acts; if it dies over that, it is replaced."""
        self._acting.append(process)
        try:
            act()
        except Crash as crash:
            self.tell("dies", f"crash {crash}")
            process.die()
        finally:
            self._acting.pop()

    def _deliver(self, message: Message) -> bool:
        takers: Sequence[Any] = (
            [each for each in self.orchestrators if not self.is_busy(each)]
            if message.pointer is None
            else [each for each in self.workers if each.takes_more and not self.is_busy(each)]
        )
        if not takers:
            return False
        taker = self.random.choice(takers)
        self.perform(taker, lambda: taker.take(message))
        return True

    # ------------------------------------------------------------------ Surroundings
    def happens(self, fault: str, what: str = "") -> bool:
        rate = 0.0 if self._calm else self.plan.rates.get(fault, 0.0)
        if rate == 0.0 or self.random.random() >= rate:
            return False
        self.story.faults[fault] += 1
        if self.story.wanted and fault not in {"crash", "interleave"}:
            self.tell(what, fault)
        return True

    def comma(self, where: str) -> None:
        if self._calm or not self._acting:
            return
        if self.happens("crash"):
            raise Crash(where)
        if len(self._acting) <= NESTING and self.happens("interleave"):
            for _ in range(self.random.randint(1, MEANWHILE)):
                self._next()

    def outdated(self) -> Outdated:
        if not self._acting:
            return UP_TO_DATE
        process = self._acting[-1]
        outdated, process.outdated = process.outdated, UP_TO_DATE
        return outdated

    def committed(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        if isinstance(self._acting[-1], Orchestrator):
            own = entries[-1].execution_id
            self.log.decided(own, [entry for entry in entries if entry.execution_id == own])
        self.watch.committed(entries)
        if self.story.wanted:
            for entry in entries:
                self.tell(describe(entry))

    def lost(self, execution_id: int, seq: int) -> None:
        self.watch.lost(execution_id, seq)
        self.tell(f"  {execution_id}/{seq} is lost")

    def tell(self, what: str, fault: str = "") -> None:
        if self.story.wanted:
            actor = self._acting[-1].name if self._acting else "-"
            self.story.tell(self.agenda.elapsed, actor, what, fault)

    def find(self, code: str, message: str) -> None:
        """Something that must not be."""
        self.watch.find(code, message)
        self.tell(message, f"FINDING {code}")

    # ------------------------------------------------------------------ running
    def variant_of(self, execution_id: int) -> int:
        """The luck of an execution is that of its root."""
        return self.jobs[self.watch.roots[execution_id]].variant

    def is_timed(self, execution_id: int) -> bool:
        """Whether there are deadlines in the family of an execution."""
        root = self.watch.roots.get(execution_id)
        return root is not None and TEMPLATES[self.jobs[root].template].timed

    def run(self, jobs: Sequence[Job]) -> None:
        """Start *jobs*, let the plan's faults happen, and go on until all has ended, or time is up."""
        for job in jobs:
            self.jobs[job.execution_id] = job
            self.client.start(job)
        for at, event in self.plan.events:
            self.agenda.after(at, lambda event=event: self._strike(event))  # type: ignore[misc]  # bound now
        for _ in range(MOST_ACTS):
            if self.watch.found or self._is_over():
                break
            if self.agenda.elapsed > self.plan.quiet + BOUND:
                self._hangs()
            self._next()
        else:
            self._hangs()
        self._be_calm()

    def _hangs(self) -> None:
        self.find("hangs", f"after {self.agenda.elapsed:.0f} s: {sorted(self.watch.open)} are open")

    def _is_over(self) -> bool:
        """All that clients wanted has ended, the faults have stopped, and no worker is at work."""
        if self.watch.open or self.client.waiting:
            return False
        return not any(worker.attempts for worker in self.workers)

    def _next(self) -> None:
        act = self.agenda.take()
        assert act is not None, "processes beat for ever"
        if not self._calm and self.agenda.elapsed > self.plan.quiet:
            self._be_calm()
        try:
            act()
        except Exception as exc:  # noqa: BLE001 (whatever a service lets out here is a finding)
            self.find("exception", f"{type(exc).__name__}: {exc}")

    def _be_calm(self) -> None:
        """From here on nothing goes wrong any more."""
        self._calm = True
        self.log.away_until = self.broker.away_until = self.agenda.now
        self.tell("nothing goes wrong any more")

    def _strike(self, event: str) -> None:
        if not self._calm:
            self.story.faults[event] += 1
            self.tell("", event)
            STRIKES[event](self)
