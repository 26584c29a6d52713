"""Everything in one process, on the memory twins of log and broker: no servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.errors import BadRequestError
from app.services.control import Control, Ports, control
from app.settings import Settings
from app.tools import kinds
from app.wire import Serves
from app.wiring import ToolKinds, memory_custody, pool_queues

if TYPE_CHECKING:
    from dramatiq import Broker

    from app.wire import CredentialPut


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
    credentials: Sequence[CredentialPut] = (),
) -> Iterator[tuple[Control, Broker, Ports]]:
    """The same engine, actors and tools on the memory twins; threads of this process do the work.

    Playbooks that are not registered are looked for in *folders*.
    """
    from dramatiq.brokers.stub import StubBroker

    from app.actors.declare import declare_orchestrator, declare_steps
    from app.actors.middleware import Outages
    from app.actors.steps import Runner
    from app.actors.threads import Worker
    from app.blobs.memory import MemoryBlobs
    from app.brokers.dispatch import DramatiqDispatcher
    from app.services.desk import Desk
    from app.settings import secret_variables
    from app.store.folder import FolderCatalog
    from app.store.ids import Snowflake
    from app.store.memory import MemoryLog, MemoryRuntime
    from app.store.memory_retention import MemoryRetention
    from app.telemetry.logs import conceal

    broker = StubBroker(middleware=[Outages()])
    runtime = MemoryRuntime()
    events = MemoryLog(runtime)
    ports = Ports(
        events=events,
        retention=MemoryRetention(events),
        blobs=MemoryBlobs(),
        catalog=FolderCatalog(folders),
        runtime=runtime,
        dispatcher=DramatiqDispatcher(broker),
        kinds=ToolKinds(),
        clock=time.time,
        new_id=Snowflake(),
        custody=memory_custody(),
    )
    plane = control(ports, settings)
    for credential in credentials:
        plane.credentials.put(credential)
    runner = Runner(
        Desk(plane),
        settings,
        ports.kinds,
        {**(secrets or {}), **secret_variables()},
        name="local",
        serves=Serves(queues=pool_queues(settings), tools=list(kinds())),
        on_secret=conceal,
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
    credentials: Sequence[CredentialPut] = (),
) -> LocalRun:
    """Run a playbook in this process to its end; ``on_event(entry)`` sees each event as it is written.

    *secrets* are by lower-case name; those of the environment win, also over *credentials*. Where
    *source* is a file, its sub-playbooks are looked for beside it, and below the current folder
    where that holds it.

    Raises ``InvalidPlaybookError``, and ``BadRequestError`` for a playbook that wants the servers.
    """
    local = local_plane(
        settings, secrets=secrets, folders=_folders(source), credentials=credentials
    )
    with local as (plane, _, ports):
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
