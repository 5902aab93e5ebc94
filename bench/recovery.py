"""What a start has to do after a death: take over a thousand running tasks beside a hundred thousand old ones.

The same call that the console makes before its listener opens, on a database of its own; attaching to the hosts comes
later and holds nobody.
"""

import asyncio
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from bench.harness import Figure, Measured, Options, Result, at_most, column, main
from server_monitor.audit.log import size
from server_monitor.db import migrate
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import heartbeats, runs, tasks
from server_monitor.tasks import claims

OLD = 100_000
RUNNING = 1_000
TASKS_A_RUN = 500
GOAL_MS = 100
OWNER = "bench"


async def one_round(old: int, running: int) -> Measured:
    with tempfile.TemporaryDirectory(prefix="server-monitor-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'server-monitor.sqlite3'}"
        db = await Database.open(url, node=OWNER)
        try:
            await migrate.upgrade(db)
            for start in range(0, old, TASKS_A_RUN):
                await _add_run(db, min(TASKS_A_RUN, old - start), is_running=False)
            for start in range(0, running, TASKS_A_RUN):
                await _add_run(db, min(TASKS_A_RUN, running - start), is_running=True)
        finally:
            await db.close()
        db = await Database.open(url, node=OWNER)
        try:
            return await _recover(db, running)
        finally:
            await db.close()


async def _add_run(db: Database, count: int, *, is_running: bool) -> None:
    now, run_id = datetime.now(UTC), new_id()
    run: dict[str, Any] = {
        "id": run_id,
        "command": "uptime",
        "shell": "bash",
        "user_name": "bench",
        "request_id": run_id,
        "selector": {},
        "verdict": {},
        "ruling": "allow",
        "digest": "sha256:0",
        "timeout_s": 60,
        "max_parallel": TASKS_A_RUN,
        "canary": 0,
        "store_output": True,
        "secret_names": [],
        "tasks": count,
        "created_at": now,
        "finished_at": None if is_running else now,
    }
    rows = [
        {
            "id": new_id(),
            "run_id": run_id,
            "position": position,
            "server_id": f"{position:036}",
            "server_name": f"host-{position}",
            "status": "running" if is_running else "success",
            "owner": OWNER if is_running else None,
            "fence": 1,
            "created_at": now,
            "started_at": now,
            "finished_at": None if is_running else now,
        }
        for position in range(count)
    ]
    async with db.transaction() as conn:
        await conn.execute(insert(runs), [run])
        await conn.execute(insert(tasks), rows)


async def _recover(db: Database, running: int) -> Measured:
    async with db.reading() as conn:
        await size(conn)  # the connection is open: a start has read much before it comes to this
    began = time.perf_counter()
    async with db.transaction() as conn:
        await claims.beat(conn, OWNER, datetime.now(UTC))
        taken = await claims.take_over(conn, OWNER, is_start=True)
    wall_s = time.perf_counter() - began
    assert len(taken) == running
    async with db.reading() as conn:
        assert (await conn.execute(heartbeats.select())).one().owner == OWNER
    return {"ms": 1000 * wall_s}


def measure(options: Options) -> Result:
    old, running = (OLD // 20, RUNNING // 20) if options.quick else (OLD, RUNNING)
    rounds = [asyncio.run(one_round(old, running)) for _ in range(options.rounds)]
    title = f"Recovery of {running:,} running tasks beside {old:,} old ones"
    goal = None if options.quick else at_most(GOAL_MS)
    return Result("recovery", title, [Figure("take-over, durable", "ms", column(rounds, "ms"), goal)])


if __name__ == "__main__":
    raise SystemExit(main(measure))
