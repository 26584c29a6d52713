"""What readiness and the doctor ask: looks at everything at once, and never waits for long."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from app.actors.declare import ORCHESTRATE
from app.errors import CallboardError
from app.services.diagnosis import LAG, SKEW, WAITING, Facts, diagnose
from app.services.fleet import fleet_of
from app.services.health import Check, Severity
from app.version import software_version

if TYPE_CHECKING:
    from app.brokers.examination import Lag
    from app.brokers.nats import NatsBroker
    from app.settings import Settings
    from app.store.database import Database, Refusal
    from app.wiring import Plane

#: Seconds that an answer to a probe may take, all questions together; they are asked side by side.
PATIENCE = 0.7
#: Seconds for which an answer is given again: probes of several balancers shall not add up.
FRESH = 1.0
#: Seconds for the doctor, whom people ask, and whose questions read the logs of all that runs.
DOCTORS_PATIENCE = 5.0
#: Seconds for which Postgres counts as full after it refused a write for that reason.
REFUSED_FOR = 10.0
#: Seconds that NATS may take; within those of a probe, so that its own words are heard.
NATS_PATIENCE = 0.5
#: Less free space than this share of the disk, and than so many bytes, is nearly full.
FREE_SHARE, FREE_BYTES = 0.05, 2 << 30
#: Seconds in which an orchestrator that works has taken a wake.
MOMENT = 0.5
#: Attempts that are counted at the most.
MOST = 1_000

Look = Callable[[], Sequence[Check]]


def _trouble(
    name: str, message: str, remedy: str | None = None, *, severity: Severity = "error"
) -> Check:
    return Check(name, ok=False, message=message, remedy=remedy, severity=severity)


class Question:
    """One look that may take for ever: at most one runs, and nobody waits longer than he likes."""

    def __init__(self, name: str, look: Look, *, severity: Severity) -> None:
        self.name = name
        self._look = look
        self._severity = severity
        self._guard = threading.Lock()
        self._done = threading.Event()
        self._begun = 0.0
        self._ended: float | None = None
        self._answer: Sequence[Check] = ()

    def ask(self) -> None:
        """Begin to look, where the last answer is old and no look is under way."""
        now = time.monotonic()
        with self._guard:
            running = self._begun and not self._done.is_set()
            fresh = self._ended is not None and now - self._ended < FRESH
            if running or fresh:
                return
            self._begun = now
            self._done.clear()
        # A daemon: what is asked of a dead network must not keep the process from ending.
        threading.Thread(target=self._run, name=f"look-{self.name}", daemon=True).start()

    def answer(self, deadline: float) -> Sequence[Check]:
        """What was found, or that it is not known by *deadline* (monotonic)."""
        if self._done.wait(max(0.0, deadline - time.monotonic())):
            return self._answer
        waited = time.monotonic() - self._begun
        message = f"no answer for {waited:.1f} s"
        remedy = "is it overloaded, or is the network between us and it dropping packets?"
        return [_trouble(self.name, message, remedy, severity=self._severity)]

    def _run(self) -> None:
        try:
            answer = self._look()
        except CallboardError as exc:
            answer = [_trouble(self.name, exc.message, exc.remedy, severity=self._severity)]
        except Exception as exc:  # noqa: BLE001 (a look that fails is an answer)
            told = f"{type(exc).__name__}: {exc}"
            remedy = "this is a fault of ours: please report it, with the log of this process"
            answer = [_trouble(self.name, told, remedy, severity=self._severity)]
        with self._guard:
            self._answer, self._ended = answer, time.monotonic()
            self._done.set()


def ask_all(questions: Sequence[Question], *, patience: float) -> list[Check]:
    """All answers, in the order of the questions, after *patience* seconds at the most."""
    for question in questions:
        question.ask()
    deadline = time.monotonic() + patience
    return [check for question in questions for check in question.answer(deadline)]


class Examination:
    """Readiness and doctor of one control plane; see ``Health`` and ``Doctor``.

    *probe* is a connection of its own: the pool of the others may be busy, and that is no illness.
    """

    def __init__(self, plane: Plane, probe: Database) -> None:
        self._plane = plane
        self._probe = probe
        self._log, self._runtime = plane.ports.events, plane.ports.runtime
        self._own = (
            Question("postgres", self._postgres, severity="error"),
            Question("nats", self._nats, severity="warning"),
            Question("disk", self._disk, severity="warning"),
        )
        self._fleet = Question("fleet", self._everything, severity="warning")

    def checks(self) -> list[Check]:
        """What this process depends on; answers within a second."""
        return ask_all(self._own, patience=PATIENCE)

    def examine(self) -> list[Check]:
        """The same, and all processes, queues and leases; answers within seconds."""
        return ask_all([*self._own, self._fleet], patience=DOCTORS_PATIENCE)

    # ------------------------------------------------------------------ servers
    def _postgres(self) -> list[Check]:
        first, *others = postgres_checks(self._probe)
        refused = _refused(self._plane.database.refusal)
        return [refused if first.ok and refused else first, *others]

    def _nats(self) -> list[Check]:
        return nats_checks(self._plane.broker, timeout=NATS_PATIENCE)

    # ------------------------------------------------------------------ this machine
    def _disk(self) -> list[Check]:
        return list(disk_checks(self._plane.settings)) or [Check("disk", ok=True)]

    # ------------------------------------------------------------------ everything
    def _everything(self) -> list[Check]:
        settings = self._plane.settings
        entries = self._runtime.entries()
        fleet = fleet_of(entries, self._runtime.now(), lease=settings.lease)
        expired = Counter(
            worker for _, worker in self._log.abandoned(lease=settings.lease, limit=MOST)
        )
        wakes, unwoken = self._wakes()
        return diagnose(
            Facts(
                fleet,
                software_version(),
                overdue=self._log.overdue(older_than=WAITING, limit=MOST),
                expired=expired,
                wakes=wakes,
                unwoken=unwoken,
                repaired_within=2 * settings.sweep,
            )
        )

    def _wakes(self) -> tuple[int | None, float | None]:
        """How many wakes wait, and for how long none was taken; None where NATS does not tell."""
        first = self._lag()
        if first is None or not first.messages or first.since_ended < LAG:
            return (first.messages, first.since_ended) if first else (None, None)
        # Nothing may have been there to take until a moment ago.
        time.sleep(MOMENT)
        second = self._lag()
        return (second.messages, second.since_ended) if second else (None, None)

    def _lag(self) -> Lag | None:
        from dramatiq.errors import BrokerError

        try:
            examined = self._plane.broker.examine([ORCHESTRATE], timeout=NATS_PATIENCE)
        except BrokerError:
            return None  # another check tells that
        return examined.lags.get(ORCHESTRATE)


@contextmanager
def examination(plane: Plane) -> Iterator[Examination]:
    """What readiness and doctor of *plane* ask; its connection is closed on leaving."""
    from app.store.database import Database

    probe = Database(plane.database_url, pool_size=1, application_name="callboard health")
    try:
        yield Examination(plane, probe)
    finally:
        probe.close()


# ---------------------------------------------------------------------- servers
def postgres_checks(database: Database) -> list[Check]:
    """Whether it takes writes, its revision, its clock. Raises ``UnavailableError``."""
    from app.store.standing import standing

    found = standing(database)
    writable = Check("postgres", ok=True)
    if found.read_only:
        remedy = "is DATABASE_URL a standby? name the primary, or promote it"
        writable = _trouble("postgres", "the database takes no writes (read-only)", remedy)
    return [writable, _migrations(found.revision), _clock(found.clock_ahead)]


def _refused(refusal: Refusal | None) -> Check | None:
    """What Postgres refused to the process a moment ago, where that says how Postgres is."""
    from app.store.failures import DISK_FULL, READ_ONLY

    if refusal is None or time.monotonic() - refusal.at > REFUSED_FOR:
        return None
    told = (refusal.error.message, refusal.error.remedy)
    if refusal.state in {DISK_FULL, READ_ONLY}:
        return _trouble("postgres", *told)
    # Too many connections, or no memory: others may be served all the same.
    return _trouble("postgres", *told, severity="warning") if refusal.is_shortage else None


def nats_checks(broker: NatsBroker, *, timeout: float) -> list[Check]:
    """Whether NATS answers within *timeout* seconds and is what we need."""
    from dramatiq.errors import BrokerError

    try:
        faults = broker.examine([], timeout=timeout).faults
    except BrokerError as exc:
        remedy = "is NATS running? see NATS_URL; nothing is lost, what is due waits in the log"
        return [_trouble("nats", str(exc), remedy, severity="warning")]
    checks: list[Check] = []
    for subject in ("nats", "streams", "consumers"):
        found = [
            _trouble(subject, fault.message, fault.remedy, severity="warning")
            for fault in faults
            if fault.subject == subject
        ]
        checks += found or [Check(subject, ok=True)]
    return checks


def _migrations(revision: str | None) -> Check:
    from app.store.migrations import head, is_known

    if revision == head():
        return Check("migrations", ok=True)
    message = f"the database is at revision {revision or 'none'}, this version needs {head()}"
    if revision is None or is_known(revision):
        return _trouble("migrations", message, "run 'callboard db upgrade'")
    # In a rolling upgrade the old processes serve on until the new ones are there.
    return _trouble(
        "migrations",
        f"{message}: a newer version migrated it",
        "finish the upgrade: start this process again on the newer version",
        severity="warning",
    )


def _clock(ahead: float) -> Check:
    if abs(ahead) <= SKEW:
        return Check("clock", ok=True)
    direction = "ahead of" if ahead > 0 else "behind"
    return _trouble(
        "clock",
        f"the clock of this machine is {abs(ahead):.0f} s {direction} the database's",
        "let NTP set both: retries and timeouts come early or late",
        severity="warning",
    )


def disk_checks(settings: Settings) -> Iterator[Check]:
    """A check for every folder of ours whose disk is nearly full."""
    folders = [settings.home]
    if settings.blobs and "://" not in settings.blobs:
        folders.append(Path(settings.blobs))
    for folder in folders:
        usage = shutil.disk_usage(_existing(folder))
        if usage.free < min(FREE_BYTES, FREE_SHARE * usage.total):
            yield _trouble(
                "disk",
                f"the disk of {folder} has {usage.free >> 20} MiB free of {usage.total >> 20} MiB",
                "free space, or move CALLBOARD_HOME (or CALLBOARD_BLOBS) to a larger disk",
                severity="warning",
            )


def _existing(folder: Path) -> Path:
    """*folder*, or the nearest above it that is there: where it would be made."""
    here = folder.expanduser().absolute()
    return next(path for path in (here, *here.parents) if path.exists())
