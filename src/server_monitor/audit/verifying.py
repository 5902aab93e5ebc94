"""Has the whole log verified, one at a time: every record in the database and in the archive, by `audit/judge.py`.

An `audit.verify` record says who asked, before it begins; a second one has the verdict, and is where the last verdict
is read from. What a kill cuts off gets its outcome at the next start.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import checkpoints, intents, reading
from server_monitor.audit.chain import AuditActor, AuditTarget
from server_monitor.audit.checkpoints import Signer
from server_monitor.audit.retention import State
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import audit_head, audit_records, audit_segments
from server_monitor.errors import Conflict, Failure, Unavailable
from server_monitor.telemetry.logs import logger

ACTION = "audit.verify"
TARGET = "audit_verification"
WHOLE_S = 4 * 3600.0
SILENT_S = 600.0  # a store may take its time, with all its retries
RETRY_S = 5.0
LINE_LIMIT_BYTES = 16 * 1024 * 1024  # far more than a report has
LOOKED_AT = 20  # of the newest verdicts, for one that can be read
SAID = 20  # findings, and as many warnings, that the record of a verdict keeps
TEXT_LIMIT = 400

_log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """A verification under way: how many of the records have been read."""

    target: AuditTarget
    actor: AuditActor
    started_at: datetime
    records: int = 0
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Last:
    """The newest verdict: when, by whom, and what `summary` keeps of it."""

    seq: int
    at: str
    by: str
    outcome: str
    reason: str | None
    said: Mapping[str, Any]


class Verifying:
    """Verifies one console's log when asked."""

    def __init__(self, db: Database, url: str, signer: Signer) -> None:
        self._db = db
        self._url = url
        self._signer = signer
        self._wanted = asyncio.Event()
        self.running: Running | None = None

    async def start(self, actor: AuditActor) -> Running:
        """Begin, once it is recorded. Raises Conflict when one is under way.

        Appends `audit.verify`.
        """
        if self.running is not None:
            raise Conflict("The log is being verified already; wait for its verdict.")
        self.running = running = Running(AuditTarget(TARGET, new_id()), actor, datetime.now(UTC))
        try:
            await intents.begin(self._db, ACTION, actor, running.target, {})
        except BaseException:
            self.running = None
            raise
        self._wanted.set()
        return running

    async def run(self) -> None:
        """For as long as the console runs."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            assert self.running is not None
            try:
                await self._once(self.running)
            finally:
                self.running = None

    async def _once(self, running: Running) -> None:
        began_s = time.monotonic()
        outcome, said = "error", dict[str, Any]()
        try:
            async with asyncio.timeout(WHOLE_S):
                report = await self._judged(running)
        except TimeoutError:
            said = {"why": "It took too long and was stopped."}
        except (Failure, OSError) as error:
            said = {"why": str(error)[:TEXT_LIMIT]}
        else:
            outcome, said = outcome_of(report), summary(report)
        said["duration_ms"] = int((time.monotonic() - began_s) * 1000)
        tell = _log.info if outcome == "success" else _log.error
        tell("audit_verified", outcome=outcome, records=said.get("records"), why=said.get("why"))
        await self._record(running, outcome, said)

    async def _record(self, running: Running, outcome: str, said: Mapping[str, Any]) -> None:
        """The verdict is not lost because the database is away for a moment."""
        while True:
            try:
                await intents.end(self._db, ACTION, running.actor, running.target, outcome=outcome, meta=said)
            except Unavailable as error:
                _log.warning("audit_verdict_delayed", cause=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _judged(self, running: Running) -> Mapping[str, Any]:
        """What the judge reports. Raises Unavailable when it comes to none."""
        job = await self._job()
        async with _judge() as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(orjson.dumps(job) + b"\n")
            await process.stdin.drain()
            while True:
                async with asyncio.timeout(SILENT_S):
                    line = await process.stdout.readline()
                if not line.endswith(b"\n"):
                    raise Unavailable("The verifier ended without a verdict.")
                said = orjson.loads(line)
                if "report" in said:
                    report: Mapping[str, Any] = said["report"]
                    return report
                if "failure" in said:
                    raise Unavailable(said["failure"])
                self.running = replace(running, records=said["records"], total=said["total"])

    async def _job(self) -> dict[str, Any]:
        """What to verify. All of it up to now is signed first."""
        async with self._db.transaction() as conn:
            await checkpoints.make(conn, self._signer, "critical", datetime.now(UTC))
        async with self._db.reading() as conn:
            epoch = (await conn.execute(select(audit_head.c.epoch))).scalar_one()
            archives = await places(conn)
        keys = [self._signer.verifier(number).vkey for number in range(1, epoch + 1)]
        return {"database": self._url, "archives": archives, "keys": keys}


async def places(conn: AsyncConnection) -> list[str]:
    """Every archive that holds segments of this log; more than one after a move."""
    used = select(audit_segments.c.place).where(audit_segments.c.state.in_((State.VERIFIED, State.PRUNED))).distinct()
    return sorted((await conn.execute(used)).scalars())


async def last(conn: AsyncConnection) -> Last | None:
    """The newest verdict that the log holds, whoever asked for it: the console or a command."""
    c = audit_records.c
    newest = select(c.seq, c.body).where(c.action == ACTION, c.outcome.is_not(None)).order_by(c.seq.desc())
    for row in await conn.execute(newest.limit(LOOKED_AT)):
        if reading.read(row.body) is not None:
            return _last(row.seq, orjson.loads(row.body))
    return None


def _last(seq: int, record: Mapping[str, Any]) -> Last:
    said = record.get("meta")
    return Last(
        seq,
        record["ts"],
        record["actor"]["name"],
        record["outcome"],
        record.get("reason"),
        said if isinstance(said, Mapping) else {},
    )


def outcome_of(report: Mapping[str, Any]) -> str:
    """As a record says it; `report` is a `judge.document`."""
    if report["broken"]:
        return "failure"
    return "success" if report["intact"] else "unknown"


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the record of a verdict keeps of a `judge.document`."""
    kept = ("first_bad", "first_seq", "size", "records", "checkpoints", "signed_size", "outside_size", "unreached")
    said = {name: report[name] for name in kept if report[name] is not None}
    findings = [{"aspect": one["aspect"], "message": one["message"][:TEXT_LIMIT]} for one in report["findings"][:SAID]]
    return {
        **report["verdicts"],
        **said,
        "findings": findings,
        "findings_total": len(report["findings"]) + report["hidden_findings"],
        "warnings": [warning[:TEXT_LIMIT] for warning in report["warnings"][:SAID]],
    }


@asynccontextmanager
async def _judge() -> AsyncIterator[asyncio.subprocess.Process]:
    """The judge in a process that does not outlive the block."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "server_monitor.audit.judge"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_LIMIT_BYTES,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
