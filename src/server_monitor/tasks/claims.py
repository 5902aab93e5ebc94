"""Who runs a task: claims, signs of life, and what becomes of claims whose holder is dead.

Only the holder of a claim may move a running task, and the claim's fence says whether it still is the holder.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.db.tables import facts, heartbeats, runs, servers, tasks
from server_monitor.tasks.rows import (
    BY_SYSTEM,
    append_each,
    lock_runs,
    on_behalf,
    server_target,
)
from server_monitor.tasks.run import (
    Claimed,
    Mode,
    Status,
)

CANDIDATES = 2_000  # queued tasks looked at in one turn
IDS_AT_ONCE = 500  # in one statement
CLAIM_LOCK = 0x7461736B  # a number of our own among PostgreSQL's advisory locks


async def claim(
    conn: AsyncConnection, owner: str, *, slots: int, per_server: int, cleared: Collection[str], now: datetime
) -> list[Claimed]:
    """Take up to `slots` queued tasks of the cleared runs, oldest runs first, and append `task.start` for each.

    A server gets `per_server` tasks at once, a run its `max_parallel`; behind its canaries a run waits for all of them.
    """
    if slots <= 0 or not cleared or not await _has_queued(conn, cleared):
        return []
    await _wait_for_turn(conn)
    chosen = await _locked(conn, list(await _next_tasks(conn, await _room(conn, cleared, per_server), slots)))
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
    begun = zip(chosen, claimed, strict=True)
    await append_each(conn, ((task.request_id, _start_event(row, task)) for row, task in begun))
    return claimed


async def _has_queued(conn: AsyncConnection, run_ids: Collection[str]) -> bool:
    """Most turns only store how tasks of their runs have ended: they need not look for room."""
    queued = select(tasks.c.id).where(tasks.c.status == Status.QUEUED, tasks.c.run_id.in_(run_ids))
    return await conn.scalar(queued.limit(1)) is not None


async def next_runs(conn: AsyncConnection, run_ids: Collection[str], *, slots: int, per_server: int) -> list[str]:
    """Those of the runs whose tasks would be claimed next, were all of them cleared; oldest first."""
    chosen = await _next_tasks(conn, await _room(conn, run_ids, per_server), slots)
    return list(dict.fromkeys(chosen.values()))


async def _wait_for_turn(conn: AsyncConnection) -> None:
    """Claims of several consoles are made one after the other: each counts what the ones before it have taken.

    Row locks alone would not do: two who look at the same moment both see the same room on a server. SQLite has one
    writer anyway.
    """
    if conn.dialect.name == "postgresql":
        await conn.execute(select(func.pg_advisory_xact_lock(CLAIM_LOCK)))


@dataclass(slots=True)
class _Room:
    """How many more tasks each run and each server may have at once. A server that is not named is idle."""

    runs: dict[str, int]
    servers: dict[str, int]
    per_server: int
    held_runs: frozenset[str]  # their canaries have not all succeeded: nothing but canaries may begin

    def take(self, run_id: str, server_id: str) -> bool:
        """Take the room for one task, if there is any."""
        of_server = self.servers.get(server_id, self.per_server)
        if self.runs[run_id] <= 0 or of_server <= 0:
            return False
        self.runs[run_id] -= 1
        self.servers[server_id] = of_server - 1
        return True


async def _room(conn: AsyncConnection, cleared: Collection[str], per_server: int) -> _Room:
    is_running = tasks.c.status == Status.RUNNING
    running = (await conn.execute(select(tasks.c.run_id, tasks.c.server_id).where(is_running))).all()
    in_runs, on_servers = Counter(row.run_id for row in running), Counter(row.server_id for row in running)
    limits = select(runs.c.id, runs.c.max_parallel, runs.c.canary).where(runs.c.id.in_(cleared))
    rows = (await conn.execute(limits)).all()
    return _Room(
        {row.id: row.max_parallel - in_runs[row.id] for row in rows},
        {server_id: per_server - count for server_id, count in on_servers.items()},
        per_server,
        await _held_by_canaries(conn, [row.id for row in rows if row.canary]),
    )


async def _held_by_canaries(conn: AsyncConnection, run_ids: Collection[str]) -> frozenset[str]:
    if not run_ids:
        return frozenset()
    is_early = and_(tasks.c.run_id == runs.c.id, tasks.c.position < runs.c.canary, tasks.c.status != Status.SUCCESS)
    return frozenset(await conn.scalars(select(runs.c.id).where(runs.c.id.in_(run_ids), exists().where(is_early))))


async def _next_tasks(conn: AsyncConnection, room: _Room, slots: int) -> dict[str, str]:
    """The next queued tasks for which there is room, oldest runs first, each with its run.

    Looked for in portions, each without the runs and servers that are full by then: neither a run of ten thousand tasks
    nor a thousand tasks for one server keep the others from being found, or are read again and again.
    """
    chosen: dict[str, str] = {}
    while len(chosen) < slots:
        found = (await conn.execute(_candidates(room))).all()
        before = len(chosen)
        for row in found:
            if len(chosen) < slots and row.id not in chosen and room.take(row.run_id, row.server_id):
                chosen[row.id] = row.run_id
        if len(found) < CANDIDATES or len(chosen) == before:
            break
    return chosen


def _candidates(room: _Room) -> Select[Any]:
    with_room = [run_id for run_id, left in room.runs.items() if left > 0]
    full = [server_id for server_id, left in room.servers.items() if left <= 0]
    may_begin = or_(tasks.c.run_id.not_in(room.held_runs), tasks.c.position < runs.c.canary)
    return (
        select(tasks.c.id, tasks.c.run_id, tasks.c.server_id)
        .select_from(tasks.join(runs))
        .where(
            tasks.c.status == Status.QUEUED, tasks.c.run_id.in_(with_room), tasks.c.server_id.not_in(full), may_begin
        )
        .order_by(runs.c.created_at, runs.c.id, tasks.c.position)
        .limit(CANDIDATES)
    )


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


async def _locked(conn: AsyncConnection, task_ids: Sequence[str]) -> list[Row[Any]]:
    """These tasks with their runs, apart from those that somebody has cancelled meanwhile or is about to."""
    rows: list[Row[Any]] = []
    for start in range(0, len(task_ids), IDS_AT_ONCE):
        wanted = (
            select(tasks, *_RUN_COLUMNS, facts.c.document.label("facts"))
            .select_from(tasks.join(runs).outerjoin(facts, facts.c.server_id == tasks.c.server_id))
            .where(tasks.c.id.in_(task_ids[start : start + IDS_AT_ONCE]), tasks.c.status == Status.QUEUED)
            .order_by(runs.c.created_at, runs.c.id, tasks.c.position)
            .with_for_update(of=tasks, skip_locked=True)
        )
        rows += (await conn.execute(wanted)).all()
    return rows


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
        ending=row.cause if taken_over else None,
    )


def _start_event(row: Row[Any], task: Claimed) -> Event:
    meta = {"task_id": task.task_id, "run_id": task.run_id, "command": task.command, "fence": task.fence}
    return Event("task.start", on_behalf(row), server_target(row), phase="intent", outcome=None, meta=meta)


async def beat(conn: AsyncConnection, owner: str, now: datetime) -> None:
    """Say that this instance lives, and with it all its claims."""
    changed = await conn.execute(update(heartbeats).where(heartbeats.c.owner == owner).values(beat_at=now))
    if changed.rowcount == 0:
        await conn.execute(insert(heartbeats).values(owner=owner, beat_at=now))


async def beats(conn: AsyncConnection) -> dict[str, datetime]:
    """The last sign of life of every instance, by its own clock."""
    return {row.owner: row.beat_at for row in await conn.execute(select(heartbeats))}


async def note_mode(conn: AsyncConnection, claimed: Claimed, mode: Mode) -> bool:
    """Write down how the command of this claim runs, for whoever comes after us. False when the claim is lost."""
    return bool((await conn.execute(update(tasks).where(_held(claimed)).values(mode=mode))).rowcount)


async def note_ending(conn: AsyncConnection, claimed: Claimed, why: str) -> bool:
    """Write down that the command of this claim is about to be ended, and why, before its host hears of it.

    False when the claim is lost.
    """
    return bool((await conn.execute(update(tasks).where(_held(claimed)).values(cause=why))).rowcount)


async def is_where_it_was(conn: AsyncConnection, claimed: Claimed) -> bool:
    """Has nothing been changed about the task's server since the claim: is it the same account on the same host?"""
    same = and_(servers.c.id == claimed.server_id, servers.c.updated_at <= claimed.started_at)
    return await conn.scalar(select(servers.c.id).where(same)) is not None


async def requeue(conn: AsyncConnection, claimed: Claimed) -> bool:
    """Put back a task that never started on its host, once.

    False when it has been put back before, or when somebody has asked for its end meanwhile.
    """
    # A cancel looks at what waits first and then at what runs: a task that went back in between would be neither.
    await lock_runs(conn, [claimed.run_id])
    again = and_(_held(claimed), tasks.c.requeued.is_(False), tasks.c.cancel_requested_at.is_(None))
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
    conn: AsyncConnection,
    owner: str,
    *,
    dead: Collection[str] = (),
    strayed: Collection[str] = (),
    is_start: bool = False,
) -> list[Claimed]:
    """Claim the running tasks of the dead, those that have strayed from us, and at the start all that were ours before.

    Whoever has no heartbeat is dead too. Appends one `task.recover` for them all.
    """
    await _wait_for_turn(conn)
    is_nobodys = or_(tasks.c.owner.is_(None), tasks.c.owner.not_in(select(heartbeats.c.owner)))
    is_dead = or_(is_nobodys, tasks.c.owner.in_({*dead, owner} if is_start else set(dead) - {owner}))
    rows = (
        await conn.execute(
            select(tasks, *_RUN_COLUMNS)
            .select_from(tasks.join(runs))
            .where(tasks.c.status == Status.RUNNING, or_(is_dead, tasks.c.id.in_(strayed)))
            .with_for_update(of=tasks, skip_locked=True)
        )
    ).all()
    if not rows:
        return []
    ids = [row.id for row in rows]
    for start in range(0, len(ids), IDS_AT_ONCE):
        part = tasks.c.id.in_(ids[start : start + IDS_AT_ONCE])
        await conn.execute(update(tasks).where(part).values(owner=owner, fence=tasks.c.fence + 1))
    meta = {"tasks": len(rows), "runs": len({row.run_id for row in rows}), "became": "taken over"}
    await log.append(conn, Event("task.recover", BY_SYSTEM, AuditTarget("console", owner), meta=meta))
    return [
        _claimed(row, fence=row.fence + 1, started_at=row.started_at, boot_id=row.boot_id, taken_over=True)
        for row in rows
    ]


async def strayed(conn: AsyncConnection, owner: str, held: Collection[str]) -> set[str]:
    """The running tasks of this instance that it does not know to be its own: the answer to a claim got lost."""
    mine = select(tasks.c.id).where(tasks.c.status == Status.RUNNING, tasks.c.owner == owner)
    return set(await conn.scalars(mine)).difference(held)


async def forget_heartbeats(conn: AsyncConnection, dead: Collection[str], older_than: datetime) -> None:
    """Let go of instances that are long dead and hold nothing."""
    holds = exists().where(tasks.c.owner == heartbeats.c.owner, tasks.c.status == Status.RUNNING)
    gone = and_(heartbeats.c.owner.in_(dead), heartbeats.c.beat_at < older_than)
    await conn.execute(delete(heartbeats).where(gone, ~holds))
