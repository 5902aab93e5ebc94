"""Runs and tasks as rows, and every move between their states, each with its audit record in the same transaction.

A move is a conditional update: whoever changes no row lost a race and does nothing. Only the holder of a claim may move
a running task, and the claim's fence says whether it still is the holder.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.auth.actor import Actor, ActorKind, Permission, allows, audited
from server_monitor.db.ids import new_id
from server_monitor.db.tables import facts, heartbeats, runs, servers, task_output, tasks
from server_monitor.errors import Conflict, Denied, Gone, NotFound
from server_monitor.fleet.selection import Chosen, Selector, groups_of
from server_monitor.fleet.servers import Server
from server_monitor.tasks.listing import visible_tasks
from server_monitor.tasks.run import (
    APPROVAL_LASTS,
    FAILURES,
    OPEN,
    RETRIED,
    Claimed,
    Mode,
    Order,
    Outcome,
    Status,
    stops_at,
)
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import RequestContext, request_context

NAMES_IN_RECORD = 50
CANDIDATES = 2_000  # queued tasks looked at in one turn
BY_SYSTEM = AuditActor(ActorKind.SYSTEM.value, None, "system")


@dataclass(frozen=True, slots=True)
class Ruled:
    """What the policy said about a command, as it is stored. `ruling` is allow, needs_approval or deny."""

    ruling: str
    digest: str
    rule: str | None
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Placed:
    """A run that was stored, with its tasks: `(task id, server, status)` each."""

    run_id: str
    status: Status
    tasks: Sequence[tuple[str, Server, Status]]


# --- asking -----------------------------------------------------------------------------------------------------------


async def place(  # noqa: PLR0917
    conn: AsyncConnection,
    order: Order,
    selector: Selector,
    chosen: Sequence[Chosen],
    ruled: Ruled,
    shell: str,
    *,
    actor: Actor,
    now: datetime,
) -> Placed:
    """Store a run and its tasks: queued, waiting for approval, or denied, as the policy said.

    A denial is a value and not an error, because its record has to stay. Appends `task.create` or `task.denied`.
    The caller has made sure that the actor may run commands on each of the servers.
    """
    status = {"allow": Status.QUEUED, "needs_approval": Status.AWAITING_APPROVAL, "deny": Status.DENIED}[ruled.ruling]
    context = request_context.get()
    run_id = new_id()
    is_denied = status is Status.DENIED
    row = {
        "id": run_id,
        "command": order.command,
        "shell": shell,
        "user_id": actor.id,
        "user_name": actor.name,
        "token_id": actor.token_id,
        "request_id": context.request_id if context else run_id,
        "reason": order.reason,
        "retry_of": order.retry_of,
        "selector": selector.document(),
        "verdict": dict(ruled.document),
        "ruling": ruled.ruling,
        "digest": ruled.digest,
        "timeout_s": order.timeout_s,
        "max_parallel": order.max_parallel,
        "max_failures": order.max_failures,
        "canary": order.canary,
        "store_output": order.store_output,
        "tasks": len(chosen),
        "created_at": now,
        "expires_at": now + APPROVAL_LASTS if status is Status.AWAITING_APPROVAL else None,
        "finished_at": now if is_denied else None,
    }
    await conn.execute(insert(runs), [row])
    made = [(new_id(), one.server, status) for one in chosen]
    rows = [
        {
            "id": task_id,
            "run_id": run_id,
            "position": position,
            "server_id": server.id,
            "server_name": server.name,
            "status": status,
            "cause": "policy" if is_denied else None,
            "created_at": now,
            "finished_at": now if is_denied else None,
        }
        for position, (task_id, server, _) in enumerate(made)
    ]
    if rows:
        await conn.execute(insert(tasks), rows)
    await log.append(conn, _placed_event(run_id, order, selector, made, ruled, actor))
    return Placed(run_id, status, made)


def _placed_event(  # noqa: PLR0917
    run_id: str,
    order: Order,
    selector: Selector,
    made: Sequence[tuple[str, Server, Status]],
    ruled: Ruled,
    actor: Actor,
) -> Event:
    is_denied = ruled.ruling == "deny"
    names = [server.name for _, server, _ in made]
    groups = sorted({group for _, server, _ in made for group in server.group_ids})
    meta: dict[str, Any] = {
        "command": order.command,
        "servers": names[:NAMES_IN_RECORD],
        "server_count": len(names),
        "selector": selector.document() if len(selector.servers) <= NAMES_IN_RECORD else {"servers": len(names)},
        "timeout_s": order.timeout_s,
        "verdict": ruled.ruling,
        "rule": ruled.rule,
        "engine": ruled.document.get("engine"),
        "digest": ruled.digest,
    }
    meta |= {"reason": order.reason} if order.reason else {}
    meta |= {"retry_of": order.retry_of} if order.retry_of else {}
    return Event(
        "task.denied" if is_denied else "task.create",
        audited(actor),
        AuditTarget("run", run_id, None, groups[:NAMES_IN_RECORD]),
        outcome="denied" if is_denied else "success",
        reason=f"policy.{ruled.rule}"[:64] if is_denied and ruled.rule else None,
        meta=meta,
    )


# --- a second person --------------------------------------------------------------------------------------------------


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
    await _close_waiting(conn, run_id, Status.REJECTED, "rejected", now)
    meta = _asked(run) | ({"why": reason} if reason else {})
    await log.append(conn, Event("task.reject", audited(actor), AuditTarget("run", run_id), meta=meta))


async def expire(conn: AsyncConnection, now: datetime) -> int:
    """Close the runs that nobody has approved in time. Appends `task.expire` for each; returns how many."""
    due = (
        await conn.execute(select(runs).where(runs.c.expires_at <= now, runs.c.decision.is_(None)).limit(1_000))
    ).all()
    for run in due:
        await conn.execute(update(runs).where(runs.c.id == run.id).values(decision="expire", decided_at=now))
        await _close_waiting(conn, run.id, Status.REJECTED, "expired", now)
        event = Event("task.expire", BY_SYSTEM, AuditTarget("run", run.id), outcome="failure", meta=_asked(run))
        await log.append(conn, event)
    return len(due)


async def _awaited(conn: AsyncConnection, run_id: str, actor: Actor, now: datetime) -> Row[Any]:
    """The run, for somebody who may decide about it now."""
    run = await get_run(conn, run_id, actor=actor)
    if run.ruling != "needs_approval":
        raise Conflict("This run does not wait for anybody.")
    if actor.kind not in {ActorKind.USER, ActorKind.OS_USER}:
        raise Denied("Approving takes a person; an API token cannot.")
    await _require_everywhere(conn, run_id, Permission.TASK_APPROVE, actor)
    if (run.user_id, run.user_name) == (actor.id, actor.name) or (run.user_id and run.user_id == actor.id):
        raise Denied("Somebody else has to decide about what you asked for.")
    if run.decision is None and run.cancelled_at is None and run.expires_at <= now:
        raise Gone("Nobody approved this run in time; ask for it again.")
    return run


async def _decide(conn: AsyncConnection, run: Row[Any], decision: str, actor: Actor, now: datetime) -> None:
    undecided = and_(runs.c.id == run.id, runs.c.decision.is_(None), runs.c.cancelled_at.is_(None))
    values = {"decision": decision, "decided_at": now, "decided_by": actor.id, "decided_name": actor.name}
    changed = await conn.execute(update(runs).where(undecided).values(**values))
    if changed.rowcount == 0:
        raise Conflict("Somebody else has decided about this run already.")


async def _close_waiting(conn: AsyncConnection, run_id: str, status: Status, cause: str, now: datetime) -> int:
    """End the tasks of a run that have not begun."""
    begun = (Status.AWAITING_APPROVAL, Status.QUEUED)
    closed = await conn.execute(
        update(tasks)
        .where(tasks.c.run_id == run_id, tasks.c.status.in_(begun))
        .values(status=status, cause=cause, finished_at=now)
    )
    await _finish_runs(conn, [run_id], now)
    return int(closed.rowcount)


async def _require_everywhere(conn: AsyncConnection, run_id: str, permission: Permission, actor: Actor) -> None:
    """Raises Denied unless the actor holds the permission for every server of the run."""
    if allows(actor, permission):
        return
    ids = list(await conn.scalars(select(tasks.c.server_id).where(tasks.c.run_id == run_id)))
    groups = await groups_of(conn, ids)
    if not all(allows(actor, permission, groups.get(server_id, ())) for server_id in ids):
        raise Denied(f"This takes the permission {permission.value} for every server of the run.")


def _asked(run: Row[Any]) -> dict[str, Any]:
    return {
        "command": run.command,
        "asked_by": run.user_name,
        "digest": run.digest,
        "server_count": run.tasks,
        "rule": run.verdict.get("rule"),
    }


# --- claiming ---------------------------------------------------------------------------------------------------------


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
        is_taken_over=taken_over,
        mode=Mode(row.mode) if row.mode else None,
    )


def _start_event(row: Row[Any], task: Claimed) -> Event:
    meta = {"task_id": task.task_id, "run_id": task.run_id, "command": task.command, "fence": task.fence}
    return Event("task.start", _on_behalf(row), _server_target(row), phase="intent", outcome=None, meta=meta)


def _on_behalf(row: Row[Any]) -> AuditActor:
    kind = ActorKind.TOKEN if row.token_id else ActorKind.USER if row.user_id else ActorKind.OS_USER
    return AuditActor(kind.value, row.user_id, row.user_name, token_id=row.token_id)


def _server_target(row: Row[Any]) -> AuditTarget:
    return AuditTarget("server", row.server_id, row.server_name)


@contextmanager
def acting_for(request_id: str) -> Iterator[None]:
    """Records and log lines made inside belong to the request that asked for the run."""
    token = request_context.set(RequestContext(request_id, "system"))
    try:
        yield
    finally:
        request_context.reset(token)


# --- while it runs ----------------------------------------------------------------------------------------------------


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


async def finish(conn: AsyncConnection, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Store how claimed tasks ended, and what follows for their runs. Returns those whose claim still held.

    Appends `task.finish`, `task.fail`, `task.timeout` or `task.cancel` for each, `task.recover` where the console that
    had started it died.
    """
    if not outcomes:
        return []
    by_id = {outcome.claim.task_id: outcome for outcome in outcomes}
    wanted: Select[Any] = (
        select(tasks.c.id, tasks.c.fence, runs.c.user_id, runs.c.user_name, runs.c.token_id)
        .select_from(tasks.join(runs))
        .where(tasks.c.id.in_(by_id), tasks.c.status == Status.RUNNING)
        .with_for_update(of=tasks)
    )
    found = await conn.execute(wanted)
    rows = {row.id: row for row in found if row.fence == by_id[row.id].claim.fence}
    held = [outcome for task_id, outcome in by_id.items() if task_id in rows]
    if not held:
        return []
    await conn.execute(_FINISH, [_finished_values(outcome) for outcome in held])
    outputs = [_output_values(outcome) for outcome in held if outcome.output is not None]
    if outputs:
        await conn.execute(insert(task_output), outputs)
    for outcome in held:
        with acting_for(outcome.claim.request_id):
            await log.append(conn, _end_event(rows[outcome.claim.task_id], outcome))
        metrics.tasks_finished.labels(outcome.status.value).inc()
    await _stop_where_too_many_failed(conn, held)
    await _finish_runs(conn, {outcome.claim.run_id for outcome in held}, held[-1].finished_at)
    return held


_FINISH = (
    update(tasks)
    .where(tasks.c.id == bindparam("b_id"))
    .values(
        status=bindparam("b_status"),
        cause=bindparam("b_cause"),
        detail=bindparam("b_detail"),
        exit_code=bindparam("b_exit_code"),
        mode=bindparam("b_mode"),
        finished_at=bindparam("b_finished_at"),
        owner=None,
    )
)


def _finished_values(outcome: Outcome) -> dict[str, Any]:
    return {
        "b_id": outcome.claim.task_id,
        "b_status": outcome.status,
        "b_cause": outcome.cause,
        "b_detail": outcome.detail,
        "b_exit_code": outcome.exit_code,
        "b_mode": outcome.mode,
        "b_finished_at": outcome.finished_at,
    }


def _output_values(outcome: Outcome) -> dict[str, Any]:
    output = outcome.output
    assert output is not None
    return {
        "task_id": outcome.claim.task_id,
        "stdout": output.stdout,
        "stderr": output.stderr,
        "stdout_bytes": output.stdout_bytes,
        "stderr_bytes": output.stderr_bytes,
        "truncated": output.truncated,
        "digest": output.digest,
    }


_ACTIONS: Mapping[Status, tuple[str, str]] = {
    Status.SUCCESS: ("task.finish", "success"),
    Status.FAILED: ("task.fail", "failure"),
    Status.TIMEOUT: ("task.timeout", "failure"),
    Status.CANCELLED: ("task.cancel", "success"),
    Status.INTERRUPTED: ("task.fail", "unknown"),
    Status.DENIED: ("task.denied", "denied"),
}


def _end_event(row: Row[Any], outcome: Outcome) -> Event:
    claim = outcome.claim
    action, result = _ACTIONS[outcome.status]
    output = outcome.output
    meta = {
        "task_id": claim.task_id,
        "run_id": claim.run_id,
        "status": outcome.status.value,
        "exit_code": outcome.exit_code,
        "cause": outcome.cause,
        "duration_ms": int((outcome.finished_at - claim.started_at) / timedelta(milliseconds=1)),
        "stdout_bytes": output.stdout_bytes if output else None,
        "stderr_bytes": output.stderr_bytes if output else None,
        "output_sha256": output.digest.hex() if output else None,
        "mode": outcome.mode.value if outcome.mode else None,
    }
    return Event(
        "task.recover" if claim.is_taken_over else action,
        _on_behalf(row),
        AuditTarget("server", claim.server_id, claim.server_name),
        outcome=result,
        reason=outcome.cause,
        phase="outcome",
        meta={name: value for name, value in meta.items() if value is not None},
    )


async def _stop_where_too_many_failed(conn: AsyncConnection, held: Sequence[Outcome]) -> None:
    """Skip what is still queued in runs that have had as many failures as they tolerate, or a failed canary."""
    suspects = {outcome.claim.run_id for outcome in held if outcome.status is not Status.SUCCESS}
    if not suspects:
        return
    is_failure = tasks.c.status.in_(FAILURES)
    is_lost_canary = and_(tasks.c.position < runs.c.canary, tasks.c.status.notin_((*OPEN, Status.SUCCESS)))
    counted = await conn.execute(
        select(
            runs.c.id,
            runs.c.max_failures,
            func.count().filter(is_failure).label("failures"),
            func.count().filter(is_lost_canary).label("lost_canaries"),
        )
        .select_from(tasks.join(runs))
        .where(runs.c.id.in_(suspects), or_(runs.c.max_failures.is_not(None), runs.c.canary > 0))
        .group_by(runs.c.id, runs.c.max_failures)
    )
    for row in counted.all():
        most = stops_at(row.max_failures)
        if row.lost_canaries:
            await _stop_run(conn, row.id, "canary_failed", held[-1].finished_at)
        elif most is not None and row.failures >= most:
            await _stop_run(conn, row.id, "max_failures", held[-1].finished_at)


async def _stop_run(conn: AsyncConnection, run_id: str, cause: str, now: datetime) -> None:
    skipped = await _close_waiting(conn, run_id, Status.SKIPPED, cause, now)
    if skipped:
        meta = {"skipped": skipped, "why": cause}
        await log.append(conn, Event("task.cancel", BY_SYSTEM, AuditTarget("run", run_id), reason=cause, meta=meta))


async def _finish_runs(conn: AsyncConnection, run_ids: Collection[str], now: datetime) -> None:
    """Note the end of runs whose last task has ended."""
    unfinished = exists().where(tasks.c.run_id == runs.c.id, tasks.c.status.in_(OPEN))
    over = and_(runs.c.id.in_(run_ids), runs.c.finished_at.is_(None), ~unfinished)
    await conn.execute(update(runs).where(over).values(finished_at=now))


# --- ending early -----------------------------------------------------------------------------------------------------


async def cancel_task(conn: AsyncConnection, task_id: str, *, actor: Actor, now: datetime) -> Status:
    """End a task: at once when it waits, else as soon as its host confirms it. Returns the state it has now.

    Appends `task.cancel`. Raises Conflict when it is over.
    """
    task = (await conn.execute(select(tasks).where(tasks.c.id == task_id))).one_or_none()
    if task is None:
        raise NotFound("task", task_id)
    await get_run(conn, task.run_id, actor=actor)
    await _require_of_server(conn, task.server_id, actor)
    if await _cancel_rows(conn, tasks.c.id == task_id, actor, now) == 0:
        raise Conflict("This task is over.")
    meta = {"task_id": task_id, "run_id": task.run_id, "was": task.status}
    target = AuditTarget("server", task.server_id, task.server_name)
    await log.append(conn, Event("task.cancel", audited(actor), target, meta=meta))
    await _finish_runs(conn, [task.run_id], now)
    now_is: str = (await conn.execute(select(tasks.c.status).where(tasks.c.id == task_id))).scalar_one()
    return Status(now_is)


async def cancel_run(conn: AsyncConnection, run_id: str, *, actor: Actor, now: datetime) -> int:
    """End every task of a run that is not over; returns how many those were. Raises Conflict when there is none."""
    await get_run(conn, run_id, actor=actor)
    await _require_everywhere(conn, run_id, Permission.TASK_RUN, actor)
    count = await _cancel_rows(conn, tasks.c.run_id == run_id, actor, now)
    if count == 0:
        raise Conflict("This run is over.")
    await conn.execute(update(runs).where(runs.c.id == run_id).values(cancelled_at=now, cancelled_name=actor.name))
    await log.append(conn, Event("task.cancel", audited(actor), AuditTarget("run", run_id), meta={"tasks": count}))
    await _finish_runs(conn, [run_id], now)
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


async def withdraw(conn: AsyncConnection, run_id: str, cause: str, now: datetime) -> None:
    """Close what is still queued in a run whose asker may not run it any more, or which the policy now stops."""
    count = await _close_waiting(conn, run_id, Status.DENIED, cause, now)
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


# --- after a death ----------------------------------------------------------------------------------------------------


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


# --- what the dispatcher asks -----------------------------------------------------------------------------------------


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
            tuple(by_run[row.id]),
        )
        for row in found
    ]


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
        await _finish_runs(conn, [run_id], now)


# --- reading ----------------------------------------------------------------------------------------------------------


async def get_run(conn: AsyncConnection, run_id: str, *, actor: Actor) -> Row[Any]:
    """The row of a run. Raises NotFound when there is none, or none of whose servers the actor may see the tasks."""
    seen = exists().where(tasks.c.run_id == runs.c.id, visible_tasks(actor))
    found = (await conn.execute(select(runs).where(runs.c.id == run_id, seen))).one_or_none()
    if found is None:
        raise NotFound("run", run_id)
    return found


async def retried_servers(conn: AsyncConnection, run_id: str) -> list[str]:
    """The servers on which a run did not succeed. Raises Conflict while it is not over, or when there are none."""
    rows = (await conn.execute(select(tasks.c.server_id, tasks.c.status).where(tasks.c.run_id == run_id))).all()
    if any(Status(row.status) in OPEN for row in rows):
        raise Conflict("This run is not over yet.")
    failed = [row.server_id for row in rows if Status(row.status) in RETRIED]
    if not failed:
        raise Conflict("This run succeeded everywhere; there is nothing to try again.")
    return failed
