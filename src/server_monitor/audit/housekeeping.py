"""Keeps the log within bounds: archive → read back → verify, then delete what is old and not held.

Runs at the start and every AUDIT_CLEANUP_INTERVAL_HOURS. Each run first finishes what the last one began, whatever
ended it.
"""

import asyncio
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import anchors, clock, holds, log, pruning, sealing
from server_monitor.audit.archive import Archive
from server_monitor.audit.chain import AuditActor, AuditTarget, Event, timestamp
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.damage import reported
from server_monitor.audit.holds import Hold
from server_monitor.audit.keeper import Keeper, clock_steps
from server_monitor.audit.pruning import Stretch
from server_monitor.audit.retention import Closed, Held, Policy, Verdict, may_prune, next_deletion, old_enough
from server_monitor.audit.sealing import Row, Sealer
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_head, audit_records
from server_monitor.errors import Conflict, Failure, Unavailable
from server_monitor.settings import SHORT_RETENTION_DAYS, Settings
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger

SYSTEM = AuditActor("system", None, "system:retention")
RETRY = timedelta(minutes=15)  # after a failure, which may be the network's

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator chose. `demands_anchor`: nothing goes before a checkpoint that covers it has left the house."""

    retention_days: int
    is_on: bool
    every: timedelta
    demands_anchor: bool
    is_own_archive: bool  # nobody set AUDIT_ARCHIVE_URL
    lock_days: int = 0  # for how long the archive's store has to lock a segment
    segment_records: int = sealing.RECORDS


def rules_of(settings: Settings) -> Rules:
    return Rules(
        settings.audit_retention_days,
        settings.audit_cleanup_enabled,
        timedelta(hours=settings.audit_cleanup_interval_hours),
        demands_anchor=bool(settings.audit_anchor_file) or settings.audit_anchor_required,
        is_own_archive=not settings.audit_archive_url,
        lock_days=settings.audit_archive_lock_days,
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """What one run did, and what keeps the next segment. `failure` says why it deleted less than it might have."""

    archived: int
    pruned: int
    verdict: Verdict
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that could not do what it should have."""

    at: datetime
    cause: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How things are: every segment, and what may go when."""

    segments: Sequence[Row]
    verdict: Verdict
    next_deletion_at: datetime | None
    size: int
    min_index: int
    changed_hold: str | None = None  # one that the log states and the database has not any more


class Housekeeping:
    """One archive, one set of rules. `data_dir` holds the lock that keeps two runs apart."""

    def __init__(self, db: Database, signer: Signer, archive: Archive, rules: Rules, data_dir: Path) -> None:
        self._db = db
        self._keeper = Keeper(db, signer)
        self._sealer = Sealer(db, signer, archive, rules.segment_records, rules.lock_days)
        self._lock = data_dir / "audit" / "housekeeping.lock"
        self._wanted = asyncio.Event()
        self._is_everything = False
        self._covered: dict[tuple[str, int], int | None] = {}
        self.archive = archive
        self.rules = rules
        self.next_run_at: datetime | None = None
        self.is_running = False
        self.failed: Failed | None = None

    async def run(self) -> None:
        """For as long as the console runs."""
        self._say_where()
        if self.rules.is_on:
            self._wanted.set()
        while True:
            await self._until_wanted()
            everything, self._is_everything = self._is_everything, False
            self.is_running = True
            try:
                await self.once(datetime.now(UTC), everything=everything)
            except Failure as error:
                _log.error("audit_housekeeping_failed", cause=str(error))
            finally:
                self.is_running = False

    def want_run(self) -> None:
        """Have everything archived now, not only what is due."""
        self._is_everything = True
        self._wanted.set()

    async def once(self, now: datetime, *, everything: bool = False) -> Summary:
        """One whole run. Raises Conflict when another is under way, Unavailable when it cannot be done now."""
        with self._alone():
            try:
                with reported():
                    summary = await self._once(now, everything)
            except Failure as error:
                await self._fail(now, str(error))
                raise
            await self._fail(now, summary.failure)
        verdict = summary.verdict
        _log.info(
            "audit_housekeeping_done", archived=summary.archived, pruned=summary.pruned, obstacle=verdict.obstacle
        )
        return summary

    async def _once(self, now: datetime, everything: bool) -> Summary:
        await self._close_interrupted()
        if everything:
            await self._keeper.sign("archive")
        archived = await self._sealer.run(now, SYSTEM, everything=everything)
        standing, held = await self._judge(now)
        pruned, failure = 0, None
        if standing.changed_hold is not None:
            failure = holds.lost_words(standing.changed_hold)
        elif standing.verdict.prunable:
            pruned, failure = await self._prune(standing.verdict.prunable, held, now)
        await pruning.give_back(self._db)
        return Summary(archived, pruned, standing.verdict, failure)

    async def _fail(self, now: datetime, cause: str | None) -> None:
        """Show why a run failed, or that it did not; each cause is recorded once."""
        is_news = cause is not None and (self.failed is None or self.failed.cause != cause)
        self.failed = None if cause is None else Failed(now, cause)
        metrics.audit_housekeeping_failing.set(self.failed is not None)
        if is_news:
            meta = {"archive": self.archive.url, "cause": cause}
            with suppress(Unavailable):  # Then it is the database that is away, and the log of the process says so.
                async with self._db.transaction() as conn:
                    await log.append(conn, Event("audit.archive", SYSTEM, _LOG, "failure", "not_done", meta=meta))

    async def standing(self, now: datetime) -> Standing:
        """How things are now. Raises Unavailable."""
        with reported():
            return (await self._judge(now))[0]

    async def _judge(self, now: datetime) -> tuple[Standing, frozenset[str]]:
        async with self._db.reading() as conn:
            segments = await sealing.listing(conn)
            active = await holds.active(conn)
            head = (await conn.execute(select(audit_head.c.size, audit_head.c.min_index))).one()
            anchored = await anchors.anchored_size(conn) if self.rules.demands_anchor else None
            is_doubtful = clock.is_doubtful(await clock_steps(conn), now)
            changed = [one.name for one in await holds.changed(conn)]
            changed_hold = changed[0] if changed else None
            policy = Policy(self.rules.retention_days, self.rules.is_on, anchored, is_doubtful, changed_hold)
            closed = [Closed(row.first_seq, row.end_seq, row.state, row.newest_at) for row in segments]
            kept = [segment for segment in closed if segment.end_seq > head.min_index]
            reaching = await self._reach(conn, active, old_enough(kept, policy, now))
        verdict = may_prune(kept, reaching, policy, now)
        next_run_at = now if self.is_running else self.next_run_at
        next_at = next_deletion(kept[0] if kept else None, verdict, policy, next_run_at, self.rules.every)
        standing = Standing(segments, verdict, next_at, head.size, head.min_index, changed_hold)
        return standing, frozenset(hold.id for hold in active)

    async def _reach(self, conn: AsyncConnection, active: Sequence[Hold], old: Sequence[Closed]) -> Sequence[Held]:
        """The first record of these segments that each hold covers.

        Records never change, so an answer stays right; a page that is looked at does not search the log each time.
        """
        if not old:
            return []
        below = old[-1].end_seq
        known = self._covered
        self._covered = {
            key: known[key] if key in known else await holds.first_covered(conn, hold, below)
            for hold in active
            for key in ((hold.id, below),)
        }
        return [Held(hold.name, self._covered[hold.id, below]) for hold in active]

    async def _prune(self, prunable: Sequence[Closed], held: frozenset[str], now: datetime) -> tuple[int, str | None]:
        """Delete these segments, an intent before and an outcome after, a checkpoint around both.

        Returns how many records went, and why not all.
        """
        async with self._db.reading() as conn:
            rows = {row.first_seq: row for row in await sealing.listing(conn, unpruned=True)}
            begin = (await conn.execute(select(audit_head.c.min_index))).scalar_one()
        end = prunable[-1].end_seq
        cutoff = timestamp(now - timedelta(days=self.rules.retention_days))
        said = {"first_seq": begin, "end_seq": end, "count": end - begin, "cutoff": cutoff}
        keys = [rows[segment.first_seq].key for segment in prunable]
        async with self._db.transaction() as conn:
            await holds.carry(conn, end, actor=SYSTEM)
        await self._keeper.sign("prune")
        parent = await self._record(
            Event("audit.cleanup", SYSTEM, _LOG, None, phase="intent", meta={**said, "segments": keys[:100]})
        )
        gone, failure = 0, None
        for segment in prunable:
            try:
                with reported():
                    # Once more: months may have passed since it was put there.
                    row = rows[segment.first_seq]
                    await self._sealer.secure(row, SYSTEM)
                    gone += await pruning.prune(self._db, Stretch(row.first_seq, row.end_seq, row.root), held)
            except Failure as error:
                failure = str(error)
                break
        async with self._db.reading() as conn:
            reached = (await conn.execute(select(audit_head.c.min_index))).scalar_one()
        outcome = "success" if failure is None else "failure"
        meta = {**said, "end_seq": reached, "count": reached - begin, "segments": keys[:100]}
        await self._record(Event("audit.cleanup", SYSTEM, _LOG, outcome, phase="outcome", meta=meta, parent_seq=parent))
        await self._keeper.sign("prune")
        if failure is not None:
            _log.error("audit_pruning_stopped", cause=failure, reached=reached)
        return gone, failure

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
        wait = self.rules.every if self.failed is None else min(self.rules.every, RETRY)
        self.next_run_at = datetime.now(UTC) + wait if self.rules.is_on else None
        with suppress(TimeoutError):
            async with asyncio.timeout(wait.total_seconds() if self.rules.is_on else None):
                await self._wanted.wait()
        self._wanted.clear()
        self.next_run_at = datetime.now(UTC) + self.rules.every if self.rules.is_on else None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            self._lock.parent.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"{self._lock} cannot be opened: {error.strerror}.") from error
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
