"""All use cases of the control plane, put together on one set of ports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from app.engine.custody import Custody
from app.engine.decide import Limits
from app.engine.language.examine import CheckedKinds
from app.engine.ports import BlobStore, Catalog, Clock, Dispatcher, EventLog, NewId, RuntimeRegistry
from app.engine.retention import RetentionStore
from app.errors import StartupError
from app.services.advance import Advance
from app.services.archive import Archives
from app.services.artifacts import Artifacts
from app.services.briefing import Briefing
from app.services.catalog import CatalogService
from app.services.claimants import Claimants
from app.services.credentials import Credentials
from app.services.eager import Eager
from app.services.ends import Ends
from app.services.executions import Executions
from app.services.family import Family
from app.services.inspection import Inspection
from app.services.intervention import Intervention
from app.services.kinship import Kinship
from app.services.large import Storage
from app.services.observed import ObservedLog
from app.services.output import Output
from app.services.presence import Presence
from app.services.reading import Reader
from app.services.results import Results
from app.services.retention import Retention
from app.services.sweep import Sweeper
from app.services.tokens import Tokens
from app.services.variables import VariablesService
from app.services.why import Whys
from app.services.work import Work
from app.settings import Settings

#: A hundred years.
MOST_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Ports:
    """What the use cases stand on; Postgres and NATS, or their memory twins."""

    events: EventLog
    catalog: Catalog
    runtime: RuntimeRegistry
    dispatcher: Dispatcher
    kinds: CheckedKinds
    clock: Clock
    new_id: NewId
    custody: Custody
    #: None: values that are too large for the log stay in its database, whatever their size.
    blobs: BlobStore | None = None
    #: None: nothing is pruned; what is in memory ends with its process.
    retention: RetentionStore | None = None
    #: Removes the folder that the steps of an execution work in, where that is on this machine.
    workspaces: Callable[[int], None] | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """The control plane: every driving adapter holds one of these."""

    catalog: CatalogService
    executions: Executions
    ends: Ends
    intervention: Intervention
    results: Results
    work: Work
    advance: Advance
    presence: Presence
    sweeper: Sweeper
    inspection: Inspection
    whys: Whys
    output: Output
    variables: VariablesService
    artifacts: Artifacts
    credentials: Credentials
    tokens: Tokens
    retention: Retention
    archives: Archives


def limits_of(settings: Settings) -> Limits:
    """The bounds of every execution, from the settings."""
    return Limits(
        max_visits=settings.max_visits,
        max_attempts=settings.max_attempts,
        max_depth=settings.max_depth,
        loop_window=settings.loop_window,
        value_bytes=settings.result_bytes,
        pool=settings.pool,
    )


def retention_days(settings: Settings) -> float | None:
    """Days that ended executions stay; None: for ever. Raises ``StartupError`` for what is no time."""
    days = settings.retention_days
    if days is not None and not 0 < days <= MOST_DAYS:
        raise StartupError(
            f"CALLBOARD_RETENTION_DAYS is {days:g}, which is not between 0 and {MOST_DAYS}",
            remedy="leave it unset, and executions stay until 'callboard prune' removes them",
        )
    return days


def control(ports: Ports, settings: Settings, *, catalog: CatalogService | None = None) -> Control:
    """Build the use cases on *ports*; with a *catalog* that has compiled playbooks already, on that."""
    reader = Reader(ports.events, ports.blobs, most=settings.result_bytes)
    storage = Storage(
        inline=settings.inline_bytes,
        most=settings.result_bytes,
        blob_bytes=settings.blob_bytes,
        blobs=ports.blobs,
    )
    catalog = catalog or CatalogService(
        ports.catalog, ports.kinds, max_bytes=settings.playbook_bytes
    )
    ends = Ends()
    events = ObservedLog(ports.events, ends.appended)
    dispatcher, clock = ports.dispatcher, ports.clock
    family = Family(events, catalog, dispatcher, reader, storage=storage, clock=clock)
    days = retention_days(settings)
    claimants = Claimants(events, reader)
    output = Output(events, ports.custody.output)
    retention = Retention(
        ports.retention, ports.custody, ports.blobs, workspaces=ports.workspaces, clock=clock
    )
    advance = Advance(
        events,
        catalog,
        dispatcher,
        reader,
        limits=limits_of(settings),
        storage=storage,
        family=family,
        clock=clock,
        new_id=ports.new_id,
    )
    eager = Eager(advance, catalog, clock=clock, is_on=settings.eager)
    executions = Executions(
        events, catalog, dispatcher, reader, family, eager=eager, clock=clock, new_id=ports.new_id
    )
    return Control(
        catalog=catalog,
        executions=executions,
        ends=ends,
        intervention=Intervention(
            events, catalog, dispatcher, executions, family, clock=clock, new_id=ports.new_id
        ),
        results=Results(executions, reader),
        work=Work(
            events,
            dispatcher,
            Briefing(catalog, reader),
            eager,
            storage=storage,
            output=output,
            clock=clock,
        ),
        advance=advance,
        presence=Presence(ports.runtime, events),
        sweeper=Sweeper(
            events,
            dispatcher,
            ports.runtime,
            family=family,
            lease=settings.lease,
            unclaimed_after=settings.unclaimed_after,
            clock=clock,
            prune=None if days is None else partial(retention.sweep, days),
        ),
        inspection=Inspection(events, catalog, executions, reader),
        whys=Whys(
            events,
            executions,
            catalog,
            advance=advance,
            runtime=ports.runtime,
            dispatcher=dispatcher,
            output=output,
            lease=settings.lease,
            sweep=settings.sweep,
        ),
        output=output,
        variables=VariablesService(
            events, ports.custody.variables, most=settings.blob_bytes, clock=clock
        ),
        artifacts=Artifacts(events, ports.blobs, claimants, most=settings.artifact_bytes),
        credentials=Credentials(ports.custody, catalog, executions, claimants),
        tokens=Tokens(
            ports.custody,
            catalog,
            claimants,
            Kinship(events),
            pool=settings.pool,
            clock=clock,
        ),
        retention=retention,
        archives=Archives(events, ports.retention, ports.custody, ports.blobs),
    )
