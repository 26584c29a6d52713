"""When an execution was paused, in the list of executions.

Revision: 0004, after 0003.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE noetl.execution ADD COLUMN paused_at timestamptz")


def downgrade() -> None:
    raise NotImplementedError("the log is never migrated backwards; restore a backup instead")
