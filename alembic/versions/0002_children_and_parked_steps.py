"""A key for sub-playbooks, and parked steps among the fences.

Revision: 0002, after 0001.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

FENCES = "'attempt.failed', 'attempt.expired', 'attempt.interrupted', 'step.parked'"
KEY = "execution_id, step, visit, iteration"


def upgrade() -> None:
    op.execute("DROP INDEX noetl.event_fences")
    op.execute(
        f"CREATE INDEX event_fences ON noetl.event ({KEY}, attempt) WHERE type IN ({FENCES})"
    )
    op.execute(
        f"""
        CREATE UNIQUE INDEX event_u8_child ON noetl.event ({KEY}, attempt, type)
        WHERE type IN ('child.started', 'child.ended')
        """
    )


def downgrade() -> None:
    raise NotImplementedError("the log is never migrated backwards; restore a backup instead")
