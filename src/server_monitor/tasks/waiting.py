"""Runs whose turn has not come yet: what is looked at again before they begin, and how they are withdrawn."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, and_, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.db.tables import runs, servers, tasks
from server_monitor.tasks.rows import (
    BY_SYSTEM,
    close_waiting,
    finish_runs,
)
from server_monitor.tasks.run import (
    Status,
)


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
    server_ids: tuple[str, ...]


async def waiting_runs(conn: AsyncConnection, known: Collection[str]) -> list[Waiting]:
    """The runs that have queued tasks, apart from the known ones."""
    queued = select(tasks.c.run_id).where(tasks.c.status == Status.QUEUED).distinct()
    wanted = select(runs).where(runs.c.id.in_(queued))
    if known:
        wanted = wanted.where(runs.c.id.not_in(known))
    return await _waiting(conn, wanted.order_by(runs.c.created_at).limit(1_000))


async def asked(conn: AsyncConnection, run_id: str) -> Waiting | None:
    """The same of one run, whatever state its tasks are in."""
    return next(iter(await _waiting(conn, select(runs).where(runs.c.id == run_id))), None)


async def _waiting(conn: AsyncConnection, wanted: Select[Any]) -> list[Waiting]:
    found = (await conn.execute(wanted)).all()
    by_run: dict[str, list[str]] = {row.id: [] for row in found}
    if by_run:
        columns = (tasks.c.run_id, tasks.c.server_id)
        for row in await conn.execute(select(*columns).where(tasks.c.run_id.in_(by_run)).order_by(tasks.c.position)):
            by_run[row.run_id].append(row.server_id)
    return [
        Waiting(
            row.id,
            row.command,
            row.shell,
            row.user_id,
            row.user_name,
            row.ruling,
            row.decision,
            row.digest,
            tuple(row.secret_names),
            tuple(by_run[row.id]),
        )
        for row in found
    ]


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
    fits = exists().where(servers.c.id == tasks.c.server_id, servers.c.enabled, servers.c.capability != "observe")
    unfit = and_(tasks.c.run_id == run_id, tasks.c.status == Status.QUEUED, ~fits)
    ended = {"status": Status.SKIPPED, "cause": "server_unfit", "finished_at": now}
    count = (await conn.execute(update(tasks).where(unfit).values(**ended))).rowcount
    if count:
        meta = {"skipped": count, "why": "server_unfit"}
        event = Event("task.cancel", BY_SYSTEM, AuditTarget("run", run_id), reason="server_unfit", meta=meta)
        await log.append(conn, event)
        await finish_runs(conn, [run_id], now)
