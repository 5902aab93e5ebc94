"""Old runs are forgotten, with everything that they printed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, update

from server_monitor.db.engine import Database
from server_monitor.db.tables import runs, task_output, tasks
from server_monitor.fleet.selection import Chosen, Selector
from server_monitor.fleet.servers import Server
from server_monitor.tasks import placing, retention
from server_monitor.tasks.output import STREAMS, Outputs, Sizes
from server_monitor.tasks.placing import Ruled
from server_monitor.tasks.retention import BATCH
from server_monitor.tasks.run import Order, Status
from tests.support.fleet import ADMIN, VAULT, add, records

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BEFORE = NOW - timedelta(days=90)


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path / "tasks", Sizes())


async def a_run(db: Database, outputs: Outputs, on: Sequence[Server], finished_at: datetime | None) -> list[str]:
    """The ids of the tasks of a run that was over at this time, or is not over yet."""
    ruled = Ruled("allow", "sha256:0", None, {"verdict": "allow"})
    chosen = [Chosen(server, None) for server in on]
    async with db.transaction() as conn:
        order = Order(command="uptime", timeout_s=60)
        placed = await placing.place(
            conn, order, Selector(), chosen, ruled, "bash", vault=VAULT, actor=ADMIN, now=BEFORE - timedelta(days=1)
        )
        ids = [task_id for task_id, _, _ in placed.tasks]
        if finished_at is not None:
            await conn.execute(update(runs).where(runs.c.id == placed.run_id).values(finished_at=finished_at))
            over = {"status": Status.SUCCESS, "finished_at": finished_at}
            await conn.execute(update(tasks).where(tasks.c.id.in_(ids)).values(**over))
        row = {"stdout": b"x", "stderr": b"", "stdout_bytes": 1, "stderr_bytes": 0, "truncated": False}
        await conn.execute(insert(task_output), [{"task_id": one, **row, "digest": bytes(32)} for one in ids])
    for task_id in ids:
        for stream in STREAMS:
            path = outputs.path(task_id, stream)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return ids


async def left(db: Database) -> tuple[int, int, int]:
    """How many runs, tasks and outputs there are."""
    async with db.reading() as conn:
        counts = [
            (await conn.execute(select(func.count()).select_from(table))).scalar_one()
            for table in (runs, tasks, task_output)
        ]
    return counts[0], counts[1], counts[2]


async def test_what_was_over_long_ago_goes_with_rows_and_files(db: Database, outputs: Outputs) -> None:
    servers = [await add(db, name) for name in ("a", "b")]
    old = await a_run(db, outputs, servers, BEFORE - timedelta(seconds=1))
    kept = await a_run(db, outputs, servers, BEFORE)

    assert await retention.forget(db, outputs, BEFORE) == 2

    assert await left(db) == (1, 2, 2)
    assert not any(outputs.path(task_id, stream).exists() for task_id in old for stream in STREAMS)
    assert all(outputs.path(task_id, stream).exists() for task_id in kept for stream in STREAMS)
    last = (await records(db))[-1]
    assert (last["action"], last["meta"]["runs"], last["meta"]["tasks"]) == ("task.expire", 1, 2)
    assert datetime.fromisoformat(last["meta"]["finished_before"]) == BEFORE


async def test_a_run_that_is_not_over_stays_however_old_it_is(db: Database, outputs: Outputs) -> None:
    await a_run(db, outputs, [await add(db, "a")], None)
    before = len(await records(db))

    assert await retention.forget(db, outputs, BEFORE) == 0

    assert await left(db) == (1, 1, 1)
    assert len(await records(db)) == before, "nothing to do leaves no record"


async def test_a_large_run_goes_in_small_steps(sqlite_db: Database, outputs: Outputs) -> None:
    servers = [await add(sqlite_db, f"s{number}") for number in range(BATCH + 1)]
    await a_run(sqlite_db, outputs, servers, BEFORE - timedelta(days=1))

    assert await retention.forget(sqlite_db, outputs, BEFORE) == BATCH + 1
    assert await left(sqlite_db) == (0, 0, 0)


async def test_what_was_cut_short_is_finished_and_recorded_the_next_time(sqlite_db: Database, outputs: Outputs) -> None:
    ids = await a_run(sqlite_db, outputs, [await add(sqlite_db, "a")], BEFORE - timedelta(days=1))
    outputs.delete(ids)

    assert await retention.forget(sqlite_db, outputs, BEFORE) == 1
    assert await left(sqlite_db) == (0, 0, 0)
