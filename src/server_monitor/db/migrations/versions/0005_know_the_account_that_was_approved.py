"""The account for which each task was asked. Tasks from before have none, and no approval of theirs holds."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tasks", sa.Column("account", sa.String(length=128), server_default="", nullable=False))
