"""The second person: approves or rejects what somebody else asked for, in time or not at all."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Actor, ActorKind, Permission, audited
from server_monitor.db.tables import runs, tasks
from server_monitor.errors import Conflict, Denied, Gone
from server_monitor.tasks.rows import (
    BY_SYSTEM,
    close_waiting,
    get_run,
    out_of_reach,
    require_everywhere,
)
from server_monitor.tasks.run import (
    Status,
)


async def approve(conn: AsyncConnection, run_id: str, digest: str | None, *, actor: Actor, now: datetime) -> None:
    """Let a run begin that waits for a second person. Appends `task.approve`.

    `digest` is what the approver saw; another one is a conflict. Raises Denied for whoever asked for it themselves,
    Gone when the time has passed, Conflict when somebody else has decided already.
    """
    run = await _awaited(conn, run_id, actor, now)
    if digest is not None and digest != run.digest:
        raise Conflict("This is not the command that you looked at; look again.")
    await _decide(conn, run, "approve", actor, now)
    waiting = and_(tasks.c.run_id == run_id, tasks.c.status == Status.AWAITING_APPROVAL)
    await conn.execute(update(tasks).where(waiting).values(status=Status.QUEUED))
    await log.append(conn, Event("task.approve", audited(actor), AuditTarget("run", run_id), meta=_asked(run)))


async def reject(conn: AsyncConnection, run_id: str, reason: str | None, *, actor: Actor, now: datetime) -> None:
    """Refuse a run that waits for a second person. Appends `task.reject`. Raises as `approve` does."""
    run = await _awaited(conn, run_id, actor, now)
    await _decide(conn, run, "reject", actor, now)
    await close_waiting(conn, run_id, Status.REJECTED, "rejected", now)
    meta = _asked(run) | ({"why": reason} if reason else {})
    await log.append(conn, Event("task.reject", audited(actor), AuditTarget("run", run_id), meta=meta))


async def decidable(
    conn: AsyncConnection, found: Collection[Row[Any]], *, actor: Actor, now: datetime
) -> frozenset[str]:
    """The ids of those among these runs about which the actor may decide now."""
    if not _is_person(actor):
        return frozenset()
    waiting = [run.id for run in found if _is_waiting(run) and run.expires_at > now and not _is_asker(run, actor)]
    return frozenset(waiting) - await out_of_reach(conn, waiting, Permission.TASK_APPROVE, actor)


async def expire(conn: AsyncConnection, now: datetime) -> int:
    """Close the runs that nobody has approved in time. Appends `task.expire` for each; returns how many."""
    undecided = and_(runs.c.decision.is_(None), runs.c.finished_at.is_(None))
    wanted = select(runs).where(runs.c.expires_at <= now, undecided).order_by(runs.c.id).limit(1_000)
    due = (await conn.execute(wanted.with_for_update(key_share=True, skip_locked=True))).all()
    expired = 0
    for run in due:
        still = update(runs).where(runs.c.id == run.id, undecided).values(decision="expire", decided_at=now)
        if (await conn.execute(still)).rowcount == 0:
            continue
        await close_waiting(conn, run.id, Status.REJECTED, "expired", now)
        event = Event("task.expire", BY_SYSTEM, AuditTarget("run", run.id), outcome="failure", meta=_asked(run))
        await log.append(conn, event)
        expired += 1
    return expired


async def _awaited(conn: AsyncConnection, run_id: str, actor: Actor, now: datetime) -> Row[Any]:
    """The run, for somebody who may decide about it now."""
    run = await get_run(conn, run_id, actor=actor)
    if run.ruling != "needs_approval":
        raise Conflict("This run does not wait for anybody.")
    if not _is_person(actor):
        raise Denied("Approving takes a person; an API token cannot.")
    await require_everywhere(conn, run_id, Permission.TASK_APPROVE, actor)
    if _is_asker(run, actor):
        raise Denied("Somebody else has to decide about what you asked for.")
    if _is_waiting(run) and run.expires_at <= now:
        raise Gone("Nobody approved this run in time; ask for it again.")
    return run


def _is_person(actor: Actor) -> bool:
    return actor.kind in {ActorKind.USER, ActorKind.OS_USER}


def _is_waiting(run: Row[Any]) -> bool:
    return run.ruling == "needs_approval" and run.decision is None and run.finished_at is None


def _is_asker(run: Row[Any], actor: Actor) -> bool:
    """Between accounts of the console the ids tell. With one of its machine, equal names are one person."""
    if run.user_id is not None and actor.id is not None:
        return bool(run.user_id == actor.id)
    return bool(run.user_name.casefold() == actor.name.casefold())


async def _decide(conn: AsyncConnection, run: Row[Any], decision: str, actor: Actor, now: datetime) -> None:
    undecided = and_(runs.c.id == run.id, runs.c.decision.is_(None), runs.c.finished_at.is_(None))
    values = {"decision": decision, "decided_at": now, "decided_by": actor.id, "decided_name": actor.name}
    changed = await conn.execute(update(runs).where(undecided).values(**values))
    if changed.rowcount == 0:
        raise Conflict("This run waits no longer: somebody else has decided about it, or it was cancelled.")


def _asked(run: Row[Any]) -> dict[str, Any]:
    return {
        "command": run.command,
        "asked_by": run.user_name,
        "digest": run.digest,
        "server_count": run.tasks,
        "rule": run.verdict.get("rule"),
    }
