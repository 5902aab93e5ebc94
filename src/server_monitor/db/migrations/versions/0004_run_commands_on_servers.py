"""Runs, tasks and their output: commands on servers."""

import sqlalchemy as sa
from alembic import op

from server_monitor.db.tables import Document, Instant

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "heartbeats",
        sa.Column("owner", sa.String(length=36), nullable=False),
        sa.Column("beat_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_heartbeats")),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("shell", sa.String(length=4), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=True),
        sa.Column("user_name", sa.String(length=128), nullable=False),
        sa.Column("token_id", sa.String(length=36), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("retry_of", sa.String(length=36), nullable=True),
        sa.Column("selector", Document, nullable=False),
        sa.Column("verdict", Document, nullable=False),
        sa.Column("ruling", sa.String(length=16), nullable=False),
        sa.Column("digest", sa.String(length=80), nullable=False),
        sa.Column("timeout_s", sa.Integer(), nullable=False),
        sa.Column("max_parallel", sa.Integer(), nullable=False),
        sa.Column("max_failures", sa.Integer(), nullable=True),
        sa.Column("canary", sa.Integer(), nullable=False),
        sa.Column("store_output", sa.Boolean(), nullable=False),
        sa.Column("secret_names", Document, nullable=False),
        sa.Column("secrets", sa.LargeBinary(), nullable=True),
        sa.Column("secrets_key", sa.String(length=16), nullable=True),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=True),
        sa.Column("decided_at", Instant(), nullable=True),
        sa.Column("decided_by", sa.String(length=36), nullable=True),
        sa.Column("decided_name", sa.String(length=128), nullable=True),
        sa.Column("decision", sa.String(length=8), nullable=True),
        sa.Column("cancelled_at", Instant(), nullable=True),
        sa.Column("cancelled_name", sa.String(length=128), nullable=True),
        sa.Column("finished_at", Instant(), nullable=True),
        sa.CheckConstraint("ruling in ('allow', 'needs_approval', 'deny')", name=op.f("ck_runs_ruling")),
        sa.CheckConstraint("shell in ('bash', 'sh')", name=op.f("ck_runs_shell")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_created_at"), "runs", ["created_at"], unique=False)
    op.create_index(op.f("ix_runs_user_id"), "runs", ["user_id"], unique=False)
    op.create_table(
        "snippets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("parameters", Document, nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snippets")),
        sa.UniqueConstraint("name", name=op.f("uq_snippets_name")),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("server_name", sa.String(length=128), nullable=False),
        sa.Column("status", sa.String(length=17), nullable=False),
        sa.Column("cause", sa.String(length=64), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True),
        sa.Column("mode", sa.String(length=8), nullable=True),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("owner", sa.String(length=36), nullable=True),
        sa.Column("fence", sa.Integer(), server_default="0", nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=True),
        sa.Column("requeued", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("started_at", Instant(), nullable=True),
        sa.Column("finished_at", Instant(), nullable=True),
        sa.Column("cancel_requested_at", Instant(), nullable=True),
        sa.CheckConstraint("mode in ('wrapped', 'attached')", name=op.f("ck_tasks_mode")),
        sa.CheckConstraint(
            "status in ('awaiting_approval', 'queued', 'running', 'success', 'failed', 'timeout', 'cancelled', "
            "'interrupted', 'rejected', 'denied', 'skipped')",
            name=op.f("ck_tasks_status"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_tasks_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
        sa.UniqueConstraint("run_id", "position", name=op.f("uq_tasks_run_id")),
    )
    op.create_index("ix_tasks_created_at", "tasks", ["created_at"], unique=False)
    op.create_index(
        "ix_tasks_open",
        "tasks",
        ["status", "run_id", "position"],
        unique=False,
        sqlite_where=sa.text("status IN ('queued', 'running')"),
        postgresql_where=sa.text("status IN ('queued', 'running')"),
    )
    op.create_index("ix_tasks_server_id", "tasks", ["server_id", "created_at"], unique=False)
    op.create_table(
        "task_output",
        sa.Column("task_id", sa.String(length=36), nullable=False),
        sa.Column("stdout", sa.LargeBinary(), nullable=False),
        sa.Column("stderr", sa.LargeBinary(), nullable=False),
        sa.Column("stdout_bytes", sa.BigInteger(), nullable=False),
        sa.Column("stderr_bytes", sa.BigInteger(), nullable=False),
        sa.Column("truncated", sa.Boolean(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_task_output_task_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task_output")),
    )
    op.create_index("ix_task_output_digest", "task_output", ["digest"], unique=False)
