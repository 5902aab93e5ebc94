"""Checkpoints leave the house: to a file that is only ever appended to, to the archive, and with the log stream.

Without one of them nobody can tell an older copy of the database from the newest. See docs/decisions/audit-anchors.md.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import checkpoints, note, proofs
from server_monitor.audit.archive import Archive
from server_monitor.audit.checkpoints import Made, Signer
from server_monitor.audit.damage import reported
from server_monitor.audit.note import Checkpoint
from server_monitor.audit.segment import split_notes
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_checkpoints, audit_head
from server_monitor.errors import Failure, Invalid, Unavailable
from server_monitor.telemetry.logs import logger

LOOK_EVERY_S = 1.0
NEWS_EVERY_S = 60.0
QUIET_EVERY_S = 3600.0
PREFIX = "checkpoints"
_TAIL_BYTES = 256 * 1024  # hundreds of notes: the newest readable one is among them

_log = logger(__name__)


class Anchors:
    """Hands each new checkpoint out. `archive` is None where it is not outside of the data directory.

    File, store and log stream are served each in its own time, so that one that hangs delays none of the others.
    """

    def __init__(self, db: Database, file: Path | None, archive: Archive | None) -> None:
        self._db = db
        self._file = file
        self._archive = archive
        self._appended: tuple[int, datetime] | None = None
        self._stored = _Pace()
        self._logged = _Pace()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep(self.write_to_log))
            if self._file is not None:
                tasks.create_task(self._keep(self.append_to_file))
            if self._archive is not None:
                tasks.create_task(self._keep(self.put_into_store))

    async def _keep(self, hand_out: Callable[[float], Awaitable[None]]) -> None:
        while True:
            try:
                with reported():
                    await hand_out(time.monotonic())
            except Failure as error:
                _log.warning("checkpoint_not_anchored", way=hand_out.__name__, cause=str(error))
                await asyncio.sleep(30 * LOOK_EVERY_S)
            await asyncio.sleep(LOOK_EVERY_S)

    async def append_to_file(self, _now_s: float) -> None:
        """Every checkpoint, at once. Raises Unavailable."""
        newest = await self._newest()
        if self._file is None or newest is None or (newest.size, newest.made_at) == self._appended:
            return
        await asyncio.to_thread(append, self._file, newest.note)
        self._appended = newest.size, newest.made_at
        await self._mark(newest)

    async def put_into_store(self, now_s: float) -> None:
        """The newest checkpoint, once a minute when there is news and hourly when there is none. Raises Unavailable."""
        newest = await self._newest()
        if self._archive is None or newest is None or not self._stored.is_due(newest.size, now_s):
            return
        directory = f"{note.read(newest.note)[0].origin}/{PREFIX}"
        name = f"{newest.size:012}-{newest.root.hex()[:16]}.txt"
        await self._archive.put(f"{directory}/{name}", newest.note.encode())
        if not self._stored.is_news(newest.size):
            # Objects are never replaced: that the log stood still shows as one more, of this hour.
            hour = datetime.now(UTC).strftime("%Y%m%dT%H")
            await self._archive.put(f"{directory}/quiet/{hour}-{name}", newest.note.encode())
        self._stored.keep(newest.size, now_s)
        await self._mark(newest)

    async def write_to_log(self, now_s: float) -> None:
        """The newest checkpoint, as seldom as into the store. Whoever collects the logs holds it then."""
        newest = await self._newest()
        if newest is None or not self._logged.is_due(newest.size, now_s):
            return
        _log.info("audit_checkpoint", size=newest.size, root=newest.root.hex(), note=newest.note)
        self._logged.keep(newest.size, now_s)

    async def _newest(self) -> Made | None:
        async with self._db.reading() as conn:
            return await checkpoints.newest(conn)

    async def _mark(self, made: Made) -> None:
        c = audit_checkpoints.c
        async with self._db.transaction() as conn:
            await conn.execute(
                update(audit_checkpoints)
                .where(c.size == made.size, c.made_at == made.made_at, c.anchored_at.is_(None))
                .values(anchored_at=datetime.now(UTC))
            )


class _Pace:
    """How often a checkpoint is handed out: at most once a minute when there is news, hourly when there is none."""

    def __init__(self) -> None:
        self._size = -1
        self._at_s = float("-inf")

    def is_news(self, size: int) -> bool:
        return size != self._size

    def is_due(self, size: int, now_s: float) -> bool:
        return now_s - self._at_s >= (NEWS_EVERY_S if self.is_news(size) else QUIET_EVERY_S)

    def keep(self, size: int, now_s: float) -> None:
        self._size, self._at_s = size, now_s


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
