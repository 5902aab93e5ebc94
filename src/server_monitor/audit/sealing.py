"""Closes the log's oldest records into segments and brings each into the archive: sealed → uploaded → verified.

The same records always give the same bytes, so whatever a crash left half done is simply done again.
"""

import asyncio
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import checkpoints, log, note, proofs, tree
from server_monitor.audit.archive import Archive, Lock, Stored
from server_monitor.audit.chain import AuditActor, AuditTarget, Event, timestamp
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.note import Checkpoint
from server_monitor.audit.retention import State
from server_monitor.audit.segment import Manifest, Packer, open_segment
from server_monitor.audit.verify import Unreadable
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_checkpoints, audit_head, audit_records, audit_segments
from server_monitor.errors import Invalid, NotFound, Unavailable
from server_monitor.telemetry.logs import logger

RECORDS = 20_000  # a segment is closed once it has as many records
BYTES = 16 * 1024 * 1024  # or as many bytes
AGE = timedelta(hours=20)  # or its oldest record is as old: less than a day, so that a daily run finds each day due
BATCH = 500
COMPLIANCE = "COMPLIANCE"  # the mode of Object Lock that nobody can lift

_AGAIN = re.compile(r".*-[0-9a-f]{16}(?:-([0-9]+))?\.tar\.gz").fullmatch
_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """A segment as the database knows it."""

    first_seq: int
    end_seq: int
    state: State
    place: str
    key: str
    version: str | None
    sha256: bytes
    root: bytes
    size_bytes: int
    oldest_at: datetime
    newest_at: datetime
    sealed_at: datetime
    verified_at: datetime | None = None
    pruned_at: datetime | None = None
    lock_mode: str | None = None
    locked_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Packed:
    data: bytes
    sha256: bytes
    root: bytes
    origin: str
    epoch: int


async def listing(conn: AsyncConnection, *, unpruned: bool = False) -> Sequence[Row]:
    """Every segment, oldest first."""
    found = select(audit_segments).order_by(audit_segments.c.first_seq)
    if unpruned:
        found = found.where(audit_segments.c.state != State.PRUNED)
    return [Row(**{**row._mapping, "state": State(row.state)}) for row in await conn.execute(found)]


class Sealer:
    """Brings closed segments into one archive, which has to lock each for `lock_days`; 0 demands nothing."""

    def __init__(
        self, db: Database, signer: Signer, archive: Archive, most_records: int = RECORDS, lock_days: int = 0
    ) -> None:
        self._db = db
        self._signer = signer
        self._archive = archive
        self._most_records = most_records
        self._lock_days = lock_days

    async def run(self, now: datetime, actor: AuditActor, *, everything: bool) -> int:
        """Finish what was begun and archive what is due, or `everything`; returns how many segments were verified.

        Raises Unavailable when the archive or the database is.
        """
        await self._move_to_this_archive()
        async with self._db.reading() as conn:
            begun = [row for row in await listing(conn, unpruned=True) if row.state is not State.VERIFIED]
        for row in begun:
            await self.secure(row, actor)
        done = len(begun)
        while (end := await self._next_end(now, everything)) is not None:
            await self.secure(await self._seal(*end), actor)
            done += 1
        return done

    async def secure(self, row: Row, actor: AuditActor) -> None:
        """After this the segment is in the archive as it was sealed, read back just now.

        Raises Unavailable when it is not and cannot be put there: then nothing of it may be pruned.
        """
        stored, wrong = await self._read_back(row)
        if stored is None or (wrong is not None and row.state is not State.VERIFIED):
            row = await self._upload(row, is_taken=stored is not None)
            stored, wrong = await self._read_back(row)
        if stored is None or wrong is not None:
            _log.error("archived_segment_is_wrong", key=row.key, why=wrong)
            raise Unavailable(f"{row.key} in the archive is not what was put there: {wrong}. Nothing is pruned.")
        row = _with(row, {"version": stored.version})
        lock = await self._require_lock(row)
        if row.state is not State.VERIFIED:
            await self._record_verified(row, lock, actor)

    async def _read_back(self, row: Row) -> tuple[Stored | None, str | None]:
        """The object, None when there is none, and what is wrong with it. Raises Unavailable."""
        archive = self._archive_of(row)
        try:
            stored = await archive.get(row.key, row.version)
            wrong = await self._judge(stored, row)
            if wrong is not None:
                # What is spoiled on its way is not spoiled twice in the same way; what is stored wrong is.
                first, stored = stored, await archive.get(row.key, row.version)
                wrong = await self._judge(stored, row)
                if wrong is not None and stored.data != first.data:
                    raise Unavailable(f"{row.key} is read differently each time. Nothing is pruned.")
        except NotFound:
            return None, "it is gone"
        return stored, wrong

    async def _judge(self, stored: Stored, row: Row) -> str | None:
        async with self._db.reading() as conn:
            epoch = (await conn.execute(select(audit_head.c.epoch))).scalar_one()
        return await asyncio.to_thread(what_is_wrong, stored.data, row, self._signer, epoch)

    async def _upload(self, row: Row, *, is_taken: bool) -> Row:
        """Put the segment into the archive; under another name when something else has taken its own.

        Raises Unavailable when it was verified once and the same bytes cannot be made again.
        """
        packed = await self._pack(row.first_seq, row.end_seq)
        if packed.sha256 != row.sha256 or is_taken:
            if row.state is State.VERIFIED:
                raise Unavailable(f"{row.key} is gone from the archive and cannot be made again as it was.")
            row = await self._reseal(row, packed, _attempt(row.key) + is_taken)
        await self._require_right(packed, row)
        version = await self._archive_of(row).put(row.key, packed.data)
        return await self._advance(row, state=State.UPLOADED, version=version)

    async def _require_lock(self, row: Row) -> Lock | None:
        """How the store locks the segment. Raises Unavailable when that is less than was demanded."""
        lock = await self._archive_of(row).lock(row.key, row.version)
        if not self._lock_days or row.place != self._archive.url:
            return lock
        until = row.sealed_at + timedelta(days=self._lock_days)
        if lock is None or lock.mode != COMPLIANCE or lock.until < until:
            found = "not at all" if lock is None else f"in mode {lock.mode} until {lock.until:%Y-%m-%d}"
            demanded = f"{COMPLIANCE} until {until:%Y-%m-%d}"
            raise Unavailable(
                f"{row.key} is locked {found}, and AUDIT_ARCHIVE_LOCK_DAYS demands {demanded}: "
                "set the bucket's default retention, and let the console read it (s3:GetObjectRetention)."
            )
        return lock

    def _archive_of(self, row: Row) -> Archive:
        """Where the segment is: elsewhere when the archive was moved after its first records had been pruned."""
        return self._archive if row.place == self._archive.url else Archive(row.place)

    async def _move_to_this_archive(self) -> None:
        """Segments whose records are still here belong into the archive that is set now."""
        async with self._db.transaction() as conn:
            elsewhere = audit_segments.c.state != State.PRUNED, audit_segments.c.place != self._archive.url
            begun = select(audit_head.c.min_index).scalar_subquery()
            await conn.execute(
                update(audit_segments)
                .where(*elsewhere, audit_segments.c.first_seq >= begun)
                .values(
                    state=State.SEALED,
                    place=self._archive.url,
                    version=None,
                    sealed_at=datetime.now(UTC),
                    verified_at=None,
                    lock_mode=None,
                    locked_until=None,
                )
            )

    async def _next_end(self, now: datetime, everything: bool) -> tuple[int, int] | None:
        """The bounds of the next segment that is due. It ends where it is full, or where the log does."""
        async with self._db.reading() as conn:
            first = await _archived_size(conn)
            head = await log.size(conn)
            full = await _full_end(conn, first, head, self._most_records)
            if full is not None:
                return first, full
            newest = await checkpoints.newest(conn)
            last = newest.size if newest is not None else 0
            if last <= first:
                return None
            oldest = (await conn.execute(select(audit_records.c.ts).where(audit_records.c.seq == first))).scalar()
        if oldest is None:
            raise Unavailable(f"Record {first} is missing from the database, so nothing from it on can be archived.")
        return (first, last) if everything or now - oldest >= AGE else None

    async def _seal(self, first_seq: int, end_seq: int) -> Row:
        packed = await self._pack(first_seq, end_seq)
        ts = select(func.min(audit_records.c.ts), func.max(audit_records.c.ts))
        async with self._db.reading() as conn:
            within = audit_records.c.seq >= first_seq, audit_records.c.seq < end_seq
            oldest, newest = (await conn.execute(ts.where(*within))).one()
        row = Row(
            first_seq,
            end_seq,
            State.SEALED,
            self._archive.url,
            _key(packed, first_seq, end_seq),
            version=None,
            sha256=packed.sha256,
            root=packed.root,
            size_bytes=len(packed.data),
            oldest_at=oldest,
            newest_at=newest,
            sealed_at=datetime.now(UTC),
        )
        await self._require_right(packed, row)
        async with self._db.transaction() as conn:
            await conn.execute(insert(audit_segments).values(**{name: getattr(row, name) for name in Row.__slots__}))
        return row

    async def _require_right(self, packed: _Packed, row: Row) -> None:
        """Nothing wrong is ever put into an archive from which nothing can be removed. Raises Unavailable."""
        wrong = await asyncio.to_thread(what_is_wrong, packed.data, row, self._signer, packed.epoch)
        if wrong is not None:
            raise _not_signed(row.first_seq, row.end_seq, wrong)

    async def _reseal(self, row: Row, packed: _Packed, attempt: int) -> Row:
        """Decide the bytes anew: nothing of the segment was ever verified."""
        return await self._advance(
            row,
            state=State.SEALED,
            key=_key(packed, row.first_seq, row.end_seq, attempt),
            version=None,
            sha256=packed.sha256,
            root=packed.root,
            size_bytes=len(packed.data),
        )

    async def _pack(self, first_seq: int, end_seq: int) -> _Packed:
        """The segment's bytes, read batch by batch; packed beside the event loop."""
        async with self._db.reading() as conn:
            head = (await conn.execute(select(audit_head.c.epoch, audit_head.c.min_index))).one()
            if head.min_index > first_seq:
                raise Unavailable(f"Records from {first_seq} on have been pruned; they are only in the archive.")
            origin = self._signer.origin(head.epoch)
            prefix = await _prefix(conn, first_seq)
            root = await _signed_root(conn, prefix, first_seq, end_seq)
            manifest = Manifest(origin, first_seq, end_seq, tuple(prefix), root)
            notes = await self._notes(conn, first_seq, Checkpoint(origin, end_seq, root))
            packer = Packer()
            data = io.BytesIO(packer.begin(manifest))
            data.seek(0, io.SEEK_END)
            data.writelines(packer.checkpoints(notes))
            for start in range(first_seq, end_seq, BATCH):
                bodies = select(audit_records.c.body).order_by(audit_records.c.seq)
                batch = bodies.where(audit_records.c.seq >= start, audit_records.c.seq < min(start + BATCH, end_seq))
                data.write(await asyncio.to_thread(packer.records, (await conn.execute(batch)).scalars().all()))
        data.write(await asyncio.to_thread(packer.end))
        whole = data.getvalue()
        return _Packed(whole, hashlib.sha256(whole).digest(), root, origin, head.epoch)

    async def _notes(self, conn: AsyncConnection, first_seq: int, end: Checkpoint) -> list[str]:
        """The first checkpoint of each size within the segment, and always one of its end."""
        c = audit_checkpoints.c
        found = select(c.size, c.note).where(c.size >= first_seq, c.size < end.size).order_by(c.size, c.made_at, c.id)
        by_size: dict[int, str] = {}
        for size, text in await conn.execute(found):
            by_size.setdefault(size, text)
        return [*by_size.values(), note.sign(end, {end.origin: self._signer.key})]

    async def _advance(self, row: Row, **values: Any) -> Row:
        async with self._db.transaction() as conn:
            await _update(conn, row, values)
        return _with(row, values)

    async def _record_verified(self, row: Row, lock: Lock | None, actor: AuditActor) -> None:
        locked = {"lock_mode": lock.mode, "locked_until": lock.until} if lock is not None else {}
        verified = {"state": State.VERIFIED, "version": row.version, "verified_at": datetime.now(UTC), **locked}
        async with self._db.transaction() as conn:
            await _update(conn, row, verified)
            await log.append(
                conn,
                Event(
                    "audit.archive",
                    actor,
                    AuditTarget("audit_segment", str(row.first_seq), row.key),
                    meta={
                        "archive": row.place,
                        "first_seq": row.first_seq,
                        "end_seq": row.end_seq,
                        "sha256": row.sha256.hex(),
                        "root": row.root.hex(),
                        "size_bytes": row.size_bytes,
                        **({"version": row.version} if row.version else {}),
                        **({"lock_mode": lock.mode, "locked_until": timestamp(lock.until)} if lock else {}),
                    },
                ),
            )
        _log.info("audit_segment_archived", key=row.key, place=row.place, size_bytes=row.size_bytes)


async def _prefix(conn: AsyncConnection, first_seq: int) -> list[bytes]:
    """The frontier of the records before a segment: of what was archived and signed. Raises Unavailable."""
    found = await proofs.frontier_at(conn, first_seq)
    before = (await conn.execute(select(audit_segments.c.root).where(audit_segments.c.end_seq == first_seq))).scalar()
    if tree.root(found) != (before if first_seq else tree.EMPTY_ROOT):
        raise Unavailable(
            f"What the database keeps of the records before {first_seq} is not what was archived. Nothing more is "
            "archived or deleted; see `audit verify`, and `audit repair`."
        )
    return found


async def _signed_root(conn: AsyncConnection, prefix: Sequence[bytes], first_seq: int, end_seq: int) -> bytes:
    """The root of the tree at the end of a segment, from nothing but its records. Raises Unavailable.

    It is about to be signed. So the records have to have the root of every checkpoint up to the first that covers them;
    where none does yet, of the head.
    """
    covering = await checkpoints.covering(conn, end_seq)
    head = (await conn.execute(select(audit_head.c.size, audit_head.c.frontier))).one()
    last = head.size if covering is None else covering.size
    c = audit_checkpoints.c
    signed = select(c.size, c.root).where(c.size > first_seq, c.size <= last).order_by(c.size)
    ought = [(row.size, row.root, f"the checkpoint of {row.size}") for row in await conn.execute(signed)]
    ought += [(head.size, tree.root(tree.split(head.frontier)), "the head of the log")] if covering is None else []
    frontier, reached, root = tuple(prefix), first_seq, b""
    for size, expected, by in sorted([*ought, (end_seq, None, "")], key=lambda one: one[0]):
        frontier, reached = await proofs.grown(conn, frontier, reached, size), size
        root = tree.root(frontier) if size == end_seq else root
        if expected is not None and tree.root(frontier) != expected:
            raise _not_signed(first_seq, end_seq, f"{by} has another root")
    return root


def _not_signed(first_seq: int, end_seq: int, how: str) -> Unavailable:
    return Unavailable(
        f"Records {first_seq} to {end_seq - 1} in the database are not what was signed: {how}. "
        "They are neither archived nor deleted. See `audit verify`, and restore a backup."
    )


async def _archived_size(conn: AsyncConnection) -> int:
    """The first record that is in no segment."""
    end = (await conn.execute(select(func.max(audit_segments.c.end_seq)))).scalar()
    return int(end or 0)


async def _full_end(conn: AsyncConnection, first: int, head: int, most_records: int) -> int | None:
    """Where a segment from `first` on is full, by records or by bytes; None when the log ends before."""
    size, last = 0, min(head, first + most_records)
    for start in range(first, last, BATCH):
        end = min(start + BATCH, last)
        measured = select(func.sum(func.length(audit_records.c.body)))
        within = measured.where(audit_records.c.seq >= start, audit_records.c.seq < end)
        size += int((await conn.execute(within)).scalar() or 0)
        if size >= BYTES:
            return end
    return last if last - first >= most_records else None


async def _update(conn: AsyncConnection, row: Row, values: dict[str, Any]) -> None:
    await conn.execute(update(audit_segments).where(audit_segments.c.first_seq == row.first_seq).values(**values))


def _with(row: Row, values: dict[str, Any]) -> Row:
    return Row(**{**{name: getattr(row, name) for name in Row.__slots__}, **values})


def _key(packed: _Packed, first_seq: int, end_seq: int, attempt: int = 1) -> str:
    again = "" if attempt == 1 else f"-{attempt}"
    return f"{packed.origin}/{first_seq:012}-{end_seq:012}-{packed.root.hex()[:16]}{again}.tar.gz"


def _attempt(key: str) -> int:
    """Which attempt the name is of."""
    found = _AGAIN(key)
    return int(found[1]) if found and found[1] else 1


def what_is_wrong(data: bytes, row: Row, signer: Signer, epoch: int) -> str | None:
    """Everything that a segment in the archive has to be, from its bytes alone; None when it is."""
    if hashlib.sha256(data).digest() != row.sha256:
        return "its SHA-256 is another"
    try:
        segment = open_segment(row.key, lambda: io.BytesIO(data))
        said = segment.manifest
        if (said.first_seq, said.end_seq, said.root) != (row.first_seq, row.end_seq, row.root):
            return "its manifest is another"
        frontier, size = tuple(said.prefix), said.first_seq
        for rows in segment.records():
            for _, body in rows:
                frontier, size = tree.grow(frontier, size, tree.leaf_hash(body)), size + 1
        if size != row.end_seq or tree.root(frontier) != row.root:
            return "its records have another root"
        signed = [stored.note for stored in segment.notes()]
        is_signed = _is_signed(signed, row, signer, epoch)
    except (Unreadable, Invalid, IndexError) as error:
        return str(error)
    return None if is_signed else "no checkpoint of its end is signed"


def _is_signed(notes: Sequence[str], row: Row, signer: Signer, epoch: int) -> bool:
    verifiers = [signer.verifier(number) for number in range(1, epoch + 1)]
    for text in reversed(notes):
        checkpoint = note.read(text)[0]
        if (checkpoint.size, checkpoint.root) == (row.end_seq, row.root):
            return note.open_note(text, verifiers) == checkpoint
    return False
