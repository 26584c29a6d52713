"""The tables of schema ``noetl`` as SQLAlchemy sees them; ``alembic/versions`` creates them.

A test compares the two, so neither can drift. Column names that NoETL users know are kept.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

from app.engine.events import EXECUTION_ENDS, STEP_ENDS
from app.store.rows import FENCES

SCHEMA = "noetl"


metadata = MetaData(schema=SCHEMA)


class Xid8(UserDefinedType[int]):
    """A 64-bit transaction id, which never wraps."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "xid8"


def quoted(types: tuple[str, ...]) -> str:
    """*types* as an SQL list of literals, for predicates that must match an index's."""
    return ", ".join(f"'{name}'" for name in types)


def _moment(name: str, *, default: str | None = None, nullable: bool = True) -> Column[Any]:
    return Column(
        name,
        DateTime(timezone=True),
        server_default=text(default) if default else None,
        nullable=nullable,
    )


event = Table(
    "event",
    metadata,
    Column("execution_id", BigInteger, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("event_id", BigInteger, Identity(always=True), nullable=False),
    Column("xid", Xid8, server_default=text("pg_current_xact_id()"), nullable=False),
    Column("catalog_id", BigInteger),
    Column("parent_execution_id", BigInteger),
    Column("type", Text, nullable=False),
    Column("step", Text),
    Column("visit", Integer),
    Column("iteration", Integer),
    Column("attempt", Integer),
    Column("worker", Text),
    Column("status", Text),
    Column("error", Text),
    Column("payload", JSONB, nullable=False),
    Column("idempotency_key", Text),
    _moment("created_at", default="clock_timestamp()", nullable=False),
    Column("duration_ms", Double),
    PrimaryKeyConstraint("execution_id", "seq", name="event_pkey"),
)

_KEY = (event.c.execution_id, event.c.step, event.c.visit, event.c.iteration)


def _event_index(name: str, *columns: Column[Any], where: str | None, unique: bool = True) -> Index:
    condition = text(where) if where else None
    return Index(name, *columns, unique=unique, postgresql_where=condition)


_event_index(
    "event_u2_idempotency",
    event.c.execution_id,
    event.c.idempotency_key,
    where="idempotency_key IS NOT NULL",
)
_event_index("event_u3_scheduled", *_KEY, event.c.attempt, where="type = 'step.scheduled'")
_event_index("event_u4_step_end", *_KEY, where=f"type IN ({quoted(STEP_ENDS)})")
_event_index(
    "event_u5_execution_end", event.c.execution_id, where=f"type IN ({quoted(EXECUTION_ENDS)})"
)
_event_index("event_u6_execution_start", event.c.execution_id, where="type = 'execution.started'")
_event_index("event_u7_started", *_KEY, event.c.attempt, where="type = 'step.started'")
_event_index(
    "event_u8_child",
    *_KEY,
    event.c.attempt,
    event.c.type,
    where="type IN ('child.started', 'child.ended')",
)
_event_index(
    "event_u9_start_key",
    event.c.idempotency_key,
    where="type = 'execution.started' AND idempotency_key IS NOT NULL",
)
_event_index(
    "event_fences", *_KEY, event.c.attempt, where=f"type IN ({quoted(FENCES)})", unique=False
)
# The cursor of the global tail: below pg_snapshot_xmin() no event can appear any more.
_event_index("event_tail", event.c.xid, event.c.event_id, where=None, unique=False)

#: Which unique key a violated constraint stands for.
KEYS = {
    "event_pkey": "U1",
    "event_u2_idempotency": "U2",
    "event_u3_scheduled": "U3",
    "event_u4_step_end": "U4",
    "event_u5_execution_end": "U5",
    "event_u6_execution_start": "U6",
    "event_u7_started": "U7",
    "event_u8_child": "U8",
    "event_u9_start_key": "U9",
    # The projection has one row per execution.started.
    "execution_pkey": "U6",
}

# The one projection: what a list shows, written with the first and the last event.
execution = Table(
    "execution",
    metadata,
    Column("execution_id", BigInteger, primary_key=True, autoincrement=False),
    Column("catalog_id", BigInteger, nullable=False),
    Column("path", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("parent_execution_id", BigInteger),
    _moment("started_at", nullable=False),
    _moment("ended_at"),
    Column("error", Text),
    _moment("paused_at"),
)
Index("execution_status", execution.c.status, execution.c.execution_id)
Index("execution_path", execution.c.path, execution.c.execution_id)
Index("execution_path_status", execution.c.path, execution.c.status, execution.c.execution_id)
Index(
    "execution_parent",
    execution.c.parent_execution_id,
    execution.c.execution_id,
    postgresql_where=text("parent_execution_id IS NOT NULL"),
)

# Executions that are gone, until nothing of them is left in the other places either.
pruned = Table(
    "pruned",
    metadata,
    Column("execution_id", BigInteger, primary_key=True, autoincrement=False),
    _moment("pruned_at", default="clock_timestamp()", nullable=False),
)

catalog = Table(
    "catalog",
    metadata,
    Column("catalog_id", BigInteger, Identity(always=True), primary_key=True),
    Column("path", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("layout", JSONB),
    Column("payload", JSONB),
    Column("meta", JSONB, server_default=text("'{}'::jsonb"), nullable=False),
    _moment("created_at", default="now()", nullable=False),
    UniqueConstraint("path", "version", name="catalog_path_version"),
)

credential = Table(
    "credential",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("data_encrypted", Text, nullable=False),
    Column("schema", JSONB),
    Column("meta", JSONB),
    Column("tags", ARRAY(Text)),
    Column("description", Text),
    _moment("created_at", default="now()", nullable=False),
    _moment("updated_at", default="now()", nullable=False),
    Column("scope", JSONB),
    UniqueConstraint("name", name="credential_name"),
)

keychain = Table(
    "keychain",
    metadata,
    Column("cache_key", Text, primary_key=True),
    Column("keychain_name", Text, nullable=False),
    Column("catalog_id", BigInteger, ForeignKey("noetl.catalog.catalog_id"), nullable=False),
    Column("credential_type", Text),
    Column("cache_type", Text, nullable=False),
    Column("scope_type", Text, nullable=False),
    Column("execution_id", BigInteger),
    Column("parent_execution_id", BigInteger),
    Column("data_encrypted", Text, nullable=False),
    Column("schema", JSONB),
    _moment("expires_at", nullable=False),
    _moment("created_at", default="now()", nullable=False),
    _moment("accessed_at"),
    Column("access_count", Integer, server_default=text("0"), nullable=False),
    Column("auto_renew", Boolean, server_default=text("false"), nullable=False),
    Column("renew_config", JSONB),
    CheckConstraint("cache_type IN ('secret', 'token')", name="keychain_cache_type"),
    CheckConstraint("scope_type IN ('local', 'global', 'shared')", name="keychain_scope_type"),
)
Index("keychain_expires", keychain.c.expires_at)
Index("keychain_catalog", keychain.c.catalog_id, keychain.c.keychain_name)

# Who fetches the next value of an entry: one worker at a time.
keychain_lease = Table(
    "keychain_lease",
    metadata,
    Column("cache_key", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    _moment("until", nullable=False),
)
Index("keychain_lease_until", keychain_lease.c.until)

transient = Table(
    "transient",
    metadata,
    Column("execution_id", BigInteger, nullable=False),
    Column("var_name", Text, nullable=False),
    Column("var_type", Text, nullable=False),
    Column("var_value", JSONB, nullable=False),
    Column("source_step", Text),
    _moment("created_at", default="now()", nullable=False),
    _moment("accessed_at"),
    Column("access_count", Integer, server_default=text("0"), nullable=False),
    _moment("expires_at"),
    Column("scope", Text, server_default=text("'execution'"), nullable=False),
    PrimaryKeyConstraint("execution_id", "var_name", name="transient_pkey"),
    CheckConstraint(
        "var_type IN ('user_defined', 'step_result', 'computed', 'iterator_state')",
        name="transient_var_type",
    ),
    CheckConstraint(
        "scope IN ('step', 'execution', 'workflow', 'permanent')", name="transient_scope"
    ),
)

# What steps print. Beside the log, not in it: nothing is decided by it, and it may be lost.
step_log = Table(
    "step_log",
    metadata,
    Column("execution_id", BigInteger, nullable=False),
    Column("step", Text, nullable=False),
    Column("visit", Integer, nullable=False),
    Column("iteration", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("chunk", Integer, nullable=False),
    Column("id", BigInteger, Identity(always=True), nullable=False),
    Column("stream", Text, nullable=False),
    Column("text", Text, nullable=False),
    _moment("created_at", nullable=False),
    PrimaryKeyConstraint(
        "execution_id", "step", "visit", "iteration", "attempt", "chunk", name="step_log_pkey"
    ),
    CheckConstraint("stream IN ('stdout', 'stderr')", name="step_log_stream"),
)
Index("step_log_tail", step_log.c.execution_id, step_log.c.id)

runtime = Table(
    "runtime",
    metadata,
    Column("runtime_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("uri", Text, server_default=text("''"), nullable=False),
    Column("status", Text, nullable=False),
    Column("labels", JSONB, server_default=text("'{}'::jsonb"), nullable=False),
    Column("capabilities", JSONB),
    Column("capacity", Integer),
    Column("runtime", JSONB, server_default=text("'{}'::jsonb"), nullable=False),
    _moment("heartbeat", default="clock_timestamp()", nullable=False),
    _moment("created_at", default="clock_timestamp()", nullable=False),
    _moment("updated_at", default="clock_timestamp()", nullable=False),
    UniqueConstraint("kind", "name", name="runtime_kind_name"),
)

schedule = Table(
    "schedule",
    metadata,
    Column("schedule_id", BigInteger, Identity(always=True), primary_key=True),
    Column("playbook_path", Text, nullable=False),
    Column("playbook_version", Integer),
    Column("cron", Text),
    Column("interval_seconds", Integer),
    Column("enabled", Boolean, server_default=text("true"), nullable=False),
    Column("timezone", Text, server_default=text("'UTC'"), nullable=False),
    _moment("next_run_at"),
    _moment("last_run_at"),
    Column("last_status", Text),
    Column("input_payload", JSONB),
    _moment("created_at", default="now()", nullable=False),
    _moment("updated_at", default="now()", nullable=False),
    Column("meta", JSONB),
    CheckConstraint("num_nonnulls(cron, interval_seconds) = 1", name="schedule_cron_or_interval"),
)
Index("schedule_due", schedule.c.next_run_at, postgresql_where=text("enabled"))
