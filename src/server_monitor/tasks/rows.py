"""What the modules that move runs and tasks share. A move is a conditional update, with its audit record in the same
transaction: whoever changes no row lost a race and does nothing.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit.chain import AuditActor, AuditTarget
from server_monitor.auth.actor import Actor, ActorKind, Permission, allows
from server_monitor.db.tables import runs, tasks
from server_monitor.errors import Denied, NotFound
from server_monitor.fleet.selection import groups_of
from server_monitor.tasks.listing import visible_tasks
from server_monitor.tasks.run import (
    OPEN,
    Status,
)
from server_monitor.telemetry.logs import RequestContext, request_context

NAMES_IN_RECORD = 50
BY_SYSTEM = AuditActor(ActorKind.SYSTEM.value, None, "system")


def on_behalf(row: Row[Any]) -> AuditActor:
    kind = ActorKind.TOKEN if row.token_id else ActorKind.USER if row.user_id else ActorKind.OS_USER
    return AuditActor(kind.value, row.user_id, row.user_name, token_id=row.token_id)


def server_target(row: Row[Any]) -> AuditTarget:
    return AuditTarget("server", row.server_id, row.server_name)


@contextmanager
def acting_for(request_id: str) -> Iterator[None]:
    """Records and log lines made inside belong to the request that asked for the run."""
    token = request_context.set(RequestContext(request_id, "system"))
    try:
        yield
    finally:
        request_context.reset(token)


async def close_waiting(conn: AsyncConnection, run_id: str, status: Status, cause: str, now: datetime) -> int:
    """End the tasks of a run that have not begun."""
    begun = (Status.AWAITING_APPROVAL, Status.QUEUED)
    closed = await conn.execute(
        update(tasks)
        .where(tasks.c.run_id == run_id, tasks.c.status.in_(begun))
        .values(status=status, cause=cause, finished_at=now)
    )
    await finish_runs(conn, [run_id], now)
    return int(closed.rowcount)


async def finish_runs(conn: AsyncConnection, run_ids: Collection[str], now: datetime) -> None:
    """Note the end of runs whose last task has ended."""
    unfinished = exists().where(tasks.c.run_id == runs.c.id, tasks.c.status.in_(OPEN))
    over = and_(runs.c.id.in_(run_ids), runs.c.finished_at.is_(None), ~unfinished)
    await conn.execute(update(runs).where(over).values(finished_at=now, secrets=None, secrets_key=None))


async def require_everywhere(conn: AsyncConnection, run_id: str, permission: Permission, actor: Actor) -> None:
    """Raises Denied unless the actor holds the permission for every server of the run."""
    if allows(actor, permission):
        return
    ids = list(await conn.scalars(select(tasks.c.server_id).where(tasks.c.run_id == run_id)))
    groups = await groups_of(conn, ids)
    if not all(allows(actor, permission, groups.get(server_id, ())) for server_id in ids):
        raise Denied(f"This takes the permission {permission.value} for every server of the run.")


async def get_run(conn: AsyncConnection, run_id: str, *, actor: Actor) -> Row[Any]:
    """The row of a run. Raises NotFound when there is none, or none of whose servers the actor may see the tasks."""
    seen = exists().where(tasks.c.run_id == runs.c.id, visible_tasks(actor))
    found = (await conn.execute(select(runs).where(runs.c.id == run_id, seen))).one_or_none()
    if found is None:
        raise NotFound("run", run_id)
    return found
