"""Durable appends to the audit log: many writers at once, beside one commit for each record on the same disk.

Every side writes the same kind of record into a database of its own in one folder. Ours goes the whole way that every
change of the console goes: `Database.transaction()`, and in it `log.append`.
"""

import asyncio
import gc
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import uvloop

from bench.audit_seed import AGENT, USERS
from bench.harness import Figure, Measured, Options, Result, at_least, column, in_turn, main
from server_monitor.audit import log
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.cli.main import GARBAGE_AFTER
from server_monitor.db import migrate
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.telemetry.logs import RequestContext, request_context

WRITERS = 256
GOAL_TIMES = 10.0
NOTES = (
    "A record is appended when its transaction has been committed with synchronous=FULL: one fsync at least.",
    "Ours masks secrets, makes canonical bytes, hashes, grows the tree, and keeps six indexes.",
    "sqlite3 inserts finished rows into the same table with the same indexes, and does nothing else: no hash, no tree.",
)


def measure(options: Options) -> Result:
    many, few = (WRITERS * 4, 50) if options.quick else (WRITERS * 40, 500)
    with (
        tempfile.TemporaryDirectory(prefix="bench-append-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        db = runner.run(_migrated(Path(folder, "ours.sqlite3")))
        runner.run(_migrated(Path(folder, "bare.sqlite3"), is_left_open=False))

        def ours(writers: int, records: int) -> Callable[[], Measured]:
            return lambda: {"per_s": records / runner.run(_append(db, writers, records // writers))}

        sides = {
            f"{WRITERS} writers": ours(WRITERS, many),
            "one commit each": ours(1, few),
            "sqlite3, one commit each": lambda: {"per_s": few / _bare(Path(folder), few)},
        }
        runner.run(_append(db, WRITERS, 2))
        gc.freeze()  # As the console does when it starts.
        gc.set_threshold(GARBAGE_AFTER)
        try:
            found = in_turn(sides, options.rounds)
        finally:
            runner.run(db.close())
    shared, single, bare = (column(found[side], "per_s") for side in sides)
    return Result(
        "audit_append",
        f"Durable appends to the audit log, {WRITERS} writers at once",
        [
            Figure(f"{WRITERS} writers at once", "records/s", shared),
            Figure("one writer, one commit each", "records/s", single),
            Figure("a loop of sqlite3, one commit each", "records/s", bare),
            Figure("times our one commit each", "", _times(shared, single), at_least(GOAL_TIMES)),
            Figure("times the loop of sqlite3", "", _times(shared, bare)),
        ],
        NOTES,
    )


async def _migrated(path: Path, *, is_left_open: bool = True) -> Database:
    db = await Database.open(f"sqlite:///{path}", node="bench")
    await migrate.upgrade(db)
    if not is_left_open:
        await db.close()
    return db


async def _append(db: Database, writers: int, each: int) -> float:
    """Seconds until every writer has appended so many records, one transaction each."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(writers):
            tasks.create_task(_write(db, number, each))
    return time.perf_counter() - began


async def _write(db: Database, number: int, count: int) -> None:
    user_id, name = USERS[number % len(USERS)]
    actor = AuditActor("user", user_id, name, ("admin",))
    for _ in range(count):
        request_context.set(
            RequestContext(new_id(), "web", f"10.0.0.{number}", 40_000, AGENT, "PATCH", "/api/servers/{id}")
        )
        meta = {"labels": {"env": "prod"}, "note": "changed by the benchmark"}
        event = Event("server.update", actor, AuditTarget("server", new_id(), f"web{number}"), meta=meta)
        async with db.transaction() as conn:
            await log.append(conn, event)


def _bare(folder: Path, count: int) -> float:
    """Seconds that sqlite3 takes to insert as many of our newest rows, and to commit each."""
    with closing(sqlite3.connect(folder / "ours.sqlite3")) as ours:
        rows = ours.execute("SELECT * FROM audit_records ORDER BY seq DESC LIMIT ?", (count,)).fetchall()
    marks = ", ".join("?" * len(rows[0]))
    with closing(sqlite3.connect(folder / "bare.sqlite3")) as conn:
        conn.execute("PRAGMA synchronous=FULL")
        began = time.perf_counter()
        for row in reversed(rows):
            conn.execute(f"INSERT INTO audit_records VALUES ({marks})", row)
            conn.commit()
        return time.perf_counter() - began


def _times(ours: list[float], others: list[float]) -> list[float]:
    return [our / other for our, other in zip(ours, others, strict=True)]


if __name__ == "__main__":
    raise SystemExit(main(measure))
