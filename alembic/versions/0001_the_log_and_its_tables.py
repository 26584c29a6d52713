"""The log, its one projection, and the tables NoETL users know.

Revision: 0001, the first.
"""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration is history: it spells everything out and imports nothing of ours that may change.
STEP_ENDS = "'step.done', 'step.failed', 'step.skipped', 'step.cancelled', 'loop.done'"
EXECUTION_ENDS = "'execution.completed', 'execution.failed', 'execution.cancelled'"
FENCES = "'attempt.failed', 'attempt.expired', 'attempt.interrupted'"
KEY = "execution_id, step, visit, iteration"

EVENT = (
    """
    CREATE TABLE noetl.event (
        execution_id bigint NOT NULL,
        seq integer NOT NULL,
        event_id bigint GENERATED ALWAYS AS IDENTITY,
        xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
        catalog_id bigint,
        parent_execution_id bigint,
        type text NOT NULL,
        step text,
        visit integer,
        iteration integer,
        attempt integer,
        worker text,
        status text,
        error text,
        payload jsonb NOT NULL,
        idempotency_key text,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        duration_ms double precision,
        CONSTRAINT event_pkey PRIMARY KEY (execution_id, seq)
    )
    """,
    # Created in the order of their numbers: where an event breaks two, Postgres names the first.
    """
    CREATE UNIQUE INDEX event_u2_idempotency ON noetl.event (execution_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL
    """,
    f"""
    CREATE UNIQUE INDEX event_u3_scheduled ON noetl.event ({KEY}, attempt)
    WHERE type = 'step.scheduled'
    """,
    f"CREATE UNIQUE INDEX event_u4_step_end ON noetl.event ({KEY}) WHERE type IN ({STEP_ENDS})",
    f"""
    CREATE UNIQUE INDEX event_u5_execution_end ON noetl.event (execution_id)
    WHERE type IN ({EXECUTION_ENDS})
    """,
    """
    CREATE UNIQUE INDEX event_u6_execution_start ON noetl.event (execution_id)
    WHERE type = 'execution.started'
    """,
    f"""
    CREATE UNIQUE INDEX event_u7_started ON noetl.event ({KEY}, attempt)
    WHERE type = 'step.started'
    """,
    f"CREATE INDEX event_fences ON noetl.event ({KEY}, attempt) WHERE type IN ({FENCES})",
    "CREATE INDEX event_tail ON noetl.event (xid, event_id)",
)

# A trigger holds for the table's owner and for superusers too, whom REVOKE does not stop.
APPEND_ONLY = (
    """
    CREATE FUNCTION noetl.event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'DELETE' AND current_setting('callboard.prune', true) = 'on' THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'noetl.event is append-only: % refused', TG_OP
            USING ERRCODE = 'restrict_violation',
                  HINT = 'old executions are removed with ''callboard prune''';
    END $$
    """,
    """
    CREATE TRIGGER event_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON noetl.event
    FOR EACH STATEMENT EXECUTE FUNCTION noetl.event_is_append_only()
    """,
)

EXECUTION = (
    """
    CREATE TABLE noetl.execution (
        execution_id bigint PRIMARY KEY,
        catalog_id bigint NOT NULL,
        path text NOT NULL,
        version integer NOT NULL,
        status text NOT NULL,
        parent_execution_id bigint,
        started_at timestamptz NOT NULL,
        ended_at timestamptz,
        error text
    )
    """,
    "CREATE INDEX execution_status ON noetl.execution (status, execution_id)",
    "CREATE INDEX execution_path ON noetl.execution (path, execution_id)",
    "CREATE INDEX execution_path_status ON noetl.execution (path, status, execution_id)",
    """
    CREATE INDEX execution_parent ON noetl.execution (parent_execution_id, execution_id)
    WHERE parent_execution_id IS NOT NULL
    """,
)

CATALOG = (
    """
    CREATE TABLE noetl.catalog (
        catalog_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        path text NOT NULL,
        version integer NOT NULL,
        kind text NOT NULL,
        content text NOT NULL,
        layout jsonb,
        payload jsonb,
        meta jsonb NOT NULL DEFAULT '{}'::jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT catalog_path_version UNIQUE (path, version)
    )
    """,
)

SECRETS = (
    """
    CREATE TABLE noetl.credential (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text NOT NULL CONSTRAINT credential_name UNIQUE,
        type text NOT NULL,
        data_encrypted text NOT NULL,
        schema jsonb,
        meta jsonb,
        tags text[],
        description text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE noetl.keychain (
        cache_key text PRIMARY KEY,
        keychain_name text NOT NULL,
        catalog_id bigint NOT NULL REFERENCES noetl.catalog (catalog_id),
        credential_type text,
        cache_type text NOT NULL
            CONSTRAINT keychain_cache_type CHECK (cache_type IN ('secret', 'token')),
        scope_type text NOT NULL
            CONSTRAINT keychain_scope_type CHECK (scope_type IN ('local', 'global', 'shared')),
        execution_id bigint,
        parent_execution_id bigint,
        data_encrypted text NOT NULL,
        schema jsonb,
        expires_at timestamptz NOT NULL,
        created_at timestamptz NOT NULL DEFAULT now(),
        accessed_at timestamptz,
        access_count integer NOT NULL DEFAULT 0,
        auto_renew boolean NOT NULL DEFAULT false,
        renew_config jsonb
    )
    """,
    "CREATE INDEX keychain_expires ON noetl.keychain (expires_at)",
)

TRANSIENT = (
    """
    CREATE TABLE noetl.transient (
        execution_id bigint NOT NULL,
        var_name text NOT NULL,
        var_type text NOT NULL CONSTRAINT transient_var_type
            CHECK (var_type IN ('user_defined', 'step_result', 'computed', 'iterator_state')),
        var_value jsonb NOT NULL,
        source_step text,
        created_at timestamptz NOT NULL DEFAULT now(),
        accessed_at timestamptz,
        access_count integer NOT NULL DEFAULT 0,
        expires_at timestamptz,
        scope text NOT NULL DEFAULT 'execution' CONSTRAINT transient_scope
            CHECK (scope IN ('step', 'execution', 'workflow', 'permanent')),
        CONSTRAINT transient_pkey PRIMARY KEY (execution_id, var_name)
    )
    """,
)

RUNTIME = (
    """
    CREATE TABLE noetl.runtime (
        runtime_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        name text NOT NULL,
        kind text NOT NULL,
        uri text NOT NULL DEFAULT '',
        status text NOT NULL,
        labels jsonb NOT NULL DEFAULT '{}'::jsonb,
        capabilities jsonb,
        capacity integer,
        runtime jsonb NOT NULL DEFAULT '{}'::jsonb,
        heartbeat timestamptz NOT NULL DEFAULT clock_timestamp(),
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        CONSTRAINT runtime_kind_name UNIQUE (kind, name)
    )
    """,
)

SCHEDULE = (
    """
    CREATE TABLE noetl.schedule (
        schedule_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        playbook_path text NOT NULL,
        playbook_version integer,
        cron text,
        interval_seconds integer,
        enabled boolean NOT NULL DEFAULT true,
        timezone text NOT NULL DEFAULT 'UTC',
        next_run_at timestamptz,
        last_run_at timestamptz,
        last_status text,
        input_payload jsonb,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        meta jsonb,
        CONSTRAINT schedule_cron_or_interval CHECK (num_nonnulls(cron, interval_seconds) = 1)
    )
    """,
    "CREATE INDEX schedule_due ON noetl.schedule (next_run_at) WHERE enabled",
)

# For dashboards written against NoETL's column names.
EVENT_LOG = (
    """
    CREATE VIEW noetl.event_log AS
    SELECT execution_id, event_id, catalog_id, parent_execution_id, created_at,
           type AS event_type, step AS node_id, step AS node_name,
           payload ->> 'tool' AS node_type, status, duration_ms / 1000 AS duration,
           payload AS context, payload -> 'result' AS result, error,
           iteration AS current_index, worker AS worker_id, idempotency_key
    FROM noetl.event
    """,
)


def upgrade() -> None:
    groups = (EVENT, APPEND_ONLY, EXECUTION, CATALOG, SECRETS, TRANSIENT, RUNTIME, SCHEDULE)
    for statement in (statement for group in (*groups, EVENT_LOG) for statement in group):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("the log is never migrated backwards; restore a backup instead")
