"""Servers that take commands, runs on them, and what becomes of their tasks, straight in the database."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.auth.actor import Actor, ActorKind, Role
from server_monitor.db.engine import Database
from server_monitor.db.tables import runs, servers, task_output, tasks
from server_monitor.fleet.selection import Chosen, Selector
from server_monitor.fleet.servers import Server, insert_servers, listing
from server_monitor.tasks import claims, endings, placing
from server_monitor.tasks.placing import Placed, Ruled
from server_monitor.tasks.run import Claimed, Mode, Order, Outcome, Output, Status
from tests.support.fleet import ADMIN, VAULT

ADA = ADMIN
GRACE = Actor(ActorKind.USER, "00000000-0000-7000-8000-000000000011", "grace", Role.ADMIN)


async def add_servers(db: Database, count: int, *, prefix: str = "host", capability: str = "run") -> list[Server]:
    """So many servers, by name."""
    rows = [
        {
            "name": f"{prefix}-{number:04}",
            "host": "127.0.0.1",
            "port": 22,
            "username": "root",
            "auth": "agent",
            "capability": capability,
        }
        for number in range(count)
    ]
    async with db.transaction() as conn:
        made = set(await insert_servers(conn, rows))
        return [server for server in await listing(conn, actor=ADA) if server.id in made]


async def place(db: Database, chosen: Sequence[Server], **given: Any) -> Placed:
    """A run on these servers; see `place_in`."""
    async with db.transaction() as conn:
        return await place_in(conn, chosen, **given)


async def place_in(
    conn: AsyncConnection,
    chosen: Sequence[Server],
    *,
    ruling: str = "allow",
    actor: Actor = ADA,
    now: datetime | None = None,
    **given: Any,
) -> Placed:
    """`given` are fields of the order."""
    return await placing.place(
        conn,
        replace(Order(command="uptime", timeout_s=60), **given),
        Selector(servers=[server.id for server in chosen]),
        [Chosen(server, None) for server in chosen],
        Ruled(ruling, "sha256:0123", "rule-1" if ruling != "allow" else None, {"verdict": ruling, "rule": "rule-1"}),
        "bash",
        vault=VAULT,
        actor=actor,
        now=now or datetime.now(UTC),
    )


async def claim(
    db: Database,
    *placed: Placed,
    owner: str = "one",
    slots: int = 1_000,
    per_server: int = 1,
    cleared: Collection[str] = (),
) -> list[Claimed]:
    run_ids = [one.run_id for one in placed] or list(cleared)
    async with db.transaction() as conn:
        return await claims.claim(
            conn, owner, slots=slots, per_server=per_server, cleared=run_ids, now=datetime.now(UTC)
        )


def ended(
    claimed: Claimed,
    status: Status = Status.SUCCESS,
    *,
    cause: str | None = None,
    exit_code: int | None = 0,
    stdout: bytes = b"",
) -> Outcome:
    output = Output(stdout, b"", len(stdout), 0, truncated=False, digest=bytes(32))
    at = max(datetime.now(UTC), claimed.started_at)
    return Outcome(claimed, status, at, cause, None, exit_code, Mode.WRAPPED, output)


async def finish(db: Database, *outcomes: Outcome) -> list[Outcome]:
    async with db.transaction() as conn:
        return await endings.finish(conn, outcomes)


async def fail(db: Database, *claimed: Claimed) -> list[Outcome]:
    return await finish(db, *(ended(one, Status.FAILED, cause="exit_status", exit_code=1) for one in claimed))


async def succeed(db: Database, *claimed: Claimed) -> list[Outcome]:
    return await finish(db, *(ended(one) for one in claimed))


async def statuses(db: Database, placed: Placed) -> list[str]:
    """Those of a run's tasks, in their order."""
    async with db.reading() as conn:
        wanted = select(tasks.c.status).where(tasks.c.run_id == placed.run_id).order_by(tasks.c.position)
        return [str(status) for status in await conn.scalars(wanted)]


async def counted(db: Database, placed: Placed) -> Mapping[str, int]:
    return Counter(await statuses(db, placed))


async def task_rows(db: Database, placed: Placed) -> Sequence[Row[Any]]:
    async with db.reading() as conn:
        return (
            await conn.execute(select(tasks).where(tasks.c.run_id == placed.run_id).order_by(tasks.c.position))
        ).all()


async def run_row(db: Database, placed: Placed) -> Row[Any]:
    async with db.reading() as conn:
        return (await conn.execute(select(runs).where(runs.c.id == placed.run_id))).one()


async def output_rows(db: Database) -> Sequence[Row[Any]]:
    async with db.reading() as conn:
        return (await conn.execute(select(task_output))).all()


async def set_server(db: Database, server: Server, **values: Any) -> None:
    async with db.transaction() as conn:
        await conn.execute(servers.update().where(servers.c.id == server.id).values(**values))
