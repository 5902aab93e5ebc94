"""Runs are forgotten when they have been over for long enough, with their tasks and all that those printed."""

import asyncio
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, exists, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.db.engine import Database
from server_monitor.db.tables import runs, tasks
from server_monitor.tasks.output import Outputs
from server_monitor.tasks.rows import BY_SYSTEM

BATCH: Final = 200  # tasks deleted in one transaction; each may hold 2 MiB of output


async def forget(db: Database, outputs: Outputs, before: datetime) -> int:
    """Forget the runs that were over before this instant; returns how many tasks they had.

    Appends one `task.expire` before anything is deleted: when this is cut short, nothing has gone without a record, and
    the next time records what was left.
    """
    async with db.transaction() as conn:
        if not await _record(conn, db.node, before):
            return 0
    count = 0
    while forgotten := await _forget_some(db, outputs, before):
        count += forgotten
    async with db.transaction() as conn:
        await conn.execute(delete(runs).where(_over(before), ~exists().where(tasks.c.run_id == runs.c.id)))
    return count


async def _record(conn: AsyncConnection, node: str, before: datetime) -> bool:
    """Record what is about to be deleted; False when it is nothing."""
    run_count = (await conn.execute(select(func.count()).select_from(runs).where(_over(before)))).scalar_one()
    if run_count == 0:
        return False
    due = select(func.count()).select_from(tasks.join(runs)).where(_over(before))
    meta = {
        "runs": run_count,
        "tasks": (await conn.execute(due)).scalar_one(),
        "finished_before": before.isoformat(),
        "why": "retention",
    }
    await log.append(conn, Event("task.expire", BY_SYSTEM, AuditTarget("console", node), meta=meta))
    return True


async def _forget_some(db: Database, outputs: Outputs, before: datetime) -> int:
    async with db.reading() as conn:
        due = select(tasks.c.id).select_from(tasks.join(runs)).where(_over(before)).limit(BATCH)
        ids = list(await conn.scalars(due))
    if ids:
        # Files first: what has no row any more would never be looked for again.
        await asyncio.to_thread(outputs.delete, ids)
        async with db.transaction() as conn:
            await conn.execute(delete(tasks).where(tasks.c.id.in_(ids)))
    return len(ids)


def _over(before: datetime) -> ColumnElement[bool]:
    return and_(runs.c.finished_at.is_not(None), runs.c.finished_at < before)
