"""Checkpoints, archive, holds and pruning of the audit log."""

import sqlalchemy as sa
from alembic import op

from server_monitor.db.tables import Document, Instant, Seq

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


# From now on a record may go, but only below the mark that a pruning transaction has set for itself.
_GUARDS = {
    "sqlite": (
        "DROP TRIGGER audit_records_are_never_deleted",
        """CREATE TRIGGER audit_records_are_only_pruned BEFORE DELETE ON audit_records
           WHEN NOT EXISTS (SELECT 1 FROM audit_prune_ticket WHERE OLD.seq < below)
           BEGIN SELECT RAISE(ABORT, 'audit records are never deleted'); END""",
    ),
    "postgresql": (
        "DROP TRIGGER audit_records_are_never_changed ON audit_records",
        """CREATE TRIGGER audit_records_are_never_changed BEFORE UPDATE OR TRUNCATE ON audit_records
           FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()""",
        """CREATE FUNCTION refuse_audit_deletion() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN
             IF EXISTS (SELECT 1 FROM audit_prune_ticket WHERE OLD.seq < below) THEN RETURN OLD; END IF;
             RAISE EXCEPTION 'audit records are never deleted';
           END $$""",
        """CREATE TRIGGER audit_records_are_only_pruned BEFORE DELETE ON audit_records
           FOR EACH ROW EXECUTE FUNCTION refuse_audit_deletion()""",
    ),
}


def upgrade() -> None:
    op.create_table(
        "audit_checkpoints",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("size", Seq, nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("made_at", Instant(), nullable=False),
        sa.Column("why", sa.String(length=32), nullable=False),
        sa.Column("anchored_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_checkpoints")),
    )
    op.create_index(op.f("ix_audit_checkpoints_size"), "audit_checkpoints", ["size"], unique=False)
    op.create_table(
        "audit_holds",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("filters", Document, nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("released_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_holds")),
        sa.UniqueConstraint("name", name=op.f("uq_audit_holds_name")),
    )
    op.create_table(
        "audit_nodes",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("idx", Seq, autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("level", "idx", name=op.f("pk_audit_nodes")),
    )
    op.create_table(
        "audit_prune_ticket",
        sa.Column("one", sa.Integer(), nullable=False),
        sa.Column("below", Seq, nullable=False),
        sa.CheckConstraint("one = 1", name=op.f("ck_audit_prune_ticket_one")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_audit_prune_ticket")),
    )
    op.create_table(
        "audit_segments",
        sa.Column("first_seq", Seq, autoincrement=False, nullable=False),
        sa.Column("end_seq", Seq, nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("oldest_at", Instant(), nullable=False),
        sa.Column("newest_at", Instant(), nullable=False),
        sa.Column("sealed_at", Instant(), nullable=False),
        sa.Column("verified_at", Instant(), nullable=True),
        sa.Column("pruned_at", Instant(), nullable=True),
        sa.CheckConstraint(
            "state in ('sealed', 'uploaded', 'verified', 'pruned')", name=op.f("ck_audit_segments_state")
        ),
        sa.PrimaryKeyConstraint("first_seq", name=op.f("pk_audit_segments")),
    )
    op.add_column("audit_head", sa.Column("min_index", Seq, server_default="0", nullable=False))
    op.add_column("audit_head", sa.Column("prefix", sa.LargeBinary(), nullable=True))
    op.add_column("audit_head", sa.Column("epoch", sa.Integer(), server_default="1", nullable=False))
    for statement in _GUARDS[op.get_bind().dialect.name]:
        op.execute(statement)
