"""Checkpoints leave the house: to a file that is only ever appended to, and to the archive.

Without one of them nobody can tell an older copy of the database from the newest. See docs/decisions/audit-anchors.md.
"""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import checkpoints, note, proofs
from server_monitor.audit.archive import Archive
from server_monitor.audit.checkpoints import Made, Signer
from server_monitor.audit.note import Checkpoint
from server_monitor.audit.segment import split_notes
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_checkpoints, audit_head
from server_monitor.errors import Invalid, Unavailable
from server_monitor.telemetry.logs import logger

LOOK_EVERY_S = 1.0
STORE_EVERY = timedelta(seconds=60)
PREFIX = "checkpoints"
_TAIL_BYTES = 256 * 1024  # hundreds of notes: the newest readable one is among them

_log = logger(__name__)


class Anchors:
    """Hands each new checkpoint out. `archive` is None where it is not outside of the data directory."""

    def __init__(self, db: Database, file: Path | None, archive: Archive | None) -> None:
        self._db = db
        self._file = file
        self._archive = archive
        self._stored_at = datetime.min.replace(tzinfo=UTC)
        self._stored_size = -1

    @property
    def is_any(self) -> bool:
        return self._file is not None or self._archive is not None

    async def run(self) -> None:
        while self.is_any:
            try:
                await self.look(datetime.now(UTC))
            except Unavailable as error:
                _log.warning("checkpoint_not_anchored", cause=str(error))
                await asyncio.sleep(30 * LOOK_EVERY_S)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, now: datetime) -> None:
        """Hand out the newest checkpoint where it has not been yet. Raises Unavailable."""
        async with self._db.reading() as conn:
            newest = await checkpoints.newest(conn)
        if newest is None:
            return
        if self._file is not None and newest.anchored_at is None:
            await asyncio.to_thread(append, self._file, newest.note)
            await self._mark(newest, now)
        if self._archive is not None and newest.size != self._stored_size and now - self._stored_at >= STORE_EVERY:
            origin = note.read(newest.note)[0].origin
            key = f"{origin}/{PREFIX}/{newest.size:012}-{newest.root.hex()[:16]}.txt"
            await self._archive.put(key, newest.note.encode())
            self._stored_at, self._stored_size = now, newest.size
            await self._mark(newest, now)

    async def _mark(self, made: Made, now: datetime) -> None:
        c = audit_checkpoints.c
        async with self._db.transaction() as conn:
            await conn.execute(
                update(audit_checkpoints)
                .where(c.size == made.size, c.made_at == made.made_at, c.anchored_at.is_(None))
                .values(anchored_at=now)
            )


async def anchored_size(conn: AsyncConnection) -> int:
    """The size of the largest checkpoint that has left the house; 0 when none has."""
    c = audit_checkpoints.c
    found = select(c.size).where(c.anchored_at.is_not(None)).order_by(c.size.desc()).limit(1)
    return int((await conn.execute(found)).scalar() or 0)


def append(file: Path, text: str) -> None:
    """Add the note to the file, on disk before this returns. Raises Unavailable.

    What a crash has cut off before it is closed by an empty line, and the reader passes over it.
    """
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as opened:
            size = opened.seek(0, os.SEEK_END)
            is_torn = bool(size) and os.pread(descriptor, 1, size - 1) != b"\n"
            data = (b"\n" if is_torn else b"") + text.encode()
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
    except OSError as error:
        raise Unavailable(f"AUDIT_ANCHOR_FILE {file} cannot be written: {error.strerror}") from error


def newest_anchor(file: Path, signer: Signer, epoch: int) -> Checkpoint | None:
    """The largest checkpoint in the file that we have signed; None when there is none. Raises Unavailable."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = opened.read().decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"AUDIT_ANCHOR_FILE {file} cannot be read: {error.strerror}") from error
    signed = [checkpoint for part in split_notes(text) if (checkpoint := _ours(part, signer, epoch)) is not None]
    return max(signed, key=lambda checkpoint: checkpoint.size, default=None)


async def require_continuation(db: Database, signer: Signer, file: Path) -> None:
    """Refuse a log that does not continue the newest checkpoint in the file. Raises Unavailable.

    An older copy of the database, put back, would otherwise be signed anew: two different pasts under one key.
    """
    async with db.reading() as conn:
        head = (await conn.execute(select(audit_head.c.size, audit_head.c.epoch, audit_head.c.min_index))).one()
        anchor = await asyncio.to_thread(newest_anchor, file, signer, head.epoch)
        if anchor is None or anchor.size < head.min_index:
            return
        continues = anchor.size <= head.size and await proofs.root_at(conn, anchor.size) == anchor.root
    if not continues:
        raise Unavailable(
            f"The audit log in this database ({head.size} records) does not continue the checkpoint of {anchor.size} "
            f"records in {file}: an older copy of the database was put back, or records were changed. Restore the "
            f"newest backup; see docs/how-to/keep-the-audit-log.md, The log does not continue its anchor."
        )


def _ours(part: str, signer: Signer, epoch: int) -> Checkpoint | None:
    text, _, signatures = part.rpartition("\n\n")
    # What a crash tore off may stand before it; a checkpoint is the last three lines.
    whole = "\n".join(text.split("\n")[-3:])
    try:
        return note.open_note(f"{whole}\n\n{signatures}", [signer.verifier(epoch)])
    except Invalid:
        return None
