"""A process that changes rows, each with its record: `python -m tests.support.audit_writer URL NAME WRITERS EACH`.

It writes a line with the identity of each change that was acknowledged. Every third attempt fails before its end, and
leaves neither.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

from sqlalchemy import insert

from server_monitor.audit import log
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.db.engine import Database
from server_monitor.db.tables import login_failures
from server_monitor.errors import Unavailable

WRITER = AuditActor("user", "00000000-0000-7000-8000-000000000001", "ada")


class GaveUp(Exception):  # noqa: N818
    """The change turned out to be impossible after all."""


async def change(db: Database, identity: str, *, gives_up: bool = False) -> None:
    """A row and its record."""
    async with db.transaction() as conn:
        row = {"key": identity, "failures": 1, "last_failed_at": datetime.now(UTC)}
        await conn.execute(insert(login_failures).values(row))
        await log.append(conn, Event("server.update", WRITER, AuditTarget("server", identity)))
        if gives_up:
            raise GaveUp


async def insist(work: Callable[[], Awaitable[None]]) -> None:
    """Again and again while the database is too busy: then nothing was changed."""
    while True:
        with suppress(Unavailable):
            return await work()


async def changes(db: Database, name: str, writers: int, each: int) -> list[str]:
    """The identities of those that were acknowledged, by so many at once."""
    done: list[str] = []

    async def write(writer: int) -> None:
        for number in range(each):
            identity = f"{name}-{writer}-{number}"
            with suppress(GaveUp):
                await insist(partial(change, db, identity, gives_up=(writer + number) % 3 == 2))
                done.append(identity)

    async with asyncio.TaskGroup() as tasks:
        for writer in range(writers):
            tasks.create_task(write(writer))
    return done


async def _run(url: str, name: str, writers: int, each: int) -> None:
    db = await Database.open(url, node=name)
    try:
        for identity in await changes(db, name, writers, each):
            sys.stdout.write(f"{identity}\n")
    finally:
        await db.close()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
