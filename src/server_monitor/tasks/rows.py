"""What the modules that move runs and tasks share. A move is a conditional update, with its audit record in the same
transaction: whoever changes no row lost a race and does nothing.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Row, and_, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.auth.actor import Actor, ActorKind, Permission, groups_allowing
from server_monitor.db.ids import MENTIONED, is_id
from server_monitor.db.tables import group_members, runs, tasks
from server_monitor.errors import Denied, NotFound
from server_monitor.tasks.listing import visible_tasks
from server_monitor.tasks.run import (
    OPEN,
    Status,
)
from server_monitor.telemetry.logs import RequestContext, request_context

NAMES_IN_RECORD = 50
OVERDUE_AT_ONCE = 1_000
BY_SYSTEM = AuditActor(ActorKind.SYSTEM.value, None, "system")


def on_behalf(row: Row[Any]) -> AuditActor:
    kind = ActorKind.TOKEN if row.token_id else ActorKind.USER if row.user_id else ActorKind.OS_USER
    return AuditActor(kind.value, row.user_id, row.user_name, token_id=row.token_id)


def server_target(row: Row[Any]) -> AuditTarget:
    return AuditTarget("server", row.server_id, row.server_name)


async def append_each(conn: AsyncConnection, events: Iterable[tuple[str, Event]]) -> None:
    """Record what became of tasks of several runs, each event for the request that asked for its run."""
    for request_id, those in groupby(events, key=itemgetter(0)):
        with acting_for(request_id):
            await log.append(conn, *(event for _, event in those))


@contextmanager
def acting_for(request_id: str) -> Iterator[None]:
    """Records and log lines made inside belong to the request that asked for the run."""
    token = request_context.set(RequestContext(request_id, "system"))
    try:
        yield
    finally:
        request_context.reset(token)


async def lock_runs(conn: AsyncConnection, run_ids: Collection[str]) -> None:
    """Nobody else moves the tasks of these runs before this transaction is over; only a claim may.

    On PostgreSQL two transactions that each end one of the last two tasks would otherwise both see the other's as open,
    and neither would end the run. Runs come before tasks, in the order of their ids, so that nobody waits in a circle.
    SQLite has one writer anyway.
    """
    if conn.dialect.name == "postgresql" and run_ids:
        wanted = select(runs.c.id).where(runs.c.id.in_(run_ids)).order_by(runs.c.id)
        await conn.execute(wanted.with_for_update(key_share=True))


async def close_waiting(conn: AsyncConnection, run_id: str, status: Status, cause: str, now: datetime) -> int:
    """End the tasks of a run that have not begun."""
    await lock_runs(conn, [run_id])
    begun = (Status.AWAITING_APPROVAL, Status.QUEUED)
    closed = await conn.execute(
        update(tasks)
        .where(tasks.c.run_id == run_id, tasks.c.status.in_(begun))
        .values(status=status, cause=cause, finished_at=now)
    )
    await finish_runs(conn, [run_id], now)
    return int(closed.rowcount)


async def finish_runs(conn: AsyncConnection, run_ids: Collection[str], now: datetime) -> None:
    """Note the end of runs whose last task has ended.

    Whoever ends tasks before this calls `lock_runs` before that.
    """
    await lock_runs(conn, run_ids)
    over = and_(runs.c.id.in_(run_ids), _IS_OVERDUE)
    await conn.execute(update(runs).where(over).values(**_finished(now)))


async def finish_overdue(conn: AsyncConnection, now: datetime) -> int:
    """Note the end of runs that have no open task and still count as running; returns how many.

    No way leads there any more; an earlier version, or a database that was put back, may have left some. Runs that
    somebody else holds are left to them.
    """
    overdue = select(runs.c.id).where(_IS_OVERDUE).order_by(runs.c.id).limit(OVERDUE_AT_ONCE)
    run_ids = list(await conn.scalars(overdue.with_for_update(key_share=True, skip_locked=True)))
    if run_ids:
        await conn.execute(update(runs).where(runs.c.id.in_(run_ids)).values(**_finished(now)))
    return len(run_ids)


_IS_OVERDUE = and_(runs.c.finished_at.is_(None), ~exists().where(tasks.c.run_id == runs.c.id, tasks.c.status.in_(OPEN)))


def _finished(now: datetime) -> dict[str, Any]:
    return {"finished_at": now, "secrets": None, "secrets_key": None}


async def require_everywhere(conn: AsyncConnection, run_id: str, permission: Permission, actor: Actor) -> None:
    """Raises Denied unless the actor holds the permission for every server of the run."""
    if await out_of_reach(conn, [run_id], permission, actor):
        raise Denied(f"This takes the permission {permission.value} for every server of the run.")


async def out_of_reach(
    conn: AsyncConnection, run_ids: Collection[str], permission: Permission, actor: Actor
) -> frozenset[str]:
    """Those of these runs that have a server for which the actor does not hold the permission."""
    allowed = groups_allowing(actor, permission)
    if allowed is None or not run_ids:
        return frozenset()
    members = select(group_members.c.server_id).where(group_members.c.group_id.in_(allowed))
    elsewhere = tasks.c.run_id.in_(run_ids), tasks.c.server_id.not_in(members)
    return frozenset(await conn.scalars(select(tasks.c.run_id).where(*elsewhere).distinct()))


async def get_run(conn: AsyncConnection, run_id: str, *, actor: Actor) -> Row[Any]:
    """The row of a run. Raises NotFound when there is none, or none of whose servers the actor may see the tasks."""
    if not is_id(run_id):
        raise NotFound("run", run_id[:MENTIONED])
    seen = exists().where(tasks.c.run_id == runs.c.id, visible_tasks(actor))
    found = (await conn.execute(select(runs).where(runs.c.id == run_id, seen))).one_or_none()
    if found is None:
        raise NotFound("run", run_id)
    return found
