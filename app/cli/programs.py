"""The processes of the Procfile, as values."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from app.cli.child import Program
from app.settings import Settings, environment, process_environment

#: Stopped in this order: nothing new is started and running steps report; then the API goes.
WORK, API = 0, 1
#: What a worker must not see: credentials of the log's database and tokens of others.
HIDDEN = (
    "database_url",
    "postgres_host",
    "postgres_port",
    "postgres_db",
    "postgres_user",
    "postgres_password",
    "encryption_keys",
    "encryption_key",
    "api_token",
    "worker_tokens",
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the servers are: the variables for our processes, and those for workers."""

    all: Mapping[str, str]
    worker: Mapping[str, str]


def programs(settings: Settings, places: Places) -> list[Program]:
    """All processes of *settings*; every worker process by itself, so that each is kept alive."""
    settings = at_home(with_worker_token(settings))
    own = own_environment(settings) | dict(places.all)
    worker = worker_environment(settings) | dict(places.worker)
    grace = settings.grace + 10.0
    return [
        _program("web", "app.server", own, rank=API, grace=10.0),
        *(
            _program(name, "app.orchestrator", own, rank=WORK, grace=grace)
            for name in _numbered("orchestrator", settings.orchestrator_processes)
        ),
        *(
            _program(name, "app.worker", worker, rank=WORK, grace=grace)
            for name in _numbered("worker", settings.worker_processes)
        ),
        _program("scheduler", "app.scheduler", own, rank=WORK, grace=10.0),
    ]


def at_home(settings: Settings) -> Settings:
    """*settings* for processes of this machine: the API is the one started beside them."""
    own = replace(settings, server_url=None)
    return replace(own, server_url=own.url)


def with_worker_token(settings: Settings) -> Settings:
    """*settings* with a token for our own workers, where the API asks for one.

    They get one of their pool, never the clients' token: that one may do everything.
    """
    if settings.worker_token or not (settings.api_token or settings.worker_tokens):
        return settings
    known = [token for token, pool in settings.pool_tokens.items() if pool == settings.pool]
    if known:
        return replace(settings, worker_token=known[0])
    token = secrets.token_hex(24)
    tokens = ",".join(filter(None, [settings.worker_tokens, f"{settings.pool}={token}"]))
    return replace(settings, worker_tokens=tokens, worker_token=token)


def own_environment(settings: Settings) -> dict[str, str]:
    """The environment of a process of the control plane: ours, and over it exactly *settings*.

    One process each: who counts them is the one who starts them.
    """
    single = replace(settings, worker_processes=1, orchestrator_processes=1)
    # Lines must come when they are said, not when a buffer is full.
    return {**process_environment(), **environment(single), "PYTHONUNBUFFERED": "1"}


def worker_environment(settings: Settings) -> dict[str, str]:
    """The same for a worker, without what it must not see."""
    hidden = variables_of(*HIDDEN)
    return {name: value for name, value in own_environment(settings).items() if name not in hidden}


def variables_of(*names: str) -> set[str]:
    """All names in the environment of the settings *names*."""
    return {
        variable
        for item in fields(Settings)
        if item.name in names
        for variable in item.metadata["env"]
    }


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}.{number}" for number in range(1, count + 1)]


def _program(
    name: str, module: str, variables: Mapping[str, str], *, rank: int, grace: float
) -> Program:
    return Program(name, (sys.executable, "-m", module), variables, rank, grace)
