"""The first schema."""

import sqlalchemy as sa
from alembic import op

from server_monitor.db.tables import Document, Instant, Seq

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# Guards against our own mistakes, not against whoever holds the file: that is what proofs are for.
_GUARDS = {
    "sqlite": (
        """CREATE TRIGGER audit_records_are_never_changed BEFORE UPDATE ON audit_records
           BEGIN SELECT RAISE(ABORT, 'audit records are never changed'); END""",
        """CREATE TRIGGER audit_records_are_never_deleted BEFORE DELETE ON audit_records
           BEGIN SELECT RAISE(ABORT, 'audit records are never deleted'); END""",
    ),
    "postgresql": (
        """CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'audit records are never changed or deleted'; END $$""",
        """CREATE TRIGGER audit_records_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_records
           FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()""",
    ),
}


def upgrade() -> None:
    op.create_table(
        "audit_head",
        sa.Column("one", sa.Integer(), nullable=False),
        sa.Column("size", Seq, nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("one = 1", name=op.f("ck_audit_head_one")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "audit_records",
        sa.Column("seq", Seq, autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("ts", Instant(), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("actor_id", sa.String(length=36), nullable=True),
        sa.Column("actor_name", sa.String(length=128), nullable=False),
        sa.Column("target_type", sa.String(length=32), nullable=True),
        sa.Column("target_id", sa.String(length=128), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("ip", sa.String(length=45), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_records")),
        sa.UniqueConstraint("id", name=op.f("uq_audit_records_id")),
    )
    op.create_index("ix_audit_records_action", "audit_records", ["action", "seq"], unique=False)
    op.create_index("ix_audit_records_actor_id", "audit_records", ["actor_id", "seq"], unique=False)
    op.create_index("ix_audit_records_target", "audit_records", ["target_type", "target_id", "seq"], unique=False)
    op.create_index("ix_audit_records_ts", "audit_records", ["ts"], unique=False)
    op.create_table(
        "groups",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("labels", Document, nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("name", name=op.f("uq_groups_name")),
    )
    op.create_table(
        "login_failures",
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_failed_at", Instant(), nullable=False),
        sa.Column("blocked_until", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_failures")),
    )
    op.create_table(
        "setup_tokens",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("used_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_setup_tokens")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_setup_tokens_secret_hash")),
    )
    op.create_table(
        "ssh_credentials",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("key_type", sa.String(length=64), nullable=True),
        sa.Column("fingerprint", sa.String(length=64), nullable=True),
        sa.Column("public_key", sa.Text(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped_by", sa.String(length=16), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.CheckConstraint("kind in ('key', 'password')", name=op.f("ck_ssh_credentials_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ssh_credentials")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("name_folded", sa.String(length=256), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=True),
        sa.Column("role", sa.String(length=16), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("password_changed_at", Instant(), nullable=True),
        sa.Column("disabled_at", Instant(), nullable=True),
        sa.CheckConstraint("role in ('admin', 'operator', 'auditor', 'viewer')", name=op.f("ck_users_role")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name_folded", name=op.f("uq_users_name_folded")),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("prefix", sa.String(length=16), nullable=False),
        sa.Column("scopes", Document, nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=True),
        sa.Column("last_used_at", Instant(), nullable=True),
        sa.Column("revoked_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_tokens_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_api_tokens_secret_hash")),
    )
    op.create_index(op.f("ix_api_tokens_user_id"), "api_tokens", ["user_id"], unique=False)
    op.create_table(
        "grants",
        sa.Column("group_id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.CheckConstraint("role in ('admin', 'operator', 'auditor', 'viewer')", name=op.f("ck_grants_role")),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name=op.f("fk_grants_group_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_grants_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("group_id", "user_id", name=op.f("pk_grants")),
    )
    op.create_index(op.f("ix_grants_user_id"), "grants", ["user_id"], unique=False)
    op.create_table(
        "servers",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("auth", sa.String(length=8), nullable=False),
        sa.Column("credential_id", sa.String(length=36), nullable=True),
        sa.Column("jump_server_id", sa.String(length=36), nullable=True),
        sa.Column("labels", Document, nullable=False),
        sa.Column("capability", sa.String(length=8), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("status_reason", sa.String(length=64), nullable=True),
        sa.Column("status_detail", sa.Text(), nullable=True),
        sa.Column("status_at", Instant(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("updated_at", Instant(), nullable=False),
        sa.CheckConstraint("auth in ('local', 'agent', 'key', 'password')", name=op.f("ck_servers_auth")),
        sa.CheckConstraint("capability in ('observe', 'run', 'terminal')", name=op.f("ck_servers_capability")),
        sa.CheckConstraint(
            "status in ('unknown', 'online', 'degraded', 'offline', 'host_key_changed', 'auth_failed')",
            name=op.f("ck_servers_status"),
        ),
        sa.CheckConstraint("port between 1 and 65535", name=op.f("ck_servers_port")),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["ssh_credentials.id"], name=op.f("fk_servers_credential_id"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["jump_server_id"], ["servers.id"], name=op.f("fk_servers_jump_server_id"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_servers")),
        sa.UniqueConstraint("name", name=op.f("uq_servers_name")),
    )
    op.create_index(op.f("ix_servers_credential_id"), "servers", ["credential_id"], unique=False)
    op.create_index(op.f("ix_servers_jump_server_id"), "servers", ["jump_server_id"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_seen_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("ip", sa.String(length=45), nullable=True),
        sa.Column("user_agent", sa.String(length=256), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sessions_user_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_sessions_secret_hash")),
    )
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"], unique=False)
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"], unique=False)
    op.create_table(
        "facts",
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("document", Document, nullable=False),
        sa.Column("found_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_facts_server_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_facts")),
    )
    op.create_table(
        "group_members",
        sa.Column("group_id", sa.String(length=36), nullable=False),
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_group_members_group_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_group_members_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("group_id", "server_id", name=op.f("pk_group_members")),
    )
    op.create_index(op.f("ix_group_members_server_id"), "group_members", ["server_id"], unique=False)
    op.create_table(
        "host_keys",
        sa.Column("server_id", sa.String(length=36), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("key_type", sa.String(length=64), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("seen_at", Instant(), nullable=False),
        sa.Column("pinned_at", Instant(), nullable=True),
        sa.Column("pinned_by", sa.String(length=128), nullable=True),
        sa.CheckConstraint("state in ('pinned', 'offered')", name=op.f("ck_host_keys_state")),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_host_keys_server_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("server_id", "fingerprint", name=op.f("pk_host_keys")),
    )
    op.execute(sa.text("INSERT INTO audit_head (one, size, frontier) VALUES (1, 0, :nothing)").bindparams(nothing=b""))
    for statement in _GUARDS[op.get_bind().dialect.name]:
        op.execute(statement)
