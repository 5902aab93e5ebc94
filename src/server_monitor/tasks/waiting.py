"""Runs whose turn has not come yet: what is looked at again before they begin, and how they are withdrawn."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.db.tables import runs, servers, tasks
from server_monitor.tasks.rows import (
    BY_SYSTEM,
    close_waiting,
    finish_runs,
    lock_runs,
)
from server_monitor.tasks.run import (
    Status,
)

RUNS_MAX = 10_000  # looked for in one turn


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run with queued tasks, as the dispatcher has to judge it again before they begin."""

    run_id: str
    command: str
    shell: str
    user_id: str | None
    user_name: str
    ruling: str
    decision: str | None
    digest: str
    secret_names: tuple[str, ...]
    accounts: Mapping[str, str]  # by the ids of all its servers: those for which it was asked
    queued_ids: frozenset[str]  # the servers on which it is still to begin


async def run_ids(conn: AsyncConnection, known: Collection[str], per_server: int) -> list[str]:
    """The oldest runs that have queued tasks on servers with room, apart from the known ones."""
    running = select(tasks.c.server_id).where(tasks.c.status == Status.RUNNING).group_by(tasks.c.server_id)
    full = running.having(func.count() >= per_server)
    queued = select(tasks.c.run_id).where(tasks.c.status == Status.QUEUED, tasks.c.server_id.not_in(full))
    if known:
        queued = queued.where(tasks.c.run_id.not_in(known))
    wanted = select(runs.c.id).where(runs.c.id.in_(queued.distinct())).order_by(runs.c.created_at, runs.c.id)
    return list(await conn.scalars(wanted.limit(RUNS_MAX)))


async def asked(conn: AsyncConnection, run_id: str) -> Waiting | None:
    """What was asked for, whatever state its tasks are in."""
    row = (await conn.execute(select(runs).where(runs.c.id == run_id))).one_or_none()
    if row is None:
        return None
    columns = (tasks.c.server_id, tasks.c.account, tasks.c.status)
    placed = (await conn.execute(select(*columns).where(tasks.c.run_id == run_id))).all()
    return Waiting(
        run_id=row.id,
        command=row.command,
        shell=row.shell,
        user_id=row.user_id,
        user_name=row.user_name,
        ruling=row.ruling,
        decision=row.decision,
        digest=row.digest,
        secret_names=tuple(row.secret_names),
        accounts={task.server_id: task.account for task in placed},
        queued_ids=frozenset(task.server_id for task in placed if task.status == Status.QUEUED),
    )


async def withdraw(conn: AsyncConnection, run_id: str, cause: str, now: datetime) -> None:
    """Close what is still queued in a run whose asker may not run it any more, or which the policy now stops."""
    count = await close_waiting(conn, run_id, Status.DENIED, cause, now)
    if count:
        event = Event(
            "task.denied",
            BY_SYSTEM,
            AuditTarget("run", run_id),
            outcome="denied",
            reason=cause,
            meta={"tasks": count},
        )
        await log.append(conn, event)


async def skip_unfit(conn: AsyncConnection, run_id: str, now: datetime) -> None:
    """End the queued tasks of a run whose server no longer takes commands. Appends `task.cancel` when there are any."""
    await lock_runs(conn, [run_id])
    fits = exists().where(servers.c.id == tasks.c.server_id, servers.c.enabled, servers.c.capability != "observe")
    unfit = and_(tasks.c.run_id == run_id, tasks.c.status == Status.QUEUED, ~fits)
    ended = {"status": Status.SKIPPED, "cause": "server_unfit", "finished_at": now}
    count = (await conn.execute(update(tasks).where(unfit).values(**ended))).rowcount
    if count:
        meta = {"skipped": count, "why": "server_unfit"}
        event = Event("task.cancel", BY_SYSTEM, AuditTarget("run", run_id), reason="server_unfit", meta=meta)
        await log.append(conn, event)
        await finish_runs(conn, [run_id], now)
