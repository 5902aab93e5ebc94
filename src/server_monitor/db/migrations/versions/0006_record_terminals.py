"""Terminal sessions and their recordings."""

import sqlalchemy as sa
from alembic import op

from server_monitor.db.tables import Document, Instant

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "terminal_sessions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("user_name", sa.String(length=128), nullable=False),
        sa.Column("login_id", sa.String(length=36), nullable=True),
        sa.Column("token_id", sa.String(length=36), nullable=True),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("server_name", sa.String(length=128), nullable=False),
        sa.Column("account", sa.String(length=128), nullable=False),
        sa.Column("groups", Document, nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("cause", sa.String(length=64), nullable=True),
        sa.Column("owner", sa.String(length=36), nullable=True),
        sa.Column("ticket", sa.LargeBinary(length=32), nullable=True),
        sa.Column("ticket_expires_at", Instant(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("started_at", Instant(), nullable=True),
        sa.Column("finished_at", Instant(), nullable=True),
        sa.Column("recording", sa.String(length=12), nullable=False),
        sa.Column("recording_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("output_bytes", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("chunks", sa.Integer(), server_default="0", nullable=False),
        sa.Column("head", sa.LargeBinary(length=32), nullable=True),
        sa.Column("verified_at", Instant(), nullable=True),
        sa.Column("archived_at", Instant(), nullable=True),
        sa.CheckConstraint(
            "status in ('active', 'closed', 'interrupted', 'timeout', 'stopped')",
            name=op.f("ck_terminal_sessions_status"),
        ),
        sa.CheckConstraint(
            "recording in ('open', 'unverified', 'verified', 'damaged', 'missing', 'archived')",
            name=op.f("ck_terminal_sessions_recording"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_terminal_sessions")),
    )
    op.create_index(
        "ix_terminal_sessions_active",
        "terminal_sessions",
        ["status", "owner"],
        unique=False,
        sqlite_where=sa.text("status = 'active'"),
        postgresql_where=sa.text("status = 'active'"),
    )
    op.create_index("ix_terminal_sessions_created_at", "terminal_sessions", ["created_at"], unique=False)
    op.create_index("ix_terminal_sessions_user_id", "terminal_sessions", ["user_id"], unique=False)
    op.create_index("ix_terminal_sessions_server_id", "terminal_sessions", ["server_id", "created_at"], unique=False)
