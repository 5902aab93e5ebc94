"""Ending tasks before their time."""

from datetime import datetime
from typing import Any

from sqlalchemy import and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Actor, Permission, allows, audited
from server_monitor.db.ids import MENTIONED, is_id
from server_monitor.db.tables import runs, tasks
from server_monitor.errors import Conflict, Denied, NotFound
from server_monitor.fleet.selection import groups_of
from server_monitor.tasks.endings import stop_where_too_many_failed
from server_monitor.tasks.listing import visible_tasks
from server_monitor.tasks.rows import (
    finish_runs,
    get_run,
    lock_runs,
    require_everywhere,
)
from server_monitor.tasks.run import (
    Status,
)


async def cancel_task(conn: AsyncConnection, task_id: str, *, actor: Actor, now: datetime) -> Status:
    """End a task: at once when it waits, else as soon as its host confirms it. Returns the state it has now.

    Appends `task.cancel`. Raises Conflict when it is over.
    """
    if not is_id(task_id):
        raise NotFound("task", task_id[:MENTIONED])
    task = (await conn.execute(select(tasks).where(tasks.c.id == task_id, visible_tasks(actor)))).one_or_none()
    if task is None:
        raise NotFound("task", task_id)
    await _require_of_server(conn, task.server_id, actor)
    await lock_runs(conn, [task.run_id])
    if await _cancel_rows(conn, tasks.c.id == task_id, actor, now) == 0:
        raise Conflict("This task is over.")
    meta = {"task_id": task_id, "run_id": task.run_id, "was": task.status}
    target = AuditTarget("server", task.server_id, task.server_name)
    await log.append(conn, Event("task.cancel", audited(actor), target, meta=meta))
    await stop_where_too_many_failed(conn, [task.run_id], now)
    await finish_runs(conn, [task.run_id], now)
    now_is: str = (await conn.execute(select(tasks.c.status).where(tasks.c.id == task_id))).scalar_one()
    return Status(now_is)


async def cancel_run(conn: AsyncConnection, run_id: str, *, actor: Actor, now: datetime) -> int:
    """End every task of a run that is not over; returns how many those were. Raises Conflict when there is none."""
    await get_run(conn, run_id, actor=actor)
    await require_everywhere(conn, run_id, Permission.TASK_RUN, actor)
    await lock_runs(conn, [run_id])
    count = await _cancel_rows(conn, tasks.c.run_id == run_id, actor, now)
    if count == 0:
        raise Conflict("This run is over.")
    await conn.execute(update(runs).where(runs.c.id == run_id).values(cancelled_at=now, cancelled_name=actor.name))
    await log.append(conn, Event("task.cancel", audited(actor), AuditTarget("run", run_id), meta={"tasks": count}))
    await finish_runs(conn, [run_id], now)
    return count


async def _cancel_rows(conn: AsyncConnection, which: Any, actor: Actor, now: datetime) -> int:
    waiting = and_(which, tasks.c.status.in_((Status.AWAITING_APPROVAL, Status.QUEUED)))
    ended = {"status": Status.CANCELLED, "cause": "cancelled", "detail": f"by {actor.name}", "finished_at": now}
    closed = await conn.execute(update(tasks).where(waiting).values(**ended))
    running = and_(which, tasks.c.status == Status.RUNNING, tasks.c.cancel_requested_at.is_(None))
    asked = await conn.execute(update(tasks).where(running).values(cancel_requested_at=now))
    return int(closed.rowcount) + int(asked.rowcount)


async def _require_of_server(conn: AsyncConnection, server_id: str, actor: Actor) -> None:
    groups = await groups_of(conn, [server_id])
    if not allows(actor, Permission.TASK_RUN, groups.get(server_id, ())):
        raise Denied(f"This takes the permission {Permission.TASK_RUN.value} for the server.")


async def to_be_cancelled(conn: AsyncConnection, owner: str) -> set[str]:
    """The running tasks of this instance whose end somebody has asked for."""
    wanted = and_(tasks.c.status == Status.RUNNING, tasks.c.owner == owner, tasks.c.cancel_requested_at.is_not(None))
    return set(await conn.scalars(select(tasks.c.id).where(wanted)))
