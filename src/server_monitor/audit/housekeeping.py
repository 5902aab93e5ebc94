"""Keeps the log within bounds: archive → read back → verify, then delete what is old and not held.

Runs at the start and every AUDIT_CLEANUP_INTERVAL_HOURS. Each run first finishes what the last one began, whatever
ended it.
"""

import asyncio
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import anchors, holds, log, pruning, sealing
from server_monitor.audit.archive import Archive
from server_monitor.audit.chain import AuditActor, AuditTarget, Event, timestamp
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.keeper import Keeper
from server_monitor.audit.pruning import Stretch
from server_monitor.audit.retention import Closed, Policy, Verdict, deletable_at, may_prune
from server_monitor.audit.sealing import Row, Sealer
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_head, audit_records
from server_monitor.errors import Conflict, Failure, Unavailable
from server_monitor.settings import SHORT_RETENTION_DAYS, Settings
from server_monitor.telemetry.logs import logger

SYSTEM = AuditActor("system", None, "system:retention")

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator chose. `demands_anchor`: nothing goes before a checkpoint that covers it has left the house."""

    retention_days: int
    is_on: bool
    every: timedelta
    demands_anchor: bool
    is_own_archive: bool  # nobody set AUDIT_ARCHIVE_URL
    segment_records: int = sealing.RECORDS


def rules_of(settings: Settings) -> Rules:
    return Rules(
        settings.audit_retention_days,
        settings.audit_cleanup_enabled,
        timedelta(hours=settings.audit_cleanup_interval_hours),
        demands_anchor=bool(settings.audit_anchor_file) or settings.audit_anchor_required,
        is_own_archive=not settings.audit_archive_url,
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """What one run did, and what keeps the next segment."""

    archived: int
    pruned: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Standing:
    """How things are: every segment, and what may go when."""

    segments: Sequence[Row]
    verdict: Verdict
    next_deletion_at: datetime | None
    size: int
    min_index: int


class Housekeeping:
    """One archive, one set of rules. `data_dir` holds the lock that keeps two runs apart."""

    def __init__(self, db: Database, signer: Signer, archive: Archive, rules: Rules, data_dir: Path) -> None:
        self._db = db
        self._keeper = Keeper(db, signer)
        self._sealer = Sealer(db, signer, archive, rules.segment_records)
        self._lock = data_dir / "audit" / "housekeeping.lock"
        self._wanted = asyncio.Event()
        self._is_everything = False
        self.archive = archive
        self.rules = rules
        self.next_run_at: datetime | None = None

    async def run(self) -> None:
        """For as long as the console runs."""
        self._say_where()
        if self.rules.is_on:
            self._wanted.set()
        while True:
            await self._until_wanted()
            everything, self._is_everything = self._is_everything, False
            try:
                await self.once(datetime.now(UTC), everything=everything)
            except Failure as error:
                _log.error("audit_housekeeping_failed", cause=str(error))

    def want_run(self) -> None:
        """Have everything archived now, not only what is due."""
        self._is_everything = True
        self._wanted.set()

    async def once(self, now: datetime, *, everything: bool = False) -> Summary:
        """One whole run. Raises Conflict when another is under way, Unavailable when it cannot be done now."""
        with self._alone():
            await self._close_interrupted()
            if everything:
                await self._keeper.sign("archive")
            archived = await self._sealer.run(now, SYSTEM, everything=everything)
            standing, held = await self._judge(now)
            pruned = await self._prune(standing.verdict.prunable, held, now) if standing.verdict.prunable else 0
            if pruned:
                await pruning.give_back(self._db)
        summary = Summary(archived, pruned, standing.verdict)
        _log.info("audit_housekeeping_done", archived=archived, pruned=pruned, obstacle=standing.verdict.obstacle)
        return summary

    async def standing(self, now: datetime) -> Standing:
        return (await self._judge(now))[0]

    async def _judge(self, now: datetime) -> tuple[Standing, frozenset[str]]:
        async with self._db.reading() as conn:
            segments = await sealing.listing(conn)
            active = await holds.active(conn)
            head = (await conn.execute(select(audit_head.c.size, audit_head.c.min_index))).one()
            anchored = await anchors.anchored_size(conn) if self.rules.demands_anchor else None
            policy = Policy(self.rules.retention_days, self.rules.is_on, anchored)
            closed = [Closed(row.first_seq, row.end_seq, row.state, row.newest_at) for row in segments]
            kept = [segment for segment in closed if segment.end_seq > head.min_index]
            reaching = await holds.reach(conn, active) if kept and policy.retention_days else []
        verdict = may_prune(kept, reaching, policy, now)
        next_at = deletable_at(kept[0], policy) if kept else None
        return Standing(segments, verdict, next_at, head.size, head.min_index), frozenset(hold.id for hold in active)

    async def _prune(self, prunable: Sequence[Closed], held: frozenset[str], now: datetime) -> int:
        """Delete these segments, an intent before and an outcome after, a checkpoint around both."""
        async with self._db.reading() as conn:
            rows = {row.first_seq: row for row in await sealing.listing(conn, unpruned=True)}
            begin = (await conn.execute(select(audit_head.c.min_index))).scalar_one()
        end = prunable[-1].end_seq
        cutoff = timestamp(now - timedelta(days=self.rules.retention_days))
        said = {"first_seq": begin, "end_seq": end, "count": end - begin, "cutoff": cutoff}
        keys = [rows[segment.first_seq].key for segment in prunable]
        await self._keeper.sign("prune")
        parent = await self._record(
            Event("audit.cleanup", SYSTEM, _LOG, None, phase="intent", meta={**said, "segments": keys[:100]})
        )
        gone, failure = 0, None
        for segment in prunable:
            try:
                # Once more: months may have passed since it was put there.
                await self._sealer.secure(rows[segment.first_seq], SYSTEM)
                gone += await pruning.prune(self._db, Stretch(segment.first_seq, segment.end_seq), held)
            except (Conflict, Unavailable) as error:
                failure = error
                break
        async with self._db.reading() as conn:
            reached = (await conn.execute(select(audit_head.c.min_index))).scalar_one()
        outcome = "success" if failure is None else "failure"
        meta = {**said, "end_seq": reached, "count": reached - begin, "segments": keys[:100]}
        await self._record(Event("audit.cleanup", SYSTEM, _LOG, outcome, phase="outcome", meta=meta, parent_seq=parent))
        await self._keeper.sign("prune")
        if failure is not None:
            _log.error("audit_pruning_stopped", cause=str(failure), reached=reached)
        return gone

    async def _record(self, event: Event) -> int:
        """The sequence number of the record, which is the newest of its kind."""
        async with self._db.transaction() as conn:
            await log.append(conn, event)
        async with self._db.reading() as conn:
            newest = await _newest_cleanup(conn)
        assert newest is not None
        return newest[0]

    async def _close_interrupted(self) -> None:
        """An intent that a crash left without an outcome gets it now: what was reached is what the log begins with."""
        async with self._db.reading() as conn:
            newest = await _newest_cleanup(conn)
            reached = (await conn.execute(select(audit_head.c.min_index))).scalar_one()
        if newest is None or newest[1] is not None:
            return
        meta = {"end_seq": reached, "recovered": True}
        await self._record(
            Event("audit.cleanup", SYSTEM, _LOG, "unknown", "interrupted", "outcome", meta=meta, parent_seq=newest[0])
        )

    async def _until_wanted(self) -> None:
        """Return when a run is due, or asked for."""
        every_s = self.rules.every.total_seconds() if self.rules.is_on else None
        self.next_run_at = datetime.now(UTC) + self.rules.every if self.rules.is_on else None
        try:
            async with asyncio.timeout(every_s):
                await self._wanted.wait()
        except TimeoutError:
            pass
        self._wanted.clear()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._lock.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Conflict("The audit log is being archived right now; wait for it to end.") from None
            yield
        finally:
            os.close(descriptor)

    def _say_where(self) -> None:
        if 0 < self.rules.retention_days < SHORT_RETENTION_DAYS:
            _log.warning("audit_retention_is_short", days=self.rules.retention_days, variable="AUDIT_RETENTION_DAYS")
        if self.rules.is_own_archive and self.rules.retention_days and self.rules.is_on:
            _log.warning(
                "audit_archive_is_local",
                place=self.archive.url,
                meaning="old audit records move to files beside the database; set AUDIT_ARCHIVE_URL to another machine",
            )


_LOG = AuditTarget("audit_log", "1")


async def record_request(db: Database, actor: AuditActor) -> None:
    """Somebody asks for a run: `audit.archive` with the reason `requested`."""
    async with db.transaction() as conn:
        await log.append(conn, Event("audit.archive", actor, _LOG, reason="requested"))


async def _newest_cleanup(conn: AsyncConnection) -> tuple[int, str | None] | None:
    c = audit_records.c
    found = select(c.seq, c.outcome).where(c.action == "audit.cleanup").order_by(c.seq.desc()).limit(1)
    row = (await conn.execute(found)).one_or_none()
    return None if row is None else (row.seq, row.outcome)
