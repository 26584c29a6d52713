"""Where a credential may be used, and what steps print.

Revision: 0003, after 0002.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

STEP_LOG = (
    """
    CREATE TABLE noetl.step_log (
        execution_id bigint NOT NULL,
        step text NOT NULL,
        visit integer NOT NULL,
        iteration integer NOT NULL,
        attempt integer NOT NULL,
        chunk integer NOT NULL,
        id bigint GENERATED ALWAYS AS IDENTITY,
        stream text NOT NULL
            CONSTRAINT step_log_stream CHECK (stream IN ('stdout', 'stderr')),
        text text NOT NULL,
        created_at timestamptz NOT NULL,
        CONSTRAINT step_log_pkey
            PRIMARY KEY (execution_id, step, visit, iteration, attempt, chunk)
    )
    """,
    "CREATE INDEX step_log_tail ON noetl.step_log (execution_id, id)",
)

KEYCHAIN_LEASE = (
    """
    CREATE TABLE noetl.keychain_lease (
        cache_key text NOT NULL CONSTRAINT keychain_lease_pkey PRIMARY KEY,
        holder text NOT NULL,
        until timestamptz NOT NULL
    )
    """,
    "CREATE INDEX keychain_lease_until ON noetl.keychain_lease (until)",
    "CREATE INDEX keychain_catalog ON noetl.keychain (catalog_id, keychain_name)",
)


def upgrade() -> None:
    op.execute("ALTER TABLE noetl.credential ADD COLUMN scope JSONB")
    for statement in (*STEP_LOG, *KEYCHAIN_LEASE):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("the log is never migrated backwards; restore a backup instead")
