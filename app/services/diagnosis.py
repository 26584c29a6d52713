"""What is wrong with an installation, from what its processes, its log and its queues say. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app.engine.ports import Overdue
from app.services.fleet import Condition, Fleet, Process
from app.services.health import Check

#: Seconds that a step may wait to be claimed before it is worth a word.
WAITING = 5.0
#: Seconds that a step may wait for busy workers; until then a backlog is told, and nothing wrong.
BACKLOG = 60.0
#: Seconds without a decision while wakes wait; one takes milliseconds.
LAG = 5.0
#: Seconds that clocks may differ. A heartbeat may be on its way for some of them.
SKEW = 5.0
#: Names that a message lists; of more, the rest is counted.
NAMED = 3

KINDS = {
    "worker_pool": "worker",
    "orchestrator": "orchestrator",
    "scheduler": "scheduler",
    "server_api": "server",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found. ``expired`` counts attempts by the silent worker that holds them.

    ``wakes`` is how many messages wait for orchestrators, ``unwoken`` the seconds for which they
    took none; None where the broker did not tell. ``repaired_within``: until the sweeper looks.
    """

    fleet: Fleet
    version: str
    overdue: Sequence[Overdue] = ()
    expired: Mapping[str, int] = field(default_factory=dict)
    wakes: int | None = None
    unwoken: float | None = None
    repaired_within: float = 5.0


class Trouble(NamedTuple):
    """What is wrong, and what to do about it; or, not ``wrong``, what is worth knowing."""

    message: str
    remedy: str
    wrong: bool = True


def diagnose(facts: Facts) -> list[Check]:
    """One check per subject that is well, and one for each thing there is to say of the others."""
    checks: list[Check] = []
    for name, troubles in _SUBJECTS.items():
        found = [
            Check(name, not said.wrong, said.message, said.remedy, severity="warning")
            for said in troubles(facts)
        ]
        checks += found or [Check(name, ok=True)]
    return checks


# ---------------------------------------------------------------------- processes
def _orchestrators(facts: Facts) -> Iterator[Trouble]:
    if not facts.fleet.alive("orchestrator"):
        yield Trouble(
            "no orchestrator is alive: executions are accepted and stand still",
            "start one: python -m app.orchestrator",
        )


def _schedulers(facts: Facts) -> Iterator[Trouble]:
    alive = facts.fleet.alive("scheduler")
    if not alive:
        yield Trouble(
            "no scheduler is alive: what gets lost is not repaired",
            "start one: python -m app.scheduler",
        )
        return
    settled = [process for process in alive if process.known > facts.fleet.lease]
    if settled and not any(process.status == "leader" for process in alive):
        yield Trouble(
            f"none of {_names(alive)} leads: what gets lost is not repaired",
            "look in pg_stat_activity for a session 'callboard leader' of a dead process, end it",
        )


def _workers(facts: Facts) -> Iterator[Trouble]:
    if not facts.fleet.alive("worker_pool"):
        yield Trouble("no worker is alive: no step runs", "start one: python -m app.worker")


def _silent(facts: Facts) -> Iterator[Trouble]:
    for process in facts.fleet.silent():
        kind = KINDS.get(process.kind, process.kind)
        yield Trouble(
            f"{kind} {process.name} gave no sign of life for {process.silent:.0f} s and did not "
            "sign off",
            "is it dead, paused, or cut off from the API? stop it for good or start it again; "
            "its steps go to others",
        )


# ---------------------------------------------------------------------- work that waits
def _queues(facts: Facts) -> Iterator[Trouble]:
    for overdue in facts.overdue:
        if overdue.seconds < WAITING:
            continue
        condition = facts.fleet.condition(overdue.queue, overdue.seconds)
        yield _QUEUES[condition](overdue, facts.fleet)


def _absent(overdue: Overdue, _fleet: Fleet) -> Trouble:
    pool, _, queue = overdue.queue.partition(".")
    return Trouble(
        f"{_waiting(overdue)} for a worker of pool {pool!r} (queue {queue!r}), which has none",
        f"start one with CALLBOARD_POOL={pool} and CALLBOARD_QUEUES={queue}, or correct 'pool' in "
        "the playbook",
    )


def _busy(overdue: Overdue, fleet: Fleet) -> Trouble:
    workers = fleet.serving(overdue.queue)
    slots = sum(worker.capacity or 0 for worker in workers)
    return Trouble(
        f"{_waiting(overdue)} in {overdue.queue}: all {slots} slots of {_names(workers)} are busy",
        "start more workers, or raise CALLBOARD_WORKER_THREADS",
        wrong=overdue.seconds > BACKLOG,
    )


def _stuck(overdue: Overdue, fleet: Fleet) -> Trouble:
    idle = [worker for worker in fleet.serving(overdue.queue) if worker.has_room]
    shortest = min(worker.idle or 0.0 for worker in idle)
    return Trouble(
        f"{_waiting(overdue)} in {overdue.queue}, and {_names(idle)}, alive and with free slots, "
        f"claimed nothing for {shortest:.0f} s: wedged",
        "start the workers again; if that does not help, look at the check 'streams' and at what "
        "the workers log of NATS",
    )


def _moving(overdue: Overdue, fleet: Fleet) -> Trouble:
    return Trouble(
        f"{_waiting(overdue)} in {overdue.queue} while {_names(fleet.serving(overdue.queue))} "
        "claims others",
        "where that goes on, start more workers; a message that got lost is sent again by itself",
        wrong=overdue.seconds > BACKLOG,
    )


_QUEUES: Mapping[Condition, Callable[[Overdue, Fleet], Trouble]] = {
    "absent": _absent,
    "busy": _busy,
    "stuck": _stuck,
    "moving": _moving,
}


def _waiting(overdue: Overdue) -> str:
    steps = f"{overdue.count} step waits" if overdue.count == 1 else f"{overdue.count} steps wait"
    return f"{steps} since {overdue.seconds:.0f} s"


def _leases(facts: Facts) -> Iterator[Trouble]:
    for worker, count in sorted(facts.expired.items()):
        attempts = f"{count} attempt{'' if count == 1 else 's'}"
        yield Trouble(
            f"{attempts} held by {worker}, whose lease has run out",
            f"the scheduler gives them to others within {facts.repaired_within:.0f} s; where it "
            "does not, is one alive?",
        )


def _wakes(facts: Facts) -> Iterator[Trouble]:
    if facts.wakes and facts.unwoken is not None and facts.unwoken > LAG:
        executions = "1 execution waits" if facts.wakes == 1 else f"{facts.wakes} executions wait"
        yield Trouble(
            f"{executions} to be decided on, and no orchestrator took one for {facts.unwoken:.0f} s",
            "start more orchestrators, or raise CALLBOARD_ORCHESTRATOR_THREADS; one that beats "
            "and takes none wants to be started again",
        )


# ---------------------------------------------------------------------- what must be alike
def _versions(facts: Facts) -> Iterator[Trouble]:
    found: dict[str, list[Process]] = {}
    for process in facts.fleet.alive():
        if process.version is not None:
            found.setdefault(process.version, []).append(process)
    others = {version: who for version, who in found.items() if version != facts.version}
    if others:
        told = "; ".join(f"{version}: {_names(who)}" for version, who in sorted(others.items()))
        yield Trouble(
            f"this server is version {facts.version}, and there are others: {told}",
            "finish the upgrade: start them again on one version",
        )


def _clocks(facts: Facts) -> Iterator[Trouble]:
    for process in facts.fleet.alive():
        ahead = process.clock_ahead or 0.0
        if abs(ahead) > SKEW:
            yield Trouble(
                f"the clock of {process.host or process.name} is {abs(ahead):.0f} s "
                f"{'ahead of' if ahead > 0 else 'behind'} the database's",
                "let NTP set it: retries and timeouts there come early or late",
            )


def _names(processes: Sequence[Process]) -> str:
    names = [process.name for process in processes]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


_SUBJECTS: Mapping[str, Callable[[Facts], Iterator[Trouble]]] = {
    "orchestrators": _orchestrators,
    "schedulers": _schedulers,
    "workers": _workers,
    "silent": _silent,
    "queues": _queues,
    "leases": _leases,
    "wakes": _wakes,
    "versions": _versions,
    "clocks": _clocks,
}
