"""Which peers there are, and how each is run. To add one: an entry here, its requirements, its program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ALL = ("W1", "W2", "W3", "W4")


@dataclass(frozen=True, slots=True)
class Spec:
    """A peer: its environment, the commands of its program, what it needs and what it takes part in.

    A command is what follows the environment's ``python -m``. ``workers`` is how many worker
    processes run; a command's ``{worker}`` is the number of one.
    """

    name: str
    title: str
    environment: str
    client: tuple[str, ...]
    work: tuple[str, ...]
    workers: int
    configured: str
    prepare: tuple[str, ...] = ()
    schema: bool = False
    needs_valkey: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    workloads: tuple[str, ...] = ALL


PROGRAMS = "bench.peers.programs"
DBOS, PROCRASTINATE = f"{PROGRAMS}.dbos_app", f"{PROGRAMS}.procrastinate_app"
CELERY, DRAMATIQ = f"{PROGRAMS}.celery_app", f"{PROGRAMS}.dramatiq_app"

PEERS = (
    Spec(
        name="dbos",
        title="DBOS, in process",
        environment="dbos",
        prepare=(DBOS, "prepare"),
        client=(DBOS, "client"),
        work=(),
        workers=0,
        configured="workflows and steps in the client's own process, 16 threads",
        variables={"PEER_THREADS": "16", "PEER_CONNECTIONS": "16"},
    ),
    Spec(
        name="dbos-queue",
        title="DBOS, queued",
        environment="dbos",
        prepare=(DBOS, "prepare"),
        client=(DBOS, "queue-client"),
        work=(DBOS, "work"),
        workers=2,
        configured="2 worker processes of 16 threads, queues polled every 10 ms",
        variables={"PEER_POLL": "0.01", "PEER_THREADS": "16", "PEER_CONNECTIONS": "8"},
    ),
    Spec(
        name="procrastinate",
        title="Procrastinate",
        environment="procrastinate",
        schema=True,
        prepare=(PROCRASTINATE, "prepare"),
        client=(PROCRASTINATE, "client"),
        work=(PROCRASTINATE, "work"),
        workers=2,
        configured="2 worker processes of 8 tasks at a time, woken by LISTEN",
        variables={"PEER_CONCURRENCY": "8"},
    ),
    Spec(
        name="celery",
        title="Celery, durable Valkey",
        environment="celery",
        needs_valkey=True,
        client=(CELERY,),
        work=(
            *("celery", "-A", CELERY, "worker", "--pool=prefork", "--concurrency=2"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"),
        ),
        workers=1,
        configured="prefork, 2 processes, prefetch 4, late acknowledgements",
        variables={"PEER_PREFETCH": "4"},
    ),
    Spec(
        name="dramatiq",
        title="Dramatiq, durable Valkey",
        environment="dramatiq",
        schema=True,
        needs_valkey=True,
        client=(DRAMATIQ,),
        work=("dramatiq", DRAMATIQ, "--processes=2", "--threads=8"),
        workers=1,
        configured="2 processes of 8 threads, idle workers look every 10 ms at the least",
        variables={"dramatiq_worker_timeout": "10", "PEER_CONNECTIONS": "8"},
    ),
)


def named(names: list[str] | None) -> list[Spec]:
    """The peers of these names or environments, or all. Raises ``SystemExit`` for an unknown one."""
    known = {name for spec in PEERS for name in (spec.name, spec.environment)}
    if unknown := sorted(set(names or ()) - known):
        raise SystemExit(f"no peer {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [spec for spec in PEERS if not names or {spec.name, spec.environment} & set(names)]
