"""What an actor may see of runs and tasks, in pages."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, exists, false, func, or_, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.auth.actor import Actor, Permission, groups_allowing
from server_monitor.db.ids import MENTIONED, is_id
from server_monitor.db.tables import group_members, runs, task_output, tasks
from server_monitor.errors import Invalid, NotFound

LIMIT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list of tasks is narrowed to; None does not narrow. The times are those of the request."""

    run_id: str | None = None
    server_id: str | None = None
    status: str | None = None
    user_id: str | None = None
    from_at: datetime | None = None
    to_at: datetime | None = None


def visible_tasks(actor: Actor) -> ColumnElement[bool]:
    """The condition under which a row of `tasks` may be seen by the actor."""
    allowed = groups_allowing(actor, Permission.TASK_READ)
    if allowed is None:
        return true()
    if not allowed:
        return false()
    members = select(group_members.c.server_id).where(group_members.c.group_id.in_(allowed))
    return tasks.c.server_id.in_(members)


async def servers_of(conn: AsyncConnection, run_id: str, *, actor: Actor) -> frozenset[str] | None:
    """The servers of a run whose tasks the actor may see; None when they see all tasks of all runs.

    Raises NotFound when there is no such run, or none of its tasks may be seen.
    """
    seen = select(tasks.c.server_id).where(tasks.c.run_id == run_id, visible_tasks(actor))
    if groups_allowing(actor, Permission.TASK_READ) is None:
        seen = seen.limit(1)
    found = frozenset(await conn.scalars(seen))
    if not found:
        raise NotFound("run", run_id)
    return None if groups_allowing(actor, Permission.TASK_READ) is None else found


_SHOWN = (
    tasks,
    runs.c.command,
    runs.c.user_id,
    runs.c.user_name,
    task_output.c.stdout_bytes,
    task_output.c.stderr_bytes,
    task_output.c.truncated,
)


async def task(conn: AsyncConnection, task_id: str, *, actor: Actor) -> Row[Any]:
    """A task with its run's command and asker. Raises NotFound when there is none that the actor may see."""
    if not is_id(task_id):
        raise NotFound("task", task_id[:MENTIONED])
    found: Row[Any] | None = (await conn.execute(_tasks(actor).where(tasks.c.id == task_id))).one_or_none()
    if found is None:
        raise NotFound("task", task_id)
    return found


async def task_page(
    conn: AsyncConnection, filters: Filters, limit: int, cursor: str | None, *, actor: Actor
) -> tuple[Sequence[Row[Any]], str | None]:
    """Up to `limit` tasks, newest first, and the cursor of the page after, if there is one."""
    wanted = _tasks(actor).where(*_conditions(filters))
    if cursor is not None:
        created_at, task_id = _decoded(cursor)
        before = or_(tasks.c.created_at < created_at, and_(tasks.c.created_at == created_at, tasks.c.id < task_id))
        wanted = wanted.where(before)
    rows = (await conn.execute(wanted.order_by(tasks.c.created_at.desc(), tasks.c.id.desc()).limit(limit + 1))).all()
    return rows[:limit], _encoded(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None


async def tasks_of(conn: AsyncConnection, run_id: str, *, actor: Actor) -> Sequence[Row[Any]]:
    """The tasks of a run that the actor may see, in the order in which they begin."""
    seen = select(tasks).where(tasks.c.run_id == run_id, visible_tasks(actor)).order_by(tasks.c.position)
    found: Sequence[Row[Any]] = (await conn.execute(seen)).all()
    return found


async def run_page(
    conn: AsyncConnection, filters: Filters, limit: int, cursor: str | None, *, actor: Actor
) -> tuple[Sequence[Row[Any]], str | None]:
    """Up to `limit` runs, newest first, and the cursor of the page after, if there is one."""
    conditions: list[ColumnElement[bool]] = []
    if filters.user_id is not None:
        conditions.append(runs.c.user_id == filters.user_id)
    if filters.from_at is not None:
        conditions.append(runs.c.created_at >= filters.from_at)
    if filters.to_at is not None:
        conditions.append(runs.c.created_at < filters.to_at)
    inner = [tasks.c.run_id == runs.c.id, visible_tasks(actor)]
    if filters.server_id is not None:
        inner.append(tasks.c.server_id == filters.server_id)
    if filters.status is not None:
        inner.append(tasks.c.status == filters.status)
    wanted = select(runs).where(exists().where(*inner), *conditions)
    if cursor is not None:
        created_at, run_id = _decoded(cursor)
        wanted = wanted.where(
            or_(runs.c.created_at < created_at, and_(runs.c.created_at == created_at, runs.c.id < run_id))
        )
    rows = (await conn.execute(wanted.order_by(runs.c.created_at.desc(), runs.c.id.desc()).limit(limit + 1))).all()
    return rows[:limit], _encoded(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None


async def counts(conn: AsyncConnection, run_ids: Sequence[str], *, actor: Actor) -> Mapping[str, Mapping[str, int]]:
    """How many tasks of each run are in each status, of those that the actor may see."""
    found: dict[str, dict[str, int]] = {run_id: {} for run_id in run_ids}
    columns = (tasks.c.run_id, tasks.c.status)
    wanted = select(*columns, func.count()).where(tasks.c.run_id.in_(run_ids), visible_tasks(actor))
    for run_id, status, count in await conn.execute(wanted.group_by(*columns)):
        found[run_id][status] = count
    return found


async def seen_selector(conn: AsyncConnection, run: Row[Any], *, actor: Actor) -> Mapping[str, Any]:
    """What was asked for, without the servers and groups that the actor may not know of."""
    allowed = groups_allowing(actor, Permission.TASK_READ)
    if allowed is None:
        return dict(run.selector)
    seen = await servers_of(conn, run.id, actor=actor) or frozenset()
    return {
        **run.selector,
        "servers": [one for one in run.selector["servers"] if one in seen],
        "groups": [one for one in run.selector["groups"] if one in allowed],
    }


async def same_outputs(conn: AsyncConnection, run_id: str, *, actor: Actor) -> Sequence[Row[Any]]:
    """The tasks of a run that have ended, by server: how they ended, and the digest of what they printed."""
    wanted: Select[Any] = (
        select(
            tasks.c.id,
            tasks.c.server_id,
            tasks.c.server_name,
            tasks.c.status,
            tasks.c.exit_code,
            tasks.c.cause,
            tasks.c.detail,
            task_output.c.digest,
            task_output.c.stdout_bytes,
            task_output.c.stderr_bytes,
        )
        .select_from(tasks.outerjoin(task_output, task_output.c.task_id == tasks.c.id))
        .where(tasks.c.run_id == run_id, visible_tasks(actor), tasks.c.finished_at.is_not(None))
        .order_by(tasks.c.server_name)
    )
    found: Sequence[Row[Any]] = (await conn.execute(wanted)).all()
    return found


async def output(conn: AsyncConnection, task_id: str) -> Row[Any] | None:
    """What is stored of a task's output; the caller has made sure that it may be seen."""
    return (await conn.execute(select(task_output).where(task_output.c.task_id == task_id))).one_or_none()


async def heads(conn: AsyncConnection, task_ids: Sequence[str], most_bytes: int) -> Mapping[str, Mapping[str, bytes]]:
    """The first bytes of both streams of several tasks, by their ids; the database sends no more than that."""
    cut = [
        func.substr(column, 1, most_bytes).label(column.name) for column in (task_output.c.stdout, task_output.c.stderr)
    ]
    found = await conn.execute(select(task_output.c.task_id, *cut).where(task_output.c.task_id.in_(task_ids)))
    # SQLite's substr makes NULL of what is empty.
    return {row.task_id: {"stdout": row.stdout or b"", "stderr": row.stderr or b""} for row in found}


def _tasks(actor: Actor) -> Select[Any]:
    joined = tasks.join(runs).outerjoin(task_output, task_output.c.task_id == tasks.c.id)
    return select(*_SHOWN).select_from(joined).where(visible_tasks(actor))


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    equal = {
        tasks.c.run_id: filters.run_id,
        tasks.c.server_id: filters.server_id,
        tasks.c.status: filters.status,
        runs.c.user_id: filters.user_id,
    }
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if filters.from_at is not None:
        conditions.append(tasks.c.created_at >= filters.from_at)
    if filters.to_at is not None:
        conditions.append(tasks.c.created_at < filters.to_at)
    return conditions


def _encoded(created_at: datetime, row_id: str) -> str:
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {row_id}".encode()).decode().rstrip("=")


def _decoded(cursor: str) -> tuple[datetime, str]:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        at, _, row_id = text.partition(" ")
        created_at = datetime.fromisoformat(at).astimezone(UTC)
    except (binascii.Error, ValueError, OverflowError):  # The last: the first and the last day of the calendar.
        raise _wrong_cursor() from None
    if not is_id(row_id):
        raise _wrong_cursor()
    return created_at, row_id


def _wrong_cursor() -> Invalid:
    return Invalid.one("cursor", "This cursor is not one of ours; leave it out to begin again.")
