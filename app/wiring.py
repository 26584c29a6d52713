"""The only place that names concrete classes: puts processes together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.actors.declare import ORCHESTRATE
from app.errors import BadRequestError, CallboardError, StartupError
from app.services.control import Control, Ports, control
from app.services.health import Check
from app.settings import Settings
from app.tools import Tool, kinds, load_tool

if TYPE_CHECKING:
    from dramatiq import Broker

    from app.brokers.nats import NatsBroker
    from app.engine.ports import BlobStore
    from app.store.database import Database
    from app.store.leader import Leadership
    from app.telemetry.metrics import Metrics


class ToolKinds(Mapping[str, Tool]):
    """All installed tools by kind; each is imported when it is first asked for."""

    def __getitem__(self, kind: str) -> Tool:
        return load_tool(kind)

    def __contains__(self, kind: object) -> bool:
        return kind in kinds()

    def __iter__(self) -> Iterator[str]:
        return iter(kinds())

    def __len__(self) -> int:
        return len(kinds())


@dataclass(frozen=True, slots=True)
class Plane:
    """The control plane on Postgres and NATS."""

    settings: Settings
    control: Control
    broker: NatsBroker
    database: Database
    database_url: str
    metrics: Metrics

    def leadership(self, key: int) -> Leadership:
        """A claim to lead under *key*; nobody leads yet."""
        from app.store.leader import Leadership

        return Leadership(self.database_url, key)


def urls(settings: Settings) -> tuple[str, str]:
    """The URLs of Postgres and NATS: those configured, else those of a running stack of the home.

    Raises ``StartupError`` where neither is there.
    """
    from app.embedded.stack import running_stack

    database, nats = settings.external_database_url, settings.nats_url
    if database and nats:
        return database, nats
    stack = running_stack(settings.home)
    if stack is None:
        missing = " and ".join(
            name for name, url in (("DATABASE_URL", database), ("NATS_URL", nats)) if not url
        )
        raise StartupError(
            f"{missing} not set, and no embedded stack is running in {settings.home}",
            remedy="run 'callboard up', or set the variable",
        )
    return database or stack.database_url, nats or stack.nats_url


@contextmanager
def control_plane(settings: Settings, name: str, *, threads: int = 0) -> Iterator[Plane]:
    """Everything a process of the control plane holds; closed on leaving.

    *name* is for Postgres; *threads* that hold a transaction each may need a second connection.
    """
    from app.brokers.dispatch import DramatiqDispatcher
    from app.store.catalog import PostgresCatalog
    from app.store.database import Database
    from app.store.events import PostgresLog
    from app.store.ids import Snowflake
    from app.store.runtime import PostgresRuntime
    from app.telemetry.metrics import Metrics

    database_url, nats_url = urls(settings)
    with ExitStack() as stack:
        database = Database(
            database_url,
            pool_size=max(settings.pool_size, 2 * threads + 2),
            application_name=f"callboard {name}",
        )
        stack.callback(database.close)
        broker = nats_broker(settings, nats_url)
        stack.callback(broker.close)
        metrics = Metrics()
        ports = Ports(
            events=metrics.counting(PostgresLog(database)),
            blobs=blob_store(settings),
            catalog=PostgresCatalog(database),
            runtime=PostgresRuntime(database),
            dispatcher=DramatiqDispatcher(broker),
            kinds=ToolKinds(),
            clock=time.time,
            new_id=Snowflake(),
        )
        yield Plane(settings, control(ports, settings), broker, database, database_url, metrics)


def blob_store(settings: Settings) -> BlobStore:
    """Where results go that are too large for the database. Raises ``StartupError``."""
    place = settings.blobs or str(settings.home / "blobs")
    if "://" in place:
        from app.blobs.objects import ObjectBlobs

        return ObjectBlobs(place)
    from app.blobs.directory import DirectoryBlobs

    return DirectoryBlobs(Path(place).expanduser().absolute())


def nats_broker(settings: Settings, url: str) -> NatsBroker:
    """The broker as every process uses it: pointers and coalesced wakes, nothing retried by Dramatiq."""
    from app.actors.middleware import Outages
    from app.brokers.nats import NatsBroker
    from app.brokers.redeliver import RedeliverOnInfrastructureError

    return NatsBroker(
        url,
        middleware=[Outages(), RedeliverOnInfrastructureError()],
        coalescing={ORCHESTRATE},
        ack_wait=settings.ack_wait,
        replicas=settings.nats_replicas,
    )


def pool_queues(settings: Settings) -> list[str]:
    """The Dramatiq queues that a worker of these settings serves."""
    return [
        f"{settings.pool}.{queue.strip()}" for queue in settings.queues.split(",") if queue.strip()
    ]


# ---------------------------------------------------------------------- one process, no servers
@dataclass(frozen=True, slots=True)
class LocalRun:
    """How a playbook ended that ran in this process. ``results`` are by step name."""

    execution_id: int
    status: str
    error: str | None
    final_step: str | None
    result: Any
    results: Mapping[str, Any]


@contextmanager
def local_plane(
    settings: Settings,
    *,
    secrets: Mapping[str, str] | None = None,
    folders: Sequence[Path] = (),
) -> Iterator[tuple[Control, Broker, Ports]]:
    """The same engine, actors and tools on the memory twins; threads of this process do the work.

    Playbooks that are not registered are looked for in *folders*.
    """
    from dramatiq import Worker
    from dramatiq.brokers.stub import StubBroker

    from app.actors.declare import declare_orchestrator, declare_steps
    from app.actors.middleware import Outages
    from app.actors.steps import Runner, secrets_from
    from app.blobs.memory import MemoryBlobs
    from app.brokers.dispatch import DramatiqDispatcher
    from app.settings import secret_variables
    from app.store.folder import FolderCatalog
    from app.store.ids import Snowflake
    from app.store.memory import MemoryLog, MemoryRuntime

    broker = StubBroker(middleware=[Outages()])
    runtime = MemoryRuntime()
    ports = Ports(
        events=MemoryLog(runtime),
        blobs=MemoryBlobs(),
        catalog=FolderCatalog(folders),
        runtime=runtime,
        dispatcher=DramatiqDispatcher(broker),
        kinds=ToolKinds(),
        clock=time.time,
        new_id=Snowflake(),
    )
    plane = control(ports, settings)
    runner = Runner(
        plane.work,
        settings,
        ports.kinds,
        secrets_from({**(secrets or {}), **secret_variables()}),
        name="local",
    )
    declare_orchestrator(broker, plane.advance.advance)
    declare_steps(broker, runner.run, kinds(), pool_queues(settings))
    worker = Worker(broker, worker_threads=settings.worker_threads, worker_timeout=100)
    worker.start()
    try:
        yield plane, broker, ports
    finally:
        runner.begin_shutdown()
        runner.interrupt()
        worker.stop()
        broker.close()


def run_playbook(
    text: str,
    settings: Settings,
    payload: Mapping[str, Any] | None = None,
    on_event: Callable[[Any], None] | None = None,
    *,
    source: str = "playbook",
    secrets: Mapping[str, str] | None = None,
) -> LocalRun:
    """Run a playbook in this process to its end; ``on_event(entry)`` sees each event as it is written.

    *secrets* are by lower-case name; those of the environment win. Where *source* is a file, its
    sub-playbooks are looked for beside it, and below the current folder where that holds it.

    Raises ``InvalidPlaybookError``, and ``BadRequestError`` for a playbook that wants the servers.
    """
    with local_plane(settings, secrets=secrets, folders=_folders(source)) as (plane, _, ports):
        entry = plane.catalog.register(text, source=source)
        if plane.catalog.playbook(entry.catalog_id).executor.profile == "distributed":
            raise BadRequestError(
                f"{source} says 'executor.profile: distributed'",
                remedy="run it on the servers: add '-r distributed'",
            )
        started = plane.executions.start(catalog_id=entry.catalog_id, payload=payload)
        follow(ports, started.execution_id, on_event or (lambda _: None))
        _wait_for_children(ports)
        return _local_run(plane, started.execution_id)


def _folders(source: str) -> list[Path]:
    file = Path(source).resolve()
    if not file.is_file():
        return []
    here = Path.cwd()
    return [file.parent, here] if file.is_relative_to(here) else [file.parent]


def _wait_for_children(ports: Ports, *, pause: float = 0.005) -> None:
    """Sub-playbooks that nobody waits for would end with this process."""
    while ports.events.open_executions(limit=1):
        time.sleep(pause)


def follow(
    ports: Ports, execution_id: int, on_event: Callable[[Any], None], *, pause: float = 0.005
) -> None:
    """Hand each event to *on_event*, in order, until the execution has ended."""
    from app.engine.events import EXECUTION_ENDS

    seen = 0
    while True:
        for entry in ports.events.read(execution_id, after=seen):
            seen = entry.seq
            on_event(entry)
            if entry.event.type in EXECUTION_ENDS:
                return
        time.sleep(pause)


def _local_run(plane: Control, execution_id: int) -> LocalRun:
    status = plane.executions.status(execution_id)
    names = [name for name, step in status.state.steps.items() if step.result_seq]
    results = {name: plane.executions.result(execution_id, name) for name in names}
    return LocalRun(
        execution_id,
        status.summary.status,
        status.summary.error,
        status.final_step,
        results.get(status.final_step or ""),
        results,
    )


# ---------------------------------------------------------------------- health
_POSTGRES = "is Postgres running? see DATABASE_URL"


@dataclass(frozen=True, slots=True)
class PlaneHealth:
    """What readiness asks of a control plane."""

    plane: Plane

    def checks(self) -> list[Check]:
        return [self._postgres(), self._migrations(), self._nats()]

    def _postgres(self) -> Check:
        try:
            self.plane.database.ping()
        except CallboardError as exc:
            return Check(
                "postgres",
                ok=False,
                message=exc.message,
                remedy="is Postgres running? see DATABASE_URL",
            )
        return Check("postgres", ok=True)

    def _migrations(self) -> Check:
        from app.store.migrations import current, head

        try:
            now = current(self.plane.database_url)
        except CallboardError as exc:
            return Check(
                "migrations",
                ok=False,
                message=exc.message,
                remedy="is Postgres running? see DATABASE_URL",
            )
        if now != head():
            message = f"the database is at revision {now or 'none'}, this version needs {head()}"
            return Check(
                "migrations", ok=False, message=message, remedy="run 'callboard db upgrade'"
            )
        return Check("migrations", ok=True)

    def _nats(self) -> Check:
        from dramatiq.errors import BrokerError

        try:
            self.plane.broker.declare_queue(ORCHESTRATE)
            self.plane.broker.pending(ORCHESTRATE)
        except BrokerError as exc:
            return Check("nats", ok=False, message=str(exc), remedy="is NATS running? see NATS_URL")
        return Check("nats", ok=True)


def migrate(settings: Settings) -> None:
    """Bring the database to this version's schema. Raises ``StartupError``."""
    from app.store.migrations import upgrade

    upgrade(urls(settings)[0])
