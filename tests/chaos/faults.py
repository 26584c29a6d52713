"""How each kind of fault is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import psycopg

from tests.chaos.plan import Fault
from tests.chaos.proxy import Weather
from tests.chaos.stage import Stage


@dataclass(frozen=True, slots=True)
class Incident:
    """A fault that happened, from *at* until *until* (unix seconds); ``skipped`` says why it did not.

    *pid* is that of the process it hit, 0 where it hit none.
    """

    fault: Fault
    at: float
    until: float
    skipped: str = ""
    pid: int = 0


class Saboteur:
    """Does the faults of a plan on a stage, each at its time in a thread of its own."""

    def __init__(self, stage: Stage, faults: Sequence[Fault]) -> None:
        self._stage = stage
        self._faults = faults
        self._guard = threading.Lock()
        self._broken: list[BaseException] = []
        self.incidents: list[Incident] = []

    def run(self) -> None:
        """Return when the last fault is over. Raises what went wrong with doing one."""
        begin = time.monotonic()
        threads = []
        for fault in sorted(self._faults, key=lambda fault: fault.at):
            time.sleep(max(0.0, begin + fault.at - time.monotonic()))
            thread = threading.Thread(target=self._do, args=(fault,), name=fault.kind, daemon=True)
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
        if self._broken:
            raise self._broken[0]

    def _do(self, fault: Fault) -> None:
        try:
            incident = do(self._stage, fault)
        except BaseException as exc:  # noqa: BLE001 (raised again by ``run``)
            self._broken.append(exc)
            return
        with self._guard:
            self.incidents.append(incident)


def do(stage: Stage, fault: Fault) -> Incident:
    """Do *fault* and return when it is over; one that hits what is broken already waits for its turn."""
    with _held(stage, fault.target):
        hit = stage.processes.get(fault.target)
        at = time.time()
        skipped = ACTS[fault.kind](stage, fault) or ""
        return Incident(fault, at, time.time(), skipped, hit.pid if hit else 0)


@contextmanager
def _held(stage: Stage, target: str) -> Iterator[None]:
    """Keep others from the process or server *target*; links are nobody's."""
    with ExitStack() as holds:
        if target in stage.holds:
            holds.enter_context(stage.holds[target])
        yield


# ---------------------------------------------------------------------- processes
def _kill_process(stage: Stage, fault: Fault) -> None:
    stage.kill(fault.target)
    time.sleep(fault.seconds)
    stage.start(fault.target)


def _pause(stage: Stage, fault: Fault) -> None:
    stage.pause(fault.target)
    time.sleep(fault.seconds)
    stage.resume(fault.target)


def _rolling_restart(stage: Stage, fault: Fault) -> None:
    for name in stage.cast.names():
        with stage.holds[name]:
            stage.terminate(name)
            stage.start(name)


# ---------------------------------------------------------------------- servers
def _kill_postgres(stage: Stage, fault: Fault) -> None:
    stage.servers.postgres.kill()
    time.sleep(fault.seconds)
    stage.servers.postgres.start()


def _terminate_backends(stage: Stage, fault: Fault) -> str | None:
    try:
        stage.servers.terminate_backends(0.5)
    except psycopg.OperationalError as exc:
        return f"Postgres was not there: {exc}"
    return None


def _kill_nats(stage: Stage, fault: Fault) -> None:
    stage.servers.nats.kill()
    time.sleep(fault.seconds)
    stage.servers.nats.start()


def _lose_nats(stage: Stage, fault: Fault) -> None:
    stage.servers.nats.kill()
    stage.servers.lose_store()
    time.sleep(fault.seconds)
    stage.servers.nats.start()


def _fill_disk(stage: Stage, fault: Fault) -> str | None:
    if not stage.servers.disk.mounted:
        return "a small disk can be mounted by root only"
    with stage.servers.disk.full():
        time.sleep(fault.seconds)
    # NATS does not write again once a write has failed (seen with 2.15): whoever watches it restarts it.
    stage.servers.nats.stop()
    stage.servers.nats.start()
    return None


# ---------------------------------------------------------------------- network
def _weather(kind: str) -> Callable[[Stage, Fault], None]:
    base = Weather(kind)  # type: ignore[arg-type]  # the kinds of the table below

    def act(stage: Stage, fault: Fault) -> None:
        weather = replace(base, delay=0.02 * fault.seconds) if kind == "slow" else base
        with stage.network.weather(fault.target, weather):
            time.sleep(fault.seconds)

    return act


ACTS: Mapping[str, Callable[[Stage, Fault], str | None]] = {
    "kill-worker": _kill_process,
    "kill-orchestrator": _kill_process,
    "kill-web": _kill_process,
    "kill-scheduler": _kill_process,
    "pause": _pause,
    "rolling-restart": _rolling_restart,
    "kill-postgres": _kill_postgres,
    "terminate-backends": _terminate_backends,
    "kill-nats": _kill_nats,
    "lose-nats": _lose_nats,
    "disk-full": _fill_disk,
    "latency": _weather("slow"),
    "reset": _weather("down"),
    "black-hole": _weather("hole"),
    "drop-reply": _weather("deaf"),
}
