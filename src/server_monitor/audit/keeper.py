"""Makes checkpoints as long as the console runs, and writes down when the clock jumps."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import checkpoints, log
from server_monitor.audit.chain import AuditActor, Event, timestamp
from server_monitor.audit.checkpoints import Made, Signer
from server_monitor.audit.clock import Step, Watch
from server_monitor.audit.damage import reported
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records
from server_monitor.errors import Failure
from server_monitor.telemetry.logs import logger

LOOK_EVERY_S = 1.0
DELAYED_S = 10.0  # after a failure
STEPS_READ = 100

_SYSTEM = AuditActor("system", None, "system:clock")
_log = logger(__name__)


class Keeper:
    """Looks at the log every second and signs it when a checkpoint is due."""

    def __init__(self, db: Database, signer: Signer) -> None:
        self._db = db
        self._signer = signer
        self._watch = Watch()
        self._unrecorded: list[Step] = []

    async def run(self) -> None:
        while True:
            try:
                await self.watch_clock(datetime.now(UTC), time.clock_gettime(time.CLOCK_BOOTTIME))
                await self.look()
            except Failure as error:
                _log.warning("checkpoint_delayed", cause=str(error))
                await asyncio.sleep(DELAYED_S)
            await asyncio.sleep(LOOK_EVERY_S)

    async def watch_clock(self, wall: datetime, ran_s: float) -> None:
        """Record `system.clock_step` when the wall clock has moved against the time that really passed."""
        step = self._watch.look(wall, ran_s)
        if step is not None:
            self._unrecorded.append(step)
        while self._unrecorded:  # What cannot be written now is written later.
            await self._record(self._unrecorded[0])
            del self._unrecorded[0]

    async def _record(self, step: Step) -> None:
        meta = {"moved_ms": round(step.moved.total_seconds() * 1000), "clock": timestamp(step.at)}
        async with self._db.transaction() as conn:
            await log.append(conn, Event("system.clock_step", _SYSTEM, meta=meta))
        _log.warning("clock_step", **meta)

    async def look(self, now: datetime | None = None) -> Made | None:
        """Make a checkpoint if one is due; returns it."""
        now = now or datetime.now(UTC)
        with reported():
            async with self._db.reading() as conn:
                newest = await checkpoints.newest(conn)
                size = await log.size(conn)
                actions = await log.actions_since(conn, newest.size) if newest and size > newest.size else ()
            why = checkpoints.why_due(newest, size, actions, now)
        return None if why is None else await self.sign(why, now)

    async def sign(self, why: str, now: datetime | None = None) -> Made:
        """Make a checkpoint now. Raises Unavailable."""
        with reported():
            async with self._db.transaction() as conn:
                return await checkpoints.make(conn, self._signer, why, now or datetime.now(UTC))


async def clock_steps(conn: AsyncConnection) -> list[Step]:
    """The steps of the clock that the log has, newest first."""
    c = audit_records.c
    found = select(c.body).where(c.action == "system.clock_step").order_by(c.seq.desc()).limit(STEPS_READ)
    metas = [orjson.loads(body)["meta"] for body in (await conn.execute(found)).scalars()]
    return [Step(datetime.fromisoformat(m["clock"]), timedelta(milliseconds=m["moved_ms"])) for m in metas]
