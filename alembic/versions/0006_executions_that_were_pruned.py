"""Executions that are gone, and of which something may be left outside of the log.

Revision: 0006, after 0005.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE noetl.pruned (
            execution_id bigint PRIMARY KEY,
            pruned_at timestamptz NOT NULL DEFAULT clock_timestamp()
        )
        """
    )


def downgrade() -> None:
    raise NotImplementedError("the log is never migrated backwards; restore a backup instead")
