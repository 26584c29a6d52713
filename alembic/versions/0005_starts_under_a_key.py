"""A key for starts that a client may repeat.

Revision: 0005, after 0004.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE UNIQUE INDEX event_u9_start_key ON noetl.event (idempotency_key)
        WHERE type = 'execution.started' AND idempotency_key IS NOT NULL
        """
    )


def downgrade() -> None:
    raise NotImplementedError("the log is never migrated backwards; restore a backup instead")
