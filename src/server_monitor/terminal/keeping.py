"""Looks after recordings: verifies what has ended, notices what is gone, and brings what is old into the archive.

Nothing leaves DATA_DIR before it is in the archive, was read back from there and is what the audit log says it is; and
nothing that a hold of the audit log names. `recording.archive` says where it is, `recording.prune` that it is only
there.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import clock, holds, log, search
from server_monitor.audit.archive import Archive
from server_monitor.audit.chain import Event as Record
from server_monitor.audit.keeper import clock_steps
from server_monitor.audit.search import Filters
from server_monitor.db.engine import Database
from server_monitor.db.tables import terminal_sessions
from server_monitor.errors import Conflict, Failure, Gone, NotFound, Unavailable
from server_monitor.telemetry.logs import logger
from server_monitor.terminal.chain import Finding, Verdict
from server_monitor.terminal.ledger import TARGET
from server_monitor.terminal.library import SYSTEM, Library, Verification, about, target

LOOK_EVERY_S: Final = 5.0
ROUND_EVERY: Final = timedelta(hours=1)
AGAIN_BYTES: Final = 64 * 1024 * 1024  # of old recordings verified anew in a round
PART_BYTES: Final = 16 * 1024 * 1024  # of an object in the archive
BATCH: Final = 500
_FAMILIES: Final = ("terminal.", "recording.", "file.")

_T = terminal_sessions
_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """What a round did."""

    alarms: int = 0
    verified: int = 0
    archived: int = 0
    held: int = 0
    failure: str | None = None


class Keeping:
    """Looks after one library. Recordings are kept for ever when `retention_days` is 0."""

    def __init__(
        self, db: Database, library: Library, archive: Archive, retention_days: int, part_bytes: int = PART_BYTES
    ) -> None:
        self._db = db
        self._library = library
        self._archive = archive
        self._retention_days = retention_days
        self._part_bytes = part_bytes
        self._next_round_at = datetime.min.replace(tzinfo=UTC)

    async def run(self) -> None:
        """For as long as the console runs."""
        while True:
            now = datetime.now(UTC)
            try:
                await self.verify_ended()
                if now >= self._next_round_at:
                    self._next_round_at = now + ROUND_EVERY
                    await self.go_round(now)
            except Failure as error:
                _log.warning("recordings_not_looked_after", cause=str(error))
            await asyncio.sleep(LOOK_EVERY_S)

    async def verify_ended(self) -> int:
        """Verify the recordings of sessions that have ended since the last time; returns how many."""
        ended = _T.c.recording.in_(("unverified", "missing")), _T.c.status != "active"
        new = *ended, _T.c.verified_at.is_(None)
        count = 0
        after = ""
        while rows := await self._rows(*new, _T.c.id > after, limit=BATCH, order=_T.c.id):
            after = rows[-1].id
            for row in rows:
                count += await self._is_verified(row)
        return count

    async def _is_verified(self, row: Row[Any]) -> bool:
        """False when it cannot be done now; that keeps nobody else's from being verified."""
        try:
            await self._library.verify_row(row)
        except Failure as error:
            _log.warning("recording_not_verified", session_id=row.id, cause=str(error))
            return False
        return True

    async def go_round(self, now: datetime) -> Round:
        """Look whether all is there, verify some anew, and archive and prune what is old."""
        done = await self.look()
        done = replace(done, verified=await self._verify_some(now))
        try:
            archived, held = await self.archive_old(now)
        except Failure as error:
            _log.error("recordings_not_archived", cause=str(error))
            return replace(done, failure=str(error))
        return replace(done, archived=archived, held=held)

    async def look(self) -> Round:
        """Raise the alarm for every recording whose file is gone or of another size; cheap."""
        alarms = 0
        after = ""
        there = _T.c.recording.in_(("unverified", "verified")), _T.c.status != "active"
        while rows := await self._rows(*there, _T.c.id > after, limit=BATCH, order=_T.c.id):
            after = rows[-1].id
            sizes = await asyncio.to_thread(_sizes, [self._library.path(row.id) for row in rows])
            for row, size_bytes in zip(rows, sizes, strict=True):
                if size_bytes is None:
                    finding = Finding("missing", "The file of the recording is not there.")
                    await self._library.note(row, Verification(Verdict.MISSING, (finding,)))
                    alarms += 1
                elif size_bytes != row.recording_bytes:
                    alarms += (await self._library.verify_row(row)).is_alarming
        return Round(alarms)

    async def _verify_some(self, now: datetime) -> int:
        """Verify anew those that were not for the longest time, as much as a round has time for."""
        size_bytes = count = 0
        old = _T.c.recording == "verified", _T.c.verified_at < now - ROUND_EVERY, _T.c.status != "active"
        for row in await self._rows(*old, limit=BATCH, order=_T.c.verified_at):
            if size_bytes >= AGAIN_BYTES:
                break
            size_bytes += row.recording_bytes
            count += await self._is_verified(row)
        return count

    async def archive_old(self, now: datetime) -> tuple[int, int]:
        """Archive and prune what is older than the retention; returns how many went, and how many a hold keeps.

        Raises Unavailable when the archive is, and Conflict when it has something else in the place of one.
        """
        await self._finish_pruning()
        if self._retention_days == 0:
            return 0, 0
        async with self._db.reading() as conn:
            if clock.is_doubtful(await clock_steps(conn), now):
                _log.warning("recordings_kept", reason="the clock has jumped")
                return 0, 0
            held = await _held_filters(conn)
        before = now - timedelta(days=self._retention_days)
        due = _T.c.recording.in_(("unverified", "verified")), _T.c.status != "active", _T.c.finished_at < before
        archived = kept = 0
        after = ""
        failure: Conflict | None = None
        while rows := await self._rows(*due, _T.c.id > after, limit=BATCH, order=_T.c.id):
            after = rows[-1].id
            for row in rows:
                if any(covers(filters, row) for filters in held):
                    kept += 1
                    continue
                try:
                    archived += await self._move(row)
                except Conflict as error:  # which keeps no other from being archived
                    failure = error
        if failure is not None:
            raise failure
        return archived, kept

    async def _move(self, row: Row[Any]) -> bool:
        """Put it into the archive, read it back, and only then delete it here. False when it is not as it has to be."""
        try:
            found = await self._library.verify_row(row)
        except Gone:
            return False
        if found.is_alarming:
            return False
        path = self._library.path(row.id)
        keys, digest = await self._put(path, row, found)
        meta = {
            **about(row),
            "archive": self._archive.url,
            "keys": keys,
            "sha256": digest,
            "bytes": found.size_bytes,
            "chunks": found.chunks,
            "head": found.head.hex(),
        }
        now = datetime.now(UTC)
        async with self._db.transaction() as conn:
            await conn.execute(update(_T).where(_T.c.id == row.id).values(archived_at=now))
            await log.append(conn, Record("recording.archive", SYSTEM, target(row), meta=meta))
        async with self._db.transaction() as conn:
            # Once more, in the transaction that lets it go: a hold may have been placed meanwhile.
            if any(covers(filters, row) for filters in await _held_filters(conn)):
                return False
            await conn.execute(update(_T).where(_T.c.id == row.id).values(recording="archived"))
            await log.append(conn, Record("recording.prune", SYSTEM, target(row), meta={**about(row), "keys": keys}))
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return True

    async def _put(self, path: Path, row: Row[Any], found: Verification) -> tuple[list[str], str]:
        """The names of its parts in the archive, each read back, and the SHA-256 of the whole. Raises as above."""
        name = f"recordings/{path.parent.name}/{row.id}-{found.head.hex()[:16]}.rec"
        keys: list[str] = []
        digest = hashlib.sha256()
        parts = _parts(path, found.size_bytes, self._part_bytes)
        while (part := await asyncio.to_thread(next, parts, None)) is not None:
            key = name if found.size_bytes <= self._part_bytes else f"{name}.{len(keys) + 1:04}"
            version = await self._archive.put(key, part)
            try:
                stored = await self._archive.get(key, version)
            except NotFound:
                raise Conflict(f"{key} is gone from the archive at once. It is not pruned.") from None
            if stored.data != part:
                raise Conflict(f"{key} in the archive is not what was put there. It is not pruned.")
            digest.update(part)
            keys.append(key)
        return keys, digest.hexdigest()

    async def _finish_pruning(self) -> None:
        """Delete what a crash left behind its record. A file that was put back later is newer than that."""
        recent = _T.c.recording == "archived"
        after = ""
        while rows := await self._rows(recent, _T.c.id > after, limit=BATCH, order=_T.c.id):
            after = rows[-1].id
            left = [(self._library.path(row.id), row.archived_at) for row in rows if row.archived_at is not None]
            await asyncio.to_thread(_delete_older, left)

    async def _rows(self, *conditions: Any, limit: int, order: Any) -> Sequence[Row[Any]]:
        """Of sessions that this console ran: the files of another one on the same database are on its own disk."""
        ours = _T.c.started_at.is_not(None), _T.c.owner == self._db.node
        async with self._db.reading() as conn:
            return (await conn.execute(select(_T).where(*ours, *conditions).order_by(order).limit(limit))).all()


def covers(filters: Filters, row: Row[Any]) -> bool:
    """Does a hold with these filters hold this recording?

    It does when it names nothing else than the session, its server, its user, its time, and what is done in terminals.
    What only single records have (an address, a request, an outcome) lets nothing go.
    """
    is_user = filters.user_id in {None, row.user_id}
    is_target = filters.target_id in {None, row.id, row.server_id}
    is_kind = filters.target_type in {None, TARGET, "server"}
    is_action = filters.action is None or filters.action.startswith(_FAMILIES)
    ended_at = row.finished_at or datetime.now(UTC)
    is_time = (filters.from_at is None or ended_at >= filters.from_at) and (
        filters.to_at is None or row.created_at < filters.to_at
    )
    return is_user and is_target and is_kind and is_action and is_time


async def _held_filters(conn: AsyncConnection) -> Sequence[Filters]:
    return [search.parse(hold.filters) for hold in await holds.active(conn)]


def _sizes(paths: Sequence[Path]) -> list[int | None]:
    return [_size(path) for path in paths]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"The recordings cannot be looked at: {error.strerror}.") from error


def _parts(path: Path, size_bytes: int, part_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for start in range(0, size_bytes, part_bytes):
            yield file.read(min(part_bytes, size_bytes - start))


def _delete_older(left: Sequence[tuple[Path, datetime]]) -> None:
    for path, archived_at in left:
        try:
            if path.stat().st_mtime < archived_at.timestamp():
                path.unlink()
        except FileNotFoundError:
            pass
