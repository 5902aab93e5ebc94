"""Every table: the data dictionary. One package writes each table, named above it; any may read.

Ids are UUIDv7 text (`db/ids.py`). Instants are aware UTC datetimes in Python, `timestamptz` on PostgreSQL and
fixed-width RFC 3339 text on SQLite, so that text order is time order.
"""

import unicodedata
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.types import TypeDecorator, TypeEngine

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_TEXT_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime with microseconds."""

    impl = String(27)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(String(27))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        assert value.tzinfo is not None, "instants are aware"
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.strftime(_TEXT_FORMAT)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if dialect.name == "postgresql":
            return value.astimezone(UTC)  # type: ignore[no-any-return]
        return datetime.fromisoformat(value)  # Reads the Z as UTC, twenty times as fast as strptime.


class Bytes(LargeBinary):
    """Bytes, or in SQLite whatever somebody has put in their place: it is read as it is, to be shown as damaged."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """The drivers return bytes by themselves."""


Document = JSON().with_variant(JSONB(), "postgresql")
Seq = BigInteger().with_variant(Integer(), "sqlite")

# --- auth -----------------------------------------------------------------------------------------------------------


def fold_name(name: str) -> str:
    """The form in which two names of users are the same: compatibility characters and case do not count."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _fold_name_of_row(context: Any) -> str:
    return fold_name(context.get_current_parameters()["name"])


users = Table(
    "users",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False),
    # In SQL, lower() knows only ASCII on SQLite, and elsewhere depends on the locale.
    Column("name_folded", String(256), nullable=False, unique=True, default=_fold_name_of_row),
    Column("password_hash", Text),  # None: cannot log in with a password
    Column("role", String(16)),  # the global role; None: only what group grants give
    Column("created_at", Instant, nullable=False),
    Column("password_changed_at", Instant),
    Column("disabled_at", Instant),
    CheckConstraint("role in ('admin', 'operator', 'auditor', 'viewer')", name="role"),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(36), primary_key=True),  # public: shown to its user
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of the cookie's value
    Column("user_id", String(36), ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", Instant, nullable=False),
    Column("last_seen_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False, index=True),
    Column("ip", String(45)),
    Column("user_agent", String(256)),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),  # SHA-256 of the token
    Column("user_id", String(36), ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", String(128), nullable=False),
    Column("prefix", String(16), nullable=False),  # its first characters, to recognise it by
    Column("scopes", Document, nullable=False),  # a list of Scope
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("last_used_at", Instant),
    Column("revoked_at", Instant),
)

setup_tokens = Table(
    "setup_tokens",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("used_at", Instant),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("key", String(256), primary_key=True),  # who is slowed down; see auth/throttle.py
    Column("failures", Integer, nullable=False),
    Column("last_failed_at", Instant, nullable=False),
    Column("blocked_until", Instant),
)

# --- fleet ----------------------------------------------------------------------------------------------------------

servers = Table(
    "servers",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("host", String(255), nullable=False),  # "local": the machine of the console itself
    Column("port", Integer, nullable=False),
    Column("username", String(64), nullable=False),
    Column("auth", String(8), nullable=False),  # how to log in
    Column("credential_id", String(36), ForeignKey("ssh_credentials.id", ondelete="RESTRICT"), index=True),
    Column("jump_server_id", String(36), ForeignKey("servers.id", ondelete="RESTRICT"), index=True),
    Column("labels", Document, nullable=False),  # {name: value}, both text
    Column("capability", String(8), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("status", String(16), nullable=False),
    Column("status_reason", String(64)),  # a code of fleet/reasons.py
    Column("status_detail", Text),  # what the host or the network said, for a person
    Column("status_at", Instant),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    CheckConstraint("port between 1 and 65535", name="port"),
    CheckConstraint("auth in ('local', 'agent', 'key', 'password')", name="auth"),
    CheckConstraint("capability in ('observe', 'run', 'terminal')", name="capability"),
    CheckConstraint(
        "status in ('unknown', 'online', 'degraded', 'offline', 'host_key_changed', 'auth_failed')",
        name="status",
    ),
)

facts = Table(
    "facts",
    metadata,
    Column("server_id", String(36), ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
    Column("document", Document, nullable=False),  # os, kernel, architecture, cpus, memory, boot id …
    Column("found_at", Instant, nullable=False),
)

groups = Table(
    "groups",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("labels", Document, nullable=False),
    Column("created_at", Instant, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", String(36), ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column("server_id", String(36), ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True, index=True),
)

grants = Table(
    "grants",
    metadata,
    Column("group_id", String(36), ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", String(36), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True),
    Column("role", String(16), nullable=False),
    CheckConstraint("role in ('admin', 'operator', 'auditor', 'viewer')", name="role"),
)

# --- tasks ----------------------------------------------------------------------------------------------------------

TASK_STATES = (
    "awaiting_approval",
    "queued",
    "running",
    "success",
    "failed",
    "timeout",
    "cancelled",
    "interrupted",
    "rejected",
    "denied",
    "skipped",
)

# A run is what one request asked for: one command on some servers. It keeps the names of who and what it concerned,
# because it outlives them.
runs = Table(
    "runs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("command", Text, nullable=False),
    Column("shell", String(4), nullable=False),  # bash, or sh where the host has no bash
    Column("user_id", String(36), index=True),  # None: an administrative command on the console's machine
    Column("user_name", String(128), nullable=False),
    Column("token_id", String(36)),  # the API token that asked, if one did
    Column("request_id", String(128), nullable=False),
    Column("reason", Text),  # what the person gave as the reason
    Column("retry_of", String(36)),  # the run whose failed servers this one tries again
    Column("selector", Document, nullable=False),  # what was asked for: servers, groups, labels
    Column("verdict", Document, nullable=False),  # of the policy, at the time of the request
    Column("ruling", String(16), nullable=False),
    Column("digest", String(80), nullable=False),  # of command, shell, user and servers: what an approval is bound to
    Column("timeout_s", Integer, nullable=False),
    Column("max_parallel", Integer, nullable=False),
    Column("max_failures", Integer),  # more failed tasks than this stop the run; None: never
    Column("canary", Integer, nullable=False),  # so many servers first; the rest only when all of them succeed
    Column("store_output", Boolean, nullable=False),
    Column("secret_names", Document, nullable=False),  # names of variables whose values are secret
    Column("secrets", LargeBinary),  # their values, sealed by ssh/vault.py, until the run is over
    Column("secrets_key", String(16)),  # the master key that wraps them
    Column("tasks", Integer, nullable=False),
    Column("created_at", Instant, nullable=False, index=True),
    Column("expires_at", Instant),  # when nobody can approve it any more
    Column("decided_at", Instant),
    Column("decided_by", String(36)),
    Column("decided_name", String(128)),
    Column("decision", String(8)),  # approve, reject, expire
    Column("cancelled_at", Instant),
    Column("cancelled_name", String(128)),
    Column("finished_at", Instant),
    CheckConstraint("shell in ('bash', 'sh')", name="shell"),
    CheckConstraint("ruling in ('allow', 'needs_approval', 'deny')", name="ruling"),
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("run_id", String(36), ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),  # in its run, from 0
    Column("server_id", String(36), nullable=False),
    Column("server_name", String(128), nullable=False),
    Column("account", String(128), nullable=False, server_default=""),  # the server's when it was asked for
    Column("status", String(17), nullable=False),
    Column("cause", String(64)),  # why it ended as it did, as a code
    Column("detail", Text),  # the same in words, where there are any
    Column("mode", String(8)),  # wrapped; attached where the host has no directory for the wrapper
    Column("exit_code", Integer),
    Column("owner", String(36)),  # the instance that has claimed it
    Column("fence", Integer, nullable=False, server_default="0"),  # grows with each claim; an older one may not write
    Column("boot_id", String(64)),  # of the host, as known at the claim
    Column("requeued", Boolean, nullable=False, server_default="0"),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("cancel_requested_at", Instant),
    UniqueConstraint("run_id", "position"),
    CheckConstraint(f"status in {TASK_STATES!r}", name="status"),
    CheckConstraint("mode in ('wrapped', 'attached')", name="mode"),
)
# What is still to be done is found without looking at what has been done.
_OPEN = tasks.c.status.in_(("queued", "running"))
Index(
    "ix_tasks_open",
    tasks.c.status,
    tasks.c.run_id,
    tasks.c.position,
    sqlite_where=_OPEN,
    postgresql_where=_OPEN,
)
Index("ix_tasks_server_id", tasks.c.server_id, tasks.c.created_at)
Index("ix_tasks_created_at", tasks.c.created_at)

# What a task printed: the first bytes of each stream. Where there was more, a file holds it all; see tasks/output.py.
task_output = Table(
    "task_output",
    metadata,
    Column("task_id", String(36), ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("stdout", LargeBinary, nullable=False),
    Column("stderr", LargeBinary, nullable=False),
    Column("stdout_bytes", BigInteger, nullable=False),
    Column("stderr_bytes", BigInteger, nullable=False),
    Column("truncated", Boolean, nullable=False),  # bytes are missing even from the files
    Column("digest", LargeBinary(32), nullable=False),  # SHA-256 of exit code and both streams: equal outputs group
)
Index("ix_task_output_digest", task_output.c.digest)

# The one sign of life of all the tasks of an instance.
heartbeats = Table(
    "heartbeats",
    metadata,
    Column("owner", String(36), primary_key=True),
    Column("beat_at", Instant, nullable=False),
)

snippets = Table(
    "snippets",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("command", Text, nullable=False),  # with {{name}} where a parameter goes
    Column("parameters", Document, nullable=False),  # [{"name", "label", "default", "pattern"}]
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("updated_at", Instant, nullable=False),
)

# --- terminal -------------------------------------------------------------------------------------------------------

SESSION_STATES = ("active", "closed", "interrupted", "timeout", "stopped")

# A shell that somebody opened, and its recording. It keeps the names of who and what it concerned, and outlives them.
terminal_sessions = Table(
    "terminal_sessions",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("user_id", String(36), nullable=False, index=True),
    Column("user_name", String(128), nullable=False),
    Column("login_id", String(36)),  # the login it was opened in and ends with; None for an API token
    Column("token_id", String(36)),
    Column("server_id", String(36), nullable=False),
    Column("server_name", String(128), nullable=False),
    Column("account", String(128), nullable=False),  # on the server
    Column("groups", Document, nullable=False),  # of the server when it was opened: who may see this later
    Column("request_id", String(128), nullable=False),
    Column("reason", Text),  # what the person gave as the reason, or a ticket number
    Column("status", String(12), nullable=False),
    Column("cause", String(64)),  # why it ended as it did, as a code
    Column("owner", String(36)),  # the instance that holds the shell
    Column("ticket", LargeBinary(32)),  # SHA-256 of the one ticket that opens the socket next; None once it was used
    Column("ticket_expires_at", Instant),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),  # of the shell; None as long as nobody has redeemed the ticket
    Column("finished_at", Instant),
    Column("recording", String(12), nullable=False),  # what can be said of the file
    Column("recording_bytes", BigInteger, nullable=False, server_default="0"),  # of the file
    Column("output_bytes", BigInteger, nullable=False, server_default="0"),  # that the shell printed
    Column("chunks", Integer, nullable=False, server_default="0"),
    Column("head", LargeBinary(32)),  # of the chain of chunks
    Column("verified_at", Instant),
    Column("archived_at", Instant),
    CheckConstraint(f"status in {SESSION_STATES!r}", name="status"),
    CheckConstraint(
        "recording in ('open', 'unverified', 'verified', 'damaged', 'missing', 'archived')", name="recording"
    ),
)
_ACTIVE = terminal_sessions.c.status == "active"
Index(
    "ix_terminal_sessions_active",
    terminal_sessions.c.status,
    terminal_sessions.c.owner,
    sqlite_where=_ACTIVE,
    postgresql_where=_ACTIVE,
)
Index("ix_terminal_sessions_created_at", terminal_sessions.c.created_at)
Index("ix_terminal_sessions_server_id", terminal_sessions.c.server_id, terminal_sessions.c.created_at)

# --- ssh ------------------------------------------------------------------------------------------------------------

ssh_credentials = Table(
    "ssh_credentials",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("kind", String(8), nullable=False),  # a private key that several servers may share, or one password
    Column("key_type", String(64)),  # such as ssh-ed25519
    Column("fingerprint", String(64)),
    Column("public_key", Text),
    Column("sealed", LargeBinary, nullable=False),  # see ssh/vault.py
    Column("wrapped_by", String(16), nullable=False),  # id of the master key that wraps it
    Column("created_at", Instant, nullable=False),
    CheckConstraint("kind in ('key', 'password')", name="kind"),
)

host_keys = Table(
    "host_keys",
    metadata,
    Column("server_id", String(36), ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),  # SHA256:…
    Column("key_type", String(64), nullable=False),
    Column("public_key", Text, nullable=False),  # one OpenSSH line
    Column("state", String(8), nullable=False),  # pinned: accepted by a person; offered: seen, not accepted
    Column("seen_at", Instant, nullable=False),
    Column("pinned_at", Instant),
    Column("pinned_by", String(128)),
    CheckConstraint("state in ('pinned', 'offered')", name="state"),
)

# --- audit ----------------------------------------------------------------------------------------------------------

audit_records = Table(
    "audit_records",
    metadata,
    Column("seq", Seq, primary_key=True, autoincrement=False),  # leaf index, from 0, without a gap
    Column("body", Bytes, nullable=False),  # canonical bytes: what is hashed; see audit/chain.py
    # Derived from `body`, for searching. The verifier compares them with it.
    Column("id", String(36), nullable=False),
    Column("ts", Instant, nullable=False),
    Column("action", String(64), nullable=False),
    Column("actor_id", String(36)),
    Column("actor_name", String(128), nullable=False),
    Column("target_type", String(32)),
    Column("target_id", String(128)),
    Column("outcome", String(16)),
    Column("ip", String(45)),
    Column("request_id", String(128)),
    UniqueConstraint("id"),
)
Index("ix_audit_records_ts", audit_records.c.ts)
Index("ix_audit_records_action", audit_records.c.action, audit_records.c.seq)
Index("ix_audit_records_actor_id", audit_records.c.actor_id, audit_records.c.seq)
Index("ix_audit_records_target", audit_records.c.target_type, audit_records.c.target_id, audit_records.c.seq)

audit_head = Table(
    "audit_head",
    metadata,
    Column("one", Integer, primary_key=True),  # always 1: the only row
    Column("size", Seq, nullable=False),  # how many records there have ever been
    Column("frontier", LargeBinary, nullable=False),  # 32-byte roots of the complete subtrees, largest first
    Column("min_index", Seq, nullable=False, server_default="0"),  # the first record that has not been pruned
    Column("prefix", LargeBinary),  # the frontier of what has been pruned; None while nothing has
    Column("epoch", Integer, nullable=False, server_default="1"),  # part of the log's name; see audit/checkpoints.py
    CheckConstraint("one = 1", name="one"),
)

# Roots of complete subtrees of 2^8, 2^16, … leaves: what makes a proof cheap in a log of millions.
audit_nodes = Table(
    "audit_nodes",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("idx", Seq, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("size", Seq, nullable=False, index=True),
    Column("root", Bytes(32), nullable=False),
    Column("note", Text, nullable=False),  # the signed note; see audit/note.py
    Column("made_at", Instant, nullable=False),
    Column("why", String(32), nullable=False),  # grown, quiet, start, stop, critical, archive, key
    Column("anchored_at", Instant),  # when it had left the house
)

audit_segments = Table(
    "audit_segments",
    metadata,
    Column("first_seq", Seq, primary_key=True, autoincrement=False),
    Column("end_seq", Seq, nullable=False),  # the first record that is not in it
    Column("state", String(8), nullable=False),  # sealed, uploaded, verified, pruned
    Column("place", Text, nullable=False),  # the archive's URL, without credentials
    Column("key", Text, nullable=False),  # the object's name in it
    Column("version", Text),  # the object's version, where the store has them
    Column("sha256", Bytes(32), nullable=False),
    Column("root", Bytes(32), nullable=False),  # of the tree of end_seq leaves
    Column("size_bytes", BigInteger, nullable=False),
    Column("oldest_at", Instant, nullable=False),
    Column("newest_at", Instant, nullable=False),
    Column("sealed_at", Instant, nullable=False),
    Column("verified_at", Instant),
    Column("pruned_at", Instant),
    Column("lock_mode", String(16)),  # how the store locked it when it was last read back; None: not, or unknown
    Column("locked_until", Instant),
    CheckConstraint("state in ('sealed', 'uploaded', 'verified', 'pruned')", name="state"),
)

audit_holds = Table(
    "audit_holds",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("reason", Text, nullable=False),
    Column("filters", Document, nullable=False),  # the export's filters; {} holds everything
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("released_at", Instant),
)

# Present only inside the transaction that prunes: the triggers let go of records below `below`.
audit_prune_ticket = Table(
    "audit_prune_ticket",
    metadata,
    Column("one", Integer, primary_key=True),
    Column("below", Seq, nullable=False),
    CheckConstraint("one = 1", name="one"),
)
