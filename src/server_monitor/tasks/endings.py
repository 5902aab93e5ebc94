"""How claimed tasks ended, and what follows for their runs."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.db.engine import blames_surroundings
from server_monitor.db.tables import runs, task_output, tasks
from server_monitor.tasks.rows import (
    BY_SYSTEM,
    append_each,
    close_waiting,
    finish_runs,
    lock_runs,
    on_behalf,
)
from server_monitor.tasks.run import (
    FAILURES,
    OPEN,
    Outcome,
    Status,
    stops_at,
)
from server_monitor.telemetry import metrics
from server_monitor.telemetry.logs import logger as named

logger = named(__name__)

EXIT_CODE_MIN, EXIT_CODE_MAX = -(2**31), 2**31 - 1


async def finish(conn: AsyncConnection, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Store how claimed tasks ended, and what follows for their runs. Returns those whose claim still held.

    Of several outcomes of one claim the first counts.

    One that the database refuses for what is in it comes back as interrupted, with the same claim.
    Appends `task.finish`, `task.fail`, `task.timeout` or `task.cancel` for each, `task.recover` where the console that
    had started it died.
    """
    if not outcomes:
        return []
    by_claim: dict[tuple[str, int], Outcome] = {}
    for outcome in outcomes:
        by_claim.setdefault(outcome.claim.key, outcome)
    await lock_runs(conn, {outcome.claim.run_id for outcome in outcomes})
    wanted: Select[Any] = (
        select(tasks.c.id, tasks.c.fence, runs.c.user_id, runs.c.user_name, runs.c.token_id)
        .select_from(tasks.join(runs))
        .where(tasks.c.id.in_({task_id for task_id, _ in by_claim}), tasks.c.status == Status.RUNNING)
        .with_for_update(of=tasks)
    )
    found = await conn.execute(wanted)
    rows = {(row.id, row.fence): row for row in found}
    held = [outcome for key, outcome in by_claim.items() if key in rows]
    if not held:
        return []
    held = await _stored(conn, held)
    ended = ((one.claim.request_id, _end_event(rows[one.claim.key], one)) for one in held)
    await append_each(conn, ended)
    for status, count in Counter(outcome.status for outcome in held).items():
        metrics.tasks_finished.labels(status.value).inc(count)
    unsuccessful = {outcome.claim.run_id for outcome in held if outcome.status is not Status.SUCCESS}
    await stop_where_too_many_failed(conn, unsuccessful, held[-1].finished_at)
    await finish_runs(conn, {outcome.claim.run_id for outcome in held}, held[-1].finished_at)
    return held


async def _stored(conn: AsyncConnection, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Store them; what cannot be stored as it is, without what its host told. Returns what is stored.

    The outcomes of all hosts share a transaction: what one of them made up may not hold up the others.
    """
    refusal = await _refusal(conn, outcomes)
    if refusal is None:
        return list(outcomes)
    if len(outcomes) > 1:
        return [stored for outcome in outcomes for stored in await _stored(conn, [outcome])]
    (outcome,) = outcomes
    logger.error("task_outcome_refused", task_id=outcome.claim.task_id, cause=type(refusal).__name__)
    bare = Outcome(outcome.claim, Status.INTERRUPTED, outcome.finished_at, "not_stored", mode=outcome.mode)
    await _write(conn, [bare])
    return [bare]


async def _refusal(conn: AsyncConnection, outcomes: Sequence[Outcome]) -> Exception | None:
    """Store all of these or none; why not, when it is for what is in them."""
    try:
        async with conn.begin_nested():
            await _write(conn, outcomes)
    except (DBAPIError, ArithmeticError, ValueError) as error:  # The driver lets through what its own code raises.
        if isinstance(error, DBAPIError) and blames_surroundings(error):
            raise
        return error
    return None


async def _write(conn: AsyncConnection, outcomes: Sequence[Outcome]) -> None:
    await conn.execute(_FINISH, [_finished_values(outcome) for outcome in outcomes])
    outputs = [_output_values(outcome) for outcome in outcomes if outcome.output is not None]
    if outputs:
        await conn.execute(insert(task_output), outputs)


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
        "b_exit_code": _exit_code(outcome),
        "b_mode": outcome.mode,
        "b_finished_at": outcome.finished_at,
    }


def _exit_code(outcome: Outcome) -> int | None:
    """As the column holds it: hosts tell what they like."""
    return None if outcome.exit_code is None else max(EXIT_CODE_MIN, min(outcome.exit_code, EXIT_CODE_MAX))


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
        "exit_code": _exit_code(outcome),
        "cause": outcome.cause,
        "duration_ms": int((outcome.finished_at - claim.started_at) / timedelta(milliseconds=1)),
        "stdout_bytes": output.stdout_bytes if output else None,
        "stderr_bytes": output.stderr_bytes if output else None,
        "output_sha256": output.digest.hex() if output else None,
        "mode": outcome.mode.value if outcome.mode else None,
    }
    return Event(
        "task.recover" if claim.is_taken_over else action,
        on_behalf(row),
        AuditTarget("server", claim.server_id, claim.server_name),
        outcome=result,
        reason=outcome.cause,
        phase="outcome",
        meta={name: value for name, value in meta.items() if value is not None},
    )


async def stop_where_too_many_failed(conn: AsyncConnection, run_ids: Collection[str], now: datetime) -> None:
    """Skip what is still queued in runs that have had as many failures as they tolerate, or have lost a canary.

    The caller has called `lock_runs`: failures that others note meanwhile would not be counted.
    """
    if not run_ids:
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
        .where(runs.c.id.in_(run_ids), or_(runs.c.max_failures.is_not(None), runs.c.canary > 0))
        .group_by(runs.c.id, runs.c.max_failures)
    )
    for row in counted.all():
        most = stops_at(row.max_failures)
        if row.lost_canaries:
            await _stop_run(conn, row.id, "canary_failed", now)
        elif most is not None and row.failures >= most:
            await _stop_run(conn, row.id, "max_failures", now)


async def _stop_run(conn: AsyncConnection, run_id: str, cause: str, now: datetime) -> None:
    skipped = await close_waiting(conn, run_id, Status.SKIPPED, cause, now)
    if skipped:
        meta = {"skipped": skipped, "why": cause}
        await log.append(conn, Event("task.cancel", BY_SYSTEM, AuditTarget("run", run_id), reason=cause, meta=meta))
