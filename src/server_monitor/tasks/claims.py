"""Who runs a task: claims, signs of life, and what becomes of claims whose holder is dead.

Only the holder of a claim may move a running task, and the claim's fence says whether it still is the holder.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.db.tables import facts, heartbeats, runs, tasks
from server_monitor.tasks.rows import (
    BY_SYSTEM,
    acting_for,
    on_behalf,
    server_target,
)
from server_monitor.tasks.run import (
    Claimed,
    Mode,
    Status,
)

CANDIDATES = 2_000  # queued tasks looked at in one turn


async def claim(
    conn: AsyncConnection, owner: str, *, slots: int, per_server: int, cleared: Collection[str], now: datetime
) -> list[Claimed]:
    """Take up to `slots` queued tasks of the cleared runs, oldest runs first, and append `task.start` for each.

    A server gets `per_server` tasks at once, a run its `max_parallel`; behind its canaries a run waits for all of them.
    """
    if slots <= 0 or not cleared:
        return []
    taken = await _running(conn)
    chosen: list[Row[Any]] = []
    for row in (await conn.execute(_candidates(cleared, per_server))).all():
        if len(chosen) == slots:
            break
        if taken.servers[row.server_id] < per_server and taken.runs[row.run_id] < row.max_parallel:
            taken.servers[row.server_id] += 1
            taken.runs[row.run_id] += 1
            chosen.append(row)
    if not chosen:
        return []
    await conn.execute(
        update(tasks)
        .where(tasks.c.id == bindparam("b_id"))
        .values(
            status=Status.RUNNING, owner=owner, fence=tasks.c.fence + 1, started_at=now, boot_id=bindparam("b_boot")
        ),
        [{"b_id": row.id, "b_boot": _boot_id(row.facts)} for row in chosen],
    )
    claimed = [_claimed(row, fence=row.fence + 1, started_at=now, boot_id=_boot_id(row.facts)) for row in chosen]
    for row, task in zip(chosen, claimed, strict=True):
        with acting_for(task.request_id):
            await log.append(conn, _start_event(row, task))
    return claimed


@dataclass(slots=True)
class _Taken:
    runs: Counter[str]
    servers: Counter[str]


async def _running(conn: AsyncConnection) -> _Taken:
    rows = (await conn.execute(select(tasks.c.run_id, tasks.c.server_id).where(tasks.c.status == Status.RUNNING))).all()
    return _Taken(Counter(row.run_id for row in rows), Counter(row.server_id for row in rows))


_RUN_COLUMNS = (
    runs.c.command,
    runs.c.shell,
    runs.c.timeout_s,
    runs.c.max_parallel,
    runs.c.request_id,
    runs.c.store_output,
    runs.c.secrets,
    runs.c.secrets_key,
    runs.c.user_id,
    runs.c.user_name,
    runs.c.token_id,
)


def _candidates(cleared: Collection[str], per_server: int) -> Select[Any]:
    """The next queued tasks of each run that may begin by their run's rules, on servers that have room."""
    running = tasks.alias("running")
    room = (
        select(func.count())
        .select_from(running)
        .where(running.c.status == Status.RUNNING, running.c.server_id == tasks.c.server_id)
        .scalar_subquery()
        < per_server
    )
    early = tasks.alias("early")
    canaries_passed = ~exists().where(
        early.c.run_id == tasks.c.run_id, early.c.position < runs.c.canary, early.c.status != Status.SUCCESS
    )
    place_in_run = func.row_number().over(partition_by=tasks.c.run_id, order_by=tasks.c.position)
    queued = (
        select(tasks.c.id, place_in_run.label("place"))
        .select_from(tasks.join(runs))
        .where(
            tasks.c.status == Status.QUEUED,
            tasks.c.run_id.in_(cleared),
            or_(tasks.c.position < runs.c.canary, runs.c.canary == 0, canaries_passed),
            room,
        )
        .subquery("queued")
    )
    return (
        select(tasks, *_RUN_COLUMNS, facts.c.document.label("facts"))
        .select_from(
            queued.join(tasks, tasks.c.id == queued.c.id)
            .join(runs, runs.c.id == tasks.c.run_id)
            .outerjoin(facts, facts.c.server_id == tasks.c.server_id)
        )
        .where(queued.c.place <= runs.c.max_parallel)
        .order_by(runs.c.created_at, tasks.c.position)
        .limit(CANDIDATES)
        .with_for_update(of=tasks, skip_locked=True)
    )


def _boot_id(document: Mapping[str, Any] | None) -> str | None:
    found = document.get("boot_id") if document else None
    return str(found)[:64] if found else None


def _claimed(
    row: Row[Any], *, fence: int, started_at: datetime, boot_id: str | None, taken_over: bool = False
) -> Claimed:
    return Claimed(
        task_id=row.id,
        run_id=row.run_id,
        server_id=row.server_id,
        server_name=row.server_name,
        command=row.command,
        shell=row.shell,
        timeout_s=row.timeout_s,
        request_id=row.request_id,
        store_output=row.store_output,
        fence=fence,
        started_at=started_at,
        boot_id=boot_id,
        sealed=(row.secrets, row.secrets_key) if row.secrets else None,
        is_taken_over=taken_over,
        mode=Mode(row.mode) if row.mode else None,
    )


def _start_event(row: Row[Any], task: Claimed) -> Event:
    meta = {"task_id": task.task_id, "run_id": task.run_id, "command": task.command, "fence": task.fence}
    return Event("task.start", on_behalf(row), server_target(row), phase="intent", outcome=None, meta=meta)


async def beat(conn: AsyncConnection, owner: str, now: datetime) -> None:
    """Say that this instance lives, and with it all its claims."""
    changed = await conn.execute(update(heartbeats).where(heartbeats.c.owner == owner).values(beat_at=now))
    if changed.rowcount == 0:
        await conn.execute(insert(heartbeats).values(owner=owner, beat_at=now))


async def note_mode(conn: AsyncConnection, claimed: Claimed, mode: Mode) -> None:
    """Write down how the command of this claim runs, for whoever comes after us."""
    await conn.execute(update(tasks).where(_held(claimed)).values(mode=mode))


async def requeue(conn: AsyncConnection, claimed: Claimed) -> bool:
    """Put back a task that never started on its host, once. False when it has been put back before."""
    again = and_(_held(claimed), tasks.c.requeued.is_(False))
    values = {"status": Status.QUEUED, "owner": None, "started_at": None, "requeued": True}
    changed = await conn.execute(update(tasks).where(again).values(**values))
    if changed.rowcount:
        meta = {"task_id": claimed.task_id, "run_id": claimed.run_id, "became": "queued", "why": "it never started"}
        target = AuditTarget("server", claimed.server_id, claimed.server_name)
        await log.append(conn, Event("task.recover", BY_SYSTEM, target, meta=meta))
    return bool(changed.rowcount)


def _held(claimed: Claimed) -> Any:
    """The row of this claim, as long as it is the newest claim of its task."""
    return and_(tasks.c.id == claimed.task_id, tasks.c.status == Status.RUNNING, tasks.c.fence == claimed.fence)


async def take_over(
    conn: AsyncConnection, owner: str, *, is_start: bool, lease: timedelta, now: datetime
) -> list[Claimed]:
    """Claim the running tasks of instances that are dead: whose heartbeat is older than `lease`, and at the start those
    that were ours before. Appends one `task.recover` for them all.
    """
    living = select(heartbeats.c.owner).where(heartbeats.c.beat_at > now - lease)
    silent = tasks.c.owner.not_in(living)
    is_dead = or_(silent, tasks.c.owner == owner) if is_start else and_(silent, tasks.c.owner != owner)
    rows = (
        await conn.execute(
            select(tasks, *_RUN_COLUMNS)
            .select_from(tasks.join(runs))
            .where(tasks.c.status == Status.RUNNING, or_(is_dead, tasks.c.owner.is_(None)))
            .with_for_update(of=tasks, skip_locked=True)
        )
    ).all()
    if not rows:
        return []
    ids = [row.id for row in rows]
    for start in range(0, len(ids), 500):
        part = tasks.c.id.in_(ids[start : start + 500])
        await conn.execute(update(tasks).where(part).values(owner=owner, fence=tasks.c.fence + 1))
    meta = {"tasks": len(rows), "runs": len({row.run_id for row in rows}), "became": "taken over"}
    await log.append(conn, Event("task.recover", BY_SYSTEM, AuditTarget("console", owner), meta=meta))
    return [
        _claimed(row, fence=row.fence + 1, started_at=row.started_at, boot_id=row.boot_id, taken_over=True)
        for row in rows
    ]


async def forget_heartbeats(conn: AsyncConnection, older_than: datetime) -> None:
    """Let go of instances that are long dead and hold nothing."""
    holds = exists().where(tasks.c.owner == heartbeats.c.owner, tasks.c.status == Status.RUNNING)
    await conn.execute(delete(heartbeats).where(heartbeats.c.beat_at < older_than, ~holds))
