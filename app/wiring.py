"""The only place that names concrete classes: puts processes together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.actors.declare import ORCHESTRATE
from app.engine.language.steps import is_pool
from app.errors import StartupError
from app.services.control import Control, Ports, control
from app.settings import Settings
from app.tools import Tool, kinds, load_tool

if TYPE_CHECKING:
    from app.brokers.nats import NatsBroker
    from app.engine.custody import Custody, Sealer
    from app.engine.ports import BlobStore
    from app.services.rotation import Rotation
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
    sealer: Sealer
    ports: Ports

    def leadership(self, key: int) -> Leadership:
        """A claim to lead under *key*; nobody leads yet."""
        from app.store.leader import Leadership

        return Leadership(self.database_url, key)

    def check_keys(self) -> None:
        """Raise ``StartupError`` where the database holds what our keys do not open."""
        from app.services.rotation import check_keys
        from app.store.sealed import PostgresSealed

        check_keys(PostgresSealed(self.database), self.sealer)


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


def protect_servers(settings: Settings) -> None:
    """Keep the requests of playbooks in this process away from the home's embedded servers."""
    from app.embedded.stack import running_stack
    from app.tools.web.policy import protect

    stack = running_stack(settings.home)
    if stack is not None:
        protect("this installation's Postgres", stack.database_url)
        protect("this installation's NATS", stack.nats_url)


@contextmanager
def control_plane(settings: Settings, name: str, *, threads: int = 0) -> Iterator[Plane]:
    """Everything a process of the control plane holds; closed on leaving.

    *name* is for Postgres; *threads* that hold a transaction each may need a second connection.
    """
    from app.blobs.workspaces import Workspaces
    from app.brokers.dispatch import DramatiqDispatcher
    from app.services.observed import ObservedLog
    from app.store.catalog import PostgresCatalog
    from app.store.database import Database
    from app.store.events import PostgresLog
    from app.store.ids import Snowflake
    from app.store.retention import PostgresRetention
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
            events=ObservedLog(PostgresLog(database), metrics.appended),
            blobs=blob_store(settings),
            retention=PostgresRetention(database),
            workspaces=Workspaces(settings.home / "work").forget,
            catalog=PostgresCatalog(database),
            runtime=PostgresRuntime(database),
            dispatcher=DramatiqDispatcher(broker),
            kinds=ToolKinds(),
            clock=time.time,
            new_id=Snowflake(),
            custody=custody(settings, database),
        )
        yield Plane(
            settings,
            control(ports, settings),
            broker,
            database,
            database_url,
            metrics,
            ports.custody.sealer,
            ports,
        )


def custody(settings: Settings, database: Database) -> Custody:
    """What the database keeps in confidence, and the keys to it. Raises ``StartupError``."""
    from app.engine.custody import Custody
    from app.keychain.keys import keyring
    from app.store.credentials import PostgresCredentials
    from app.store.output import PostgresOutput
    from app.store.tokens import PostgresTokens
    from app.store.variables import PostgresVariables

    return Custody(
        sealer=keyring(settings),
        credentials=PostgresCredentials(database),
        variables=PostgresVariables(database),
        output=PostgresOutput(database),
        tokens=PostgresTokens(database),
    )


def rotate(
    settings: Settings, database_url: str, *, new_key: bool, told: Callable[[int], None]
) -> Rotation:
    """Seal all that the database keeps with the first key; ``told(rows)`` after each batch.

    With *new_key* a new one is made first, in the key file of the home. Raises ``StartupError``,
    ``UnavailableError``, and ``SealError`` where there is no key.
    """
    from app.keychain.keys import add_key, keyring
    from app.services.rotation import rotated
    from app.store.database import Database
    from app.store.sealed import PostgresSealed

    database = Database(database_url, pool_size=1, application_name="callboard rotate")
    try:
        if new_key:
            add_key(settings)
        return rotated(PostgresSealed(database), keyring(settings), told)
    finally:
        database.close()


def memory_custody() -> Custody:
    """The same for one process: memory twins, and a key that ends with it."""
    from app.engine.custody import Custody
    from app.keychain.keyring import ephemeral
    from app.store.memory_custody import MemoryCredentials
    from app.store.memory_output import MemoryOutput
    from app.store.memory_tokens import MemoryTokens
    from app.store.memory_variables import MemoryVariables

    return Custody(
        sealer=ephemeral(),
        credentials=MemoryCredentials(),
        variables=MemoryVariables(),
        output=MemoryOutput(),
        tokens=MemoryTokens(),
    )


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
    from app.engine.entry import UnknownEventError
    from app.errors import UnavailableError

    again = RedeliverOnInfrastructureError(UnavailableError, UnknownEventError)
    return NatsBroker(
        url,
        middleware=[Outages(), again],
        coalescing={ORCHESTRATE},
        ack_wait=settings.ack_wait,
        replicas=settings.nats_replicas,
    )


#: The queues that tools are sent on.
QUEUES = ("cpu", "io")


def pool_queues(settings: Settings) -> list[str]:
    """The Dramatiq queues that a worker of these settings serves.

    Raises ``StartupError`` for a pool that no playbook can name and for queues that nothing is
    sent on: such a worker would be alive and wait for ever.
    """
    if not is_pool(settings.pool):
        raise StartupError(
            f"{settings.pool!r} is not the name of a pool",
            remedy="set CALLBOARD_POOL to letters, digits, '-' and '_', as playbooks name it",
        )
    queues = [queue.strip() for queue in settings.queues.split(",") if queue.strip()]
    odd = [queue for queue in queues if queue not in QUEUES]
    if odd or not queues:
        what = f"there is no queue {odd[0]!r}" if odd else "this worker would serve no queue"
        raise StartupError(what, remedy=f"set CALLBOARD_QUEUES to some of {', '.join(QUEUES)}")
    return [f"{settings.pool}.{queue}" for queue in queues]


def migrate(settings: Settings) -> None:
    """Bring the database to this version's schema. Raises ``StartupError``."""
    from app.store.migrations import upgrade

    upgrade(urls(settings)[0])
