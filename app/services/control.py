"""All use cases of the control plane, put together on one set of ports."""

from __future__ import annotations

from dataclasses import dataclass

from app.engine.decide import Limits
from app.engine.ports import Catalog, Clock, Dispatcher, EventLog, NewId, RuntimeRegistry
from app.engine.tasks import Kinds
from app.services.advance import Advance
from app.services.briefing import Briefing
from app.services.catalog import CatalogService
from app.services.executions import Executions
from app.services.large import Storage
from app.services.presence import Presence
from app.services.reading import Reader
from app.services.sweep import Sweeper
from app.services.work import Work
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Ports:
    """What the use cases stand on; Postgres and NATS, or their memory twins."""

    events: EventLog
    catalog: Catalog
    runtime: RuntimeRegistry
    dispatcher: Dispatcher
    kinds: Kinds
    clock: Clock
    new_id: NewId


@dataclass(frozen=True, slots=True)
class Control:
    """The control plane: every driving adapter holds one of these."""

    catalog: CatalogService
    executions: Executions
    work: Work
    advance: Advance
    presence: Presence
    sweeper: Sweeper


def control(ports: Ports, settings: Settings) -> Control:
    """Build the use cases on *ports*."""
    reader = Reader(ports.events)
    storage = Storage(inline=settings.inline_bytes, most=settings.result_bytes)
    limits = Limits(
        max_visits=settings.max_visits,
        max_attempts=settings.max_attempts,
        loop_window=settings.loop_window,
        value_bytes=settings.result_bytes,
        pool=settings.pool,
    )
    catalog = CatalogService(ports.catalog, ports.kinds, max_bytes=settings.playbook_bytes)
    events, dispatcher, clock = ports.events, ports.dispatcher, ports.clock
    return Control(
        catalog=catalog,
        executions=Executions(events, catalog, dispatcher, reader, new_id=ports.new_id),
        work=Work(events, dispatcher, Briefing(catalog, reader), storage=storage, clock=clock),
        advance=Advance(
            events, catalog, dispatcher, reader, limits=limits, storage=storage, clock=clock
        ),
        presence=Presence(ports.runtime, events),
        sweeper=Sweeper(
            events,
            dispatcher,
            ports.runtime,
            lease=settings.lease,
            unclaimed_after=settings.unclaimed_after,
            clock=clock,
        ),
    )
