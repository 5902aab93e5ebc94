"""Signed checkpoints: made when there is news, after every critical record, and hourly when there is none.

The signing key is made at the first start and kept outside the database, in `DATA_DIR/audit/signing_key`, mode 0600.
Whoever holds the public key, which an auditor pins, needs neither account nor database to check what was signed.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import note, tree
from server_monitor.audit.note import Checkpoint, Verifier
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_checkpoints, audit_head
from server_monitor.errors import Invalid, Unavailable

RECORDS = 1000  # a checkpoint is due after so many new records
NEWS = timedelta(seconds=60)  # or so long after the last one when there are any
QUIET = timedelta(hours=1)  # or so long in any case
NOTES_READ = 20  # the newest: one of them is well-formed, whatever was done to the others
_RESTORE = (
    "Restore DATA_DIR/audit/signing_key and DATA_DIR/instance_id from the backup; see "
    "docs/how-to/keep-the-audit-log.md, The signing key."
)
_STORED = select(
    *(audit_checkpoints.c[name] for name in ("size", "root", "note", "made_at", "why", "anchored_at")),
)

# After these, what the log says must not be deniable for even a minute.
CRITICAL = frozenset(
    {
        "audit.archive",
        "audit.cleanup",
        "audit.export",
        "audit.export_finished",
        "audit.hold",
        "audit.repair",
        "group.grant",
        "host_key.changed",
        "settings.setup",
        "user.create",
        "user.delete",
        "user.update",
    }
)


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one installation."""

    node: str
    key: Ed25519PrivateKey

    def origin(self, epoch: int) -> str:
        """The name of the log. A log continued after a rollback gets another epoch, and so a name."""
        return f"{self.node}/server-monitor/audit/{epoch}"

    def verifier(self, epoch: int) -> Verifier:
        return note.verifier_of(self.origin(epoch), self.key)


@dataclass(frozen=True, slots=True)
class Made:
    """A checkpoint as it is stored."""

    size: int
    root: bytes
    note: str
    made_at: datetime
    why: str
    anchored_at: datetime | None


async def open_signer(db: Database, data_dir: Path) -> Signer:
    """The key that has signed this log so far; made when nothing has been signed yet.

    Raises Unavailable when it is not there, or is another one: a new key in its place would look like a forger's.
    """
    async with db.reading() as conn:
        c = audit_checkpoints.c
        found = select(c.note).order_by(c.size.desc(), c.made_at.desc()).limit(NOTES_READ)
        notes = [text for text in (await conn.execute(found)).scalars() if _origin(text) is not None]
    path = _key_path(data_dir)
    if notes and not path.exists():
        raise Unavailable(f"The key that signed the audit log is gone: {path} does not exist. {_RESTORE}")
    signer = load_signer(data_dir, db.node)
    if notes and not _has_signed(signer, notes[0]):
        raise Unavailable(f"The key in {path} is not the one that signed the audit log in this database. {_RESTORE}")
    return signer


def load_signer(data_dir: Path, node: str) -> Signer:
    """The installation's signing key; made when there is none. Raises Unavailable when it cannot be read."""
    path = _key_path(data_dir)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            _write_key(path)
        encoded = path.read_text().strip()
        return Signer(node, Ed25519PrivateKey.from_private_bytes(bytes.fromhex(encoded)))
    except (OSError, ValueError) as error:
        raise Unavailable(f"The audit log's signing key {path} cannot be read; restore it from a backup.") from error


def why_due(newest: Made | None, size: int, actions: Collection[str], now: datetime) -> str | None:
    """Why a checkpoint of a log of `size` records is due, if it is; `actions` are those since the newest one."""
    if newest is None:
        return "start"
    age = now - newest.made_at
    if age < timedelta():
        age = QUIET  # It is dated in the future: the clock was put back, and says nothing about its age.
    if size == newest.size:
        return "quiet" if age >= QUIET else None
    if not CRITICAL.isdisjoint(actions):
        return "critical"
    return "grown" if size - newest.size >= RECORDS or age >= NEWS else None


async def make(conn: AsyncConnection, signer: Signer, why: str, now: datetime) -> Made:
    """Sign the log as it stands and keep the note. In a transaction of its own: it sees what is committed."""
    head = (await conn.execute(select(audit_head.c.size, audit_head.c.frontier, audit_head.c.epoch))).one()
    checkpoint = Checkpoint(signer.origin(head.epoch), head.size, tree.root(tree.split(head.frontier)))
    signed = note.sign(checkpoint, {checkpoint.origin: signer.key})
    made = Made(checkpoint.size, checkpoint.root, signed, now, why, None)
    # The same log makes the same note. One that the clock dated in the future would stay the newest until then.
    c = audit_checkpoints.c
    await conn.execute(delete(audit_checkpoints).where(c.size == made.size, c.note == made.note, c.made_at > now))
    await conn.execute(
        insert(audit_checkpoints).values(
            id=new_id(), size=made.size, root=made.root, note=made.note, made_at=made.made_at, why=made.why
        )
    )
    return made


async def newest(conn: AsyncConnection) -> Made | None:
    """The newest checkpoint: of the largest log, whatever the clock said when it was signed."""
    c = audit_checkpoints.c
    found = (await conn.execute(_STORED.order_by(c.size.desc(), c.made_at.desc()).limit(1))).one_or_none()
    return None if found is None else Made(*found)


async def covering(conn: AsyncConnection, size: int) -> Made | None:
    """The smallest checkpoint of a tree of at least `size` records."""
    found = _STORED.where(audit_checkpoints.c.size >= size).order_by(audit_checkpoints.c.size).limit(1)
    row = (await conn.execute(found)).one_or_none()
    return None if row is None else Made(*row)


def _key_path(data_dir: Path) -> Path:
    return data_dir / "audit" / "signing_key"


def _origin(text: str) -> str | None:
    """Whose checkpoint it is; None when it is none, which is for `audit verify` to say."""
    try:
        return note.read(text)[0].origin
    except Invalid:
        return None


def _has_signed(signer: Signer, text: str) -> bool:
    origin = _origin(text)
    try:
        return origin is not None and bool(note.open_note(text, [note.verifier_of(origin, signer.key)]))
    except Invalid:
        return False


def _write_key(path: Path) -> None:
    """Write a new key whole or not at all."""
    half = path.with_suffix(".new")
    half.unlink(missing_ok=True)
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(Ed25519PrivateKey.generate().private_bytes_raw().hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    half.rename(path)
