"""How the archive's store locks each segment of the audit log."""

import sqlalchemy as sa
from alembic import op

from server_monitor.db.tables import Instant

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit_segments", sa.Column("lock_mode", sa.String(length=16), nullable=True))
    op.add_column("audit_segments", sa.Column("locked_until", Instant(), nullable=True))
