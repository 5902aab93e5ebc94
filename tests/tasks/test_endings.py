"""How tasks end side by side, and what that does to their runs."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text, update

from server_monitor.db.engine import Database
from server_monitor.db.tables import runs
from server_monitor.tasks import approval, cancelling, endings, rows
from server_monitor.tasks.placing import Placed
from server_monitor.tasks.run import Claimed, Status
from tests.support.fleet import actions, records
from tests.support.patience import PATIENCE_S
from tests.tasks.runs import (
    ADA,
    GRACE,
    add_servers,
    claim,
    ended,
    fail,
    finish,
    output_rows,
    place,
    run_row,
    statuses,
    succeed,
    task_rows,
)

ROUNDS = 60
SECRETS = {"DB_PASSWORD": "a secret value"}


@pytest.fixture
async def postgres_db(postgres_url: str):
    database = await Database.open(postgres_url, node="test-node")
    try:
        yield database
    finally:
        await database.close()


async def until_blocked(db: Database, others: asyncio.Task[object]) -> None:
    """Wait until the other transaction waits for a lock, or is through."""
    async with asyncio.timeout(PATIENCE_S):
        while not others.done():
            async with db.reading() as conn:
                if await conn.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")):
                    return


async def finish_overdue(db: Database) -> int:
    async with db.transaction() as conn:
        return await rows.finish_overdue(conn, datetime.now(UTC))


async def reopen(db: Database, placed: Placed) -> None:
    """As a run is left behind whose end was overlooked."""
    async with db.transaction() as conn:
        changed = update(runs).where(runs.c.id == placed.run_id)
        await conn.execute(changed.values(finished_at=None, secrets=b"sealed", secrets_key="key"))


async def test_two_transactions_that_end_the_last_two_tasks_end_the_run(postgres_db: Database) -> None:
    placed = await place(postgres_db, await add_servers(postgres_db, 2), secrets=SECRETS)
    first, second = await claim(postgres_db, placed)

    async with postgres_db.transaction() as conn:
        await endings.finish(conn, [ended(first)])
        other = asyncio.create_task(succeed(postgres_db, second))
        await until_blocked(postgres_db, other)
    await other

    row = await run_row(postgres_db, placed)
    assert row.finished_at is not None
    assert (row.secrets, row.secrets_key) == (None, None)


async def test_failures_counted_side_by_side_stop_the_run(postgres_db: Database) -> None:
    placed = await place(postgres_db, await add_servers(postgres_db, 3), max_failures=2, max_parallel=2)
    first, second = await claim(postgres_db, placed)

    async with postgres_db.transaction() as conn:
        await endings.finish(conn, [ended(first, Status.FAILED, cause="exit_status", exit_code=1)])
        other = asyncio.create_task(fail(postgres_db, second))
        await until_blocked(postgres_db, other)
    await other

    assert await statuses(postgres_db, placed) == ["failed", "failed", "skipped"]
    assert (await run_row(postgres_db, placed)).finished_at is not None


async def test_runs_end_whoever_ends_their_tasks_at_the_same_time_in_whatever_order(postgres_db: Database) -> None:
    servers = await add_servers(postgres_db, 4)

    async def end(claimed: list[Claimed]) -> None:
        await succeed(postgres_db, *claimed)

    async def cancel(placed: Placed) -> None:
        async with postgres_db.transaction() as conn:
            await cancelling.cancel_task(conn, placed.tasks[3][0], actor=ADA, now=datetime.now(UTC))

    for _ in range(ROUNDS):
        one, two = [await place(postgres_db, servers, max_parallel=3, max_failures=1) for _ in range(2)]
        of_one = await claim(postgres_db, one, per_server=2)
        of_two = await claim(postgres_db, two, per_server=2)
        ends = [end([here, there]) for here, there in zip(of_one, reversed(of_two), strict=True)]
        await asyncio.gather(*ends, cancel(one), cancel(two), finish_overdue(postgres_db))
        for placed in (one, two):
            assert (await run_row(postgres_db, placed)).finished_at is not None


async def test_a_run_is_approved_or_cancelled_and_never_half_of_each(postgres_db: Database) -> None:
    servers = await add_servers(postgres_db, 3)

    async def approve(placed: Placed) -> None:
        async with postgres_db.transaction() as conn:
            await approval.approve(conn, placed.run_id, None, actor=GRACE, now=datetime.now(UTC))

    async def cancel(placed: Placed) -> None:
        async with postgres_db.transaction() as conn:
            await cancelling.cancel_run(conn, placed.run_id, actor=ADA, now=datetime.now(UTC))

    for _ in range(ROUNDS // 3):
        placed = await place(postgres_db, servers, ruling="needs_approval")
        await asyncio.gather(approve(placed), cancel(placed), return_exceptions=True)
        assert await statuses(postgres_db, placed) == ["cancelled"] * 3
        assert (await run_row(postgres_db, placed)).finished_at is not None


@pytest.mark.parametrize(
    ("told", "stored"), [(255, 255), (2**31, 2**31 - 1), (-(2**40), -(2**31)), (10**30, 2**31 - 1)]
)
async def test_an_exit_code_that_no_column_holds_is_stored_as_the_nearest(db: Database, told: int, stored: int) -> None:
    placed = await place(db, await add_servers(db, 1))
    (only,) = await claim(db, placed)

    await finish(db, ended(only, Status.FAILED, cause="exit_status", exit_code=told))

    assert [row.exit_code for row in await task_rows(db, placed)] == [stored]
    assert (await records(db))[-1]["meta"]["exit_code"] == stored


async def test_an_outcome_that_the_database_refuses_keeps_no_other_from_being_stored(db: Database) -> None:
    placed = await place(db, await add_servers(db, 3))
    first, second, third = [ended(one, stdout=b"fine") for one in await claim(db, placed)]
    assert second.output is not None
    poisoned = replace(second, output=replace(second.output, stdout_bytes=2**70))

    held = await finish(db, first, poisoned, third)

    assert [one.claim for one in held] == [first.claim, second.claim, third.claim]
    assert await statuses(db, placed) == ["success", "interrupted", "success"]
    assert [row.cause for row in await task_rows(db, placed)] == [None, "not_stored", None]
    assert [row.stdout for row in await output_rows(db)] == [b"fine"] * 2
    assert (await run_row(db, placed)).finished_at is not None
    assert (await actions(db)).count("task.fail") == 1


async def test_housekeeping_ends_a_run_whose_end_was_overlooked(db: Database) -> None:
    over, open_run = [await place(db, await add_servers(db, 2, prefix=name)) for name in ("over", "open")]
    await succeed(db, *await claim(db, over))
    await reopen(db, over)

    assert await finish_overdue(db) == 1

    row = await run_row(db, over)
    assert row.finished_at is not None
    assert (row.secrets, row.secrets_key) == (None, None)
    assert (await run_row(db, open_run)).finished_at is None
    assert await finish_overdue(db) == 0
