"""Every setting, in one place. Only this file reads the environment.

A setting has one name inside (a field of ``Settings``) and one or more names in the environment,
the first of which wins. ``load`` also says where each value came from and what it did not know.
"""

from __future__ import annotations

import difflib
import os
import secrets
import socket
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import quote, urlsplit, urlunsplit

from app.errors import StartupError

PREFIXES = ("CALLBOARD_", "NOETL_")
#: Names with a known prefix that are not settings of ours but are read on purpose elsewhere.
PASSTHROUGH = ("NOETL_SECRET_", "CALLBOARD_SECRET_")
TRUE, FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}


def setting(default: Any, *names: str, help: str, secret: bool = False) -> Any:  # noqa: A002 (reads best at the call)
    """Declare a setting: its default, its names in the environment, and what it is for."""
    return field(default=default, metadata={"env": names, "help": help, "secret": secret})


@dataclass(frozen=True, slots=True)
class Settings:
    """The configuration of one process; never changes after it was loaded."""

    # Where things live
    home: Path = setting(  # noqa: RUF009 (a field, like all below)
        Path("~/.callboard"),
        "CALLBOARD_HOME",
        help="folder of everything the embedded servers and the CLI keep",
    )
    blobs: str | None = setting(
        None,
        "CALLBOARD_BLOBS",
        help="where large results go: a folder that all processes of the control plane share, or a "
        "URL (s3://, gs://, az://); default: blobs in the home",
    )
    host: str = setting(
        "127.0.0.1",
        "CALLBOARD_HOST",
        "NOETL_HOST",
        help="address the API listens on; another than loopback needs CALLBOARD_API_TOKEN",
    )
    port: int = setting(
        8082, "PORT", "CALLBOARD_PORT", "NOETL_PORT", help="port the API listens on"
    )
    server_url: str | None = setting(
        None,
        "CALLBOARD_SERVER_URL",
        "NOETL_SERVER_URL",
        help="where workers and the CLI find the API; default: http://HOST:PORT",
    )
    api_requests: int = setting(
        256,
        "CALLBOARD_API_REQUESTS",
        help="requests that one API process works on at once; more are answered 503, to come again",
    )
    enable_ui: bool = setting(
        True, "CALLBOARD_ENABLE_UI", "NOETL_ENABLE_UI", help="answer browsers at / with a page"
    )

    # Postgres
    database_url: str | None = setting(
        None,
        "DATABASE_URL",
        "CALLBOARD_DATABASE_URL",
        help="Postgres to use; without it and POSTGRES_HOST the embedded one is started",
        secret=True,
    )
    postgres_host: str | None = setting(
        None, "POSTGRES_HOST", help="host of Postgres, where DATABASE_URL is not set"
    )
    postgres_port: int = setting(5432, "POSTGRES_PORT", help="port of Postgres")
    postgres_db: str = setting("noetl", "POSTGRES_DB", help="database name")
    postgres_user: str = setting("noetl", "POSTGRES_USER", help="database user")
    postgres_password: str | None = setting(
        None, "POSTGRES_PASSWORD", help="database password", secret=True
    )
    pool_size: int = setting(8, "CALLBOARD_POOL_SIZE", help="database connections per process")

    # NATS
    nats_url: str | None = setting(
        None,
        "NATS_URL",
        "CALLBOARD_NATS_URL",
        help="NATS to use (2.12 or newer, JetStream on); without it the embedded one is started",
        secret=True,
    )
    nats_replicas: int = setting(
        1, "CALLBOARD_NATS_REPLICAS", help="replicas of the streams (3 or 5 on a cluster)"
    )
    ack_wait: float = setting(
        30.0,
        "CALLBOARD_ACK_WAIT",
        help="seconds until NATS delivers a message again that is held without a sign of life",
    )

    # Access
    api_token: str | None = setting(
        None,
        "CALLBOARD_API_TOKEN",
        help="token that clients send as 'Authorization: Bearer …'",
        secret=True,
    )
    worker_tokens: str = setting(
        "",
        "CALLBOARD_WORKER_TOKENS",
        help="tokens of worker pools, 'pool=token,…'; one may only claim, report and beat for its pool",
        secret=True,
    )
    worker_token: str | None = setting(
        None, "CALLBOARD_WORKER_TOKEN", help="token this worker sends", secret=True
    )
    allowed_hosts: str = setting(
        "",
        "CALLBOARD_ALLOWED_HOSTS",
        help="further Host and Origin names the API answers to, comma-separated",
    )

    # Secrets
    encryption_keys: str = setting(
        "",
        "CALLBOARD_ENCRYPTION_KEYS",
        help="keys that seal credentials in the database, 'id=base64 of 32 bytes,…'; the first seals, "
        "all open; default: encryption.keys in the home, made where the database is embedded",
        secret=True,
    )
    encryption_key: str | None = setting(
        None,
        "NOETL_ENCRYPTION_KEY",
        "CALLBOARD_ENCRYPTION_KEY",
        help="one such key without an id: 32 bytes in base64 or hex, or a passphrase of at least 16 "
        "characters",
        secret=True,
    )
    secrets_dir: Path | None = setting(  # noqa: RUF009 (a field, like all here)
        None,
        "CALLBOARD_SECRETS_DIR",
        help="folder that provider 'file' reads secrets from, such as /run/secrets; default: none",
    )
    secrets_ambient: bool = setting(
        False,
        "CALLBOARD_SECRETS_AMBIENT",
        help="whether playbooks may use the worker's own identity (metadata service, service "
        "account, profile) with the providers gcp, aws, azure and vault",
    )
    keychain_ahead: float = setting(
        300.0,
        "CALLBOARD_KEYCHAIN_AHEAD",
        "NOETL_KEYCHAIN_REFRESH_THRESHOLD",
        help="seconds before its end at which an entry with auto_renew is fetched again, at most a "
        "fifth of its life",
    )

    # Workers
    pool: str = setting("default", "CALLBOARD_POOL", help="pool this worker belongs to")
    queues: str = setting(
        "cpu,io", "CALLBOARD_QUEUES", help="queues of the pool this worker serves, comma-separated"
    )
    worker_processes: int = setting(
        1, "CALLBOARD_WORKER_PROCESSES", help="worker processes that 'callboard up' starts"
    )
    worker_threads: int = setting(
        16, "CALLBOARD_WORKER_THREADS", help="steps that run at once in one worker process"
    )
    orchestrator_processes: int = setting(
        1,
        "CALLBOARD_ORCHESTRATOR_PROCESSES",
        help="orchestrator processes that 'callboard up' starts",
    )
    orchestrator_threads: int = setting(
        16,
        "CALLBOARD_ORCHESTRATOR_THREADS",
        help="executions that one orchestrator process takes in hand at once",
    )
    grace: float = setting(
        10.0,
        "CALLBOARD_GRACE",
        help="seconds that running steps get to finish when a worker is stopped",
    )

    # Limits
    step_timeout: float = setting(
        1800.0,
        "CALLBOARD_STEP_TIMEOUT",
        help="seconds until a step without a timeout of its own is stopped",
    )
    inline_bytes: int = setting(
        65_536, "CALLBOARD_INLINE_BYTES", help="results above this size are kept by reference"
    )
    blob_bytes: int = setting(
        1_048_576,
        "CALLBOARD_BLOB_BYTES",
        help="results above this size are kept in the blob store, below it in Postgres",
    )
    result_bytes: int = setting(
        104_857_600, "CALLBOARD_RESULT_BYTES", help="results above this size fail the step"
    )
    artifact_bytes: int = setting(
        1_073_741_824, "CALLBOARD_ARTIFACT_BYTES", help="largest artifact that a step may keep"
    )
    output_bytes: int = setting(
        1_048_576,
        "CALLBOARD_OUTPUT_BYTES",
        help="stdout and stderr of a step beyond this size are dropped, and said so",
    )
    python_memory: int = setting(
        2_147_483_648,
        "CALLBOARD_PYTHON_MEMORY",
        help="address space of a python or shell step in bytes; 0: unlimited",
    )
    python_profile: Literal["plain", "jail"] = setting(
        "plain",
        "CALLBOARD_PYTHON_PROFILE",
        help="how programs of steps are kept in: plain, or jail (no network, nothing of the machine "
        "to write or to signal; Linux)",
    )
    python_warm: int = setting(
        48,
        "CALLBOARD_PYTHON_WARM",
        help="processes that a worker keeps for a while for the next run of the same python step, "
        "where it left nothing behind; 0: every run gets a fresh one",
    )
    python_warm_for: float = setting(
        60.0, "CALLBOARD_PYTHON_WARM_FOR", help="seconds for which they are kept"
    )
    playbook_bytes: int = setting(
        8_388_608, "CALLBOARD_PLAYBOOK_BYTES", help="largest playbook accepted"
    )
    max_visits: int = setting(
        10_000, "CALLBOARD_MAX_VISITS", help="how often one step may be entered in one execution"
    )
    max_depth: int = setting(50, "CALLBOARD_MAX_DEPTH", help="how deep sub-playbooks may nest")
    max_attempts: int = setting(
        5,
        "CALLBOARD_MAX_ATTEMPTS",
        help="how many attempts may be lost with their workers before the step fails",
    )
    postgres_connections: int = setting(
        16,
        "CALLBOARD_POSTGRES_CONNECTIONS",
        help="connections to one database that the steps of a worker process use at once; more wait",
    )
    duckdb_memory: str = setting(
        "1GB",
        "CALLBOARD_DUCKDB_MEMORY",
        help="memory that a duckdb step may use without a memory_limit of its own, such as 512MB",
    )
    duckdb_threads: int = setting(
        2,
        "CALLBOARD_DUCKDB_THREADS",
        help="threads that a duckdb step may use without threads of its own",
    )
    duckdb_files: str = setting(
        "all",
        "CALLBOARD_DUCKDB_FILES",
        help="all or workspace: the files that SQL of duckdb steps may read and write; workspace "
        "also keeps it from loading extensions",
    )
    eager: bool = setting(
        True,
        "CALLBOARD_EAGER",
        help="decide what follows a start or a report in its own transaction, and hand the next step "
        "to the worker that reported; off: always by an orchestrator, through the queue. Both kinds "
        "of process decide, so limits and the pool are to be the same for both",
    )
    loop_window: int = setting(
        1_000,
        "CALLBOARD_LOOP_WINDOW",
        help="iterations of one parallel loop in flight at once, at the most",
    )

    # Requests of playbooks (http, mcp, and files fetched for them)
    http_proxy: str | None = setting(
        None,
        "CALLBOARD_HTTP_PROXY",
        help="proxy for the requests of playbooks, http://[user:password@]host:port; those of the "
        "environment are not used",
        secret=True,
    )
    http_private: str = setting(
        "allow",
        "CALLBOARD_HTTP_PRIVATE",
        help="allow or refuse: whether playbooks may reach private and loopback addresses; "
        "link-local and metadata addresses are always refused",
    )
    http_own_api: str = setting(
        "refuse",
        "CALLBOARD_HTTP_OWN_API",
        help="allow or refuse: whether requests of playbooks may reach this installation's own API; "
        "its Postgres and NATS are always refused",
    )
    http_inline_bytes: int = setting(
        8_388_608,
        "CALLBOARD_HTTP_INLINE_BYTES",
        help="answers above this size are kept as a file, by reference",
    )
    http_bytes: int = setting(
        1_073_741_824,
        "CALLBOARD_HTTP_BYTES",
        help="answers above this size, unpacked, fail the step",
    )

    # Recovery
    heartbeat: float = setting(
        3.0,
        "CALLBOARD_HEARTBEAT",
        help="seconds between two heartbeats of a process; a cancelled step stops at the next one",
    )
    lease: float = setting(
        15.0,
        "CALLBOARD_LEASE",
        help="seconds without a heartbeat after which a worker's attempts are given to others",
    )
    sweep: float = setting(5.0, "CALLBOARD_SWEEP", help="seconds between two runs of the sweeper")
    unclaimed_after: float = setting(
        20.0,
        "CALLBOARD_UNCLAIMED_AFTER",
        help="seconds after which a pointer that nobody claimed is sent again",
    )

    retention_days: float | None = setting(
        None,
        "CALLBOARD_RETENTION_DAYS",
        help="days after which the scheduler removes executions that have ended; default: never",
    )

    # Telling
    log_level: str = setting(
        "info", "CALLBOARD_LOG_LEVEL", "NOETL_LOG_LEVEL", help="debug, info, warning or error"
    )
    log_format: str = setting(
        "auto",
        "CALLBOARD_LOG_FORMAT",
        help="auto (readable on a terminal, JSON otherwise), console or json",
    )

    # Failing on purpose
    failpoint: str = setting(
        "",
        "CALLBOARD_FAILPOINT",
        help="name:action:nth, ...: where this process is to crash, fail or linger; for tests only",
    )

    # ------------------------------------------------------------------ derived values
    @property
    def url(self) -> str:
        """Base URL of the API as clients of this machine reach it; no trailing slash."""
        if self.server_url:
            return self.server_url.rstrip("/").removesuffix("/api")
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 (compared, not bound)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def external_database_url(self) -> str | None:
        """A libpq URL where Postgres is configured, None where the embedded one is meant."""
        if self.database_url:
            # Heroku-like hosts still say postgres://
            scheme, rest = (
                self.database_url.split("://", 1) if "://" in self.database_url else ("", "")
            )
            return (
                f"postgresql://{rest}"
                if scheme.split("+")[0] in {"postgres", "postgresql"}
                else self.database_url
            )
        if not self.postgres_host:
            return None
        password = f":{quote(self.postgres_password, safe='')}" if self.postgres_password else ""
        user = quote(self.postgres_user, safe="")
        return f"postgresql://{user}{password}@{self.postgres_host}:{self.postgres_port}/{self.postgres_db}"

    @property
    def pool_tokens(self) -> dict[str, str]:
        """Token to pool, from ``worker_tokens``."""
        pairs = (part.partition("=") for part in self.worker_tokens.split(",") if part.strip())
        return {token.strip(): pool.strip() for pool, _, token in pairs}

    @property
    def is_loopback(self) -> bool:
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings with the origin of each value and what was odd about the environment."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...]


def load(environ: Mapping[str, str] | None = None, **overrides: Any) -> Loaded:
    """Read the settings from *environ* (default: the process environment); *overrides* win.

    Raises ``StartupError`` that names the variable where a value has the wrong form.
    """
    env = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    hints = get_type_hints(Settings)
    for item in fields(Settings):
        name = next((name for name in item.metadata["env"] if env.get(name, "") != ""), None)
        if overrides.get(item.name) is not None:
            values[item.name], origins[item.name] = overrides[item.name], "command line"
        elif name is not None:
            values[item.name], origins[item.name] = _parse(name, env[name], hints[item.name]), name
        else:
            values[item.name], origins[item.name] = _default(item), "default"
    values["home"] = Path(values["home"]).expanduser().absolute()
    return Loaded(Settings(**values), origins, tuple(_unknown(env)))


def check_exposure(settings: Settings) -> None:
    """Raise ``StartupError`` where other machines would reach an API that asks for no token."""
    if not settings.is_loopback and not settings.api_token:
        raise StartupError(
            f"refusing to listen on {settings.host or 'every address'} without an API token",
            remedy="set CALLBOARD_API_TOKEN, or listen on 127.0.0.1 (NOETL_HOST)",
        )


def describe(loaded: Loaded) -> list[dict[str, Any]]:
    """Each setting with value (secrets masked), origin, names and help; for ``callboard config``."""
    return [
        {
            "name": item.name,
            "value": _masked(getattr(loaded.settings, item.name), secret=item.metadata["secret"]),
            "origin": loaded.origins[item.name],
            "env": list(item.metadata["env"]),
            "help": item.metadata["help"],
        }
        for item in fields(Settings)
    ]


def environment(settings: Settings) -> dict[str, str]:
    """The variables that make a child process load exactly *settings*."""
    result = {}
    for item in fields(Settings):
        value = getattr(settings, item.name)
        if value is not None:
            result[item.metadata["env"][0]] = str(value)
    return result


def secret_variables() -> dict[str, str]:
    """``NOETL_SECRET_<NAME>`` and ``CALLBOARD_SECRET_<NAME>`` by lower-case name."""
    return {
        name.removeprefix(prefix).lower(): value
        for prefix in PASSTHROUGH
        for name, value in os.environ.items()
        if name.startswith(prefix)
    }


def child_environment() -> dict[str, str]:
    """A clean environment for user code: how to find programs, the locale and the cluster's API,
    nothing of ours."""
    kept = (
        "PATH",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
    )
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or name.startswith("KUBERNETES_SERVICE_")
    }


def process_environment() -> dict[str, str]:
    """A copy of the whole environment, for child processes of our own."""
    return dict(os.environ)


def process_name(kind: str) -> str:
    """A name for this process in ``runtime``: kind, host, process id, and a word of its own.

    The last part matters: in containers every process has the same id, and a new one must not keep
    the attempts of its dead namesake alive.
    """
    return f"{kind}-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _default(item: Field[Any]) -> Any:
    assert item.default is not MISSING
    return item.default


def _parse(name: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return _parse_word(name, text, get_args(kind))
    options = [option for option in get_args(kind) if option is not type(None)] or [kind]
    try:
        if options[0] is bool:
            return _parse_bool(text)
        return options[0](text)
    except ValueError as exc:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}.get(
            options[0], "text"
        )
        raise StartupError(
            f"{name}={text!r} is not {wanted}", remedy=f"set {name} to {wanted} or unset it"
        ) from exc


def _parse_word(name: str, text: str, words: tuple[str, ...]) -> str:
    word = text.strip().lower()
    if word not in words:
        raise StartupError(
            f"{name}={text!r} is none of {', '.join(words)}", remedy="set it to one, or unset it"
        )
    return word


def _parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in TRUE:
        return True
    if word in FALSE:
        return False
    raise ValueError(text)


def _unknown(env: Mapping[str, str]) -> list[str]:
    known = [name for item in fields(Settings) for name in item.metadata["env"]]
    odd = [
        name
        for name in env
        if name.startswith(PREFIXES) and not name.startswith(PASSTHROUGH) and name not in known
    ]
    result = []
    for name in sorted(odd):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        result.append(f"unknown setting {name}" + (f"; did you mean {near[0]}?" if near else ""))
    return result


def _masked(value: Any, *, secret: bool) -> Any:
    if value is None or not secret or value == "":
        return str(value) if isinstance(value, Path) else value
    text = str(value)
    if "://" not in text:
        return "********"
    parts = urlsplit(text)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    user = f"{parts.username or ''}:********@" if parts.username or parts.password else ""
    # A query string may carry a password too (libpq accepts ?password=…).
    return urlunsplit(
        (parts.scheme, f"{user}{host}{port}", parts.path, "********" if parts.query else "", "")
    )
