"""Waiting for the end of a run."""

import asyncio

import pytest

from server_monitor.bus.contract import Stopping, Subject, TasksChanged, TaskState
from server_monitor.bus.memory import MemoryBus
from server_monitor.db.engine import Database
from server_monitor.errors import NotFound
from server_monitor.tasks.patience import WAITING_EACH, Patience
from tests.support.patience import PATIENCE_S
from tests.tasks.runs import ADA, GRACE, add_servers, claim, place, run_row, succeed

LONG_S = 10 * PATIENCE_S


@pytest.mark.parametrize("is_told", [True, False])
async def test_it_ends_with_the_run_whether_or_not_the_hint_arrives(db: Database, is_told: bool) -> None:
    placed = await place(db, await add_servers(db, 1))
    [claimed] = await claim(db, placed)
    bus = MemoryBus()
    waiting = asyncio.create_task(Patience(db, bus).until_over(placed.run_id, LONG_S, actor=ADA))
    running = TaskState(claimed.task_id, placed.run_id, claimed.server_id, "running", None, None)
    bus.publish(Subject.TASKS, TasksChanged((running,)))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done

    await succeed(db, claimed)
    if is_told:
        over = TaskState(claimed.task_id, placed.run_id, claimed.server_id, "success", None, 0)
        bus.publish(Subject.TASKS, TasksChanged((over,)))

    async with asyncio.timeout(PATIENCE_S):
        await waiting
    assert (await run_row(db, placed)).finished_at is not None


async def test_it_ends_when_the_time_is_up(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))

    async with asyncio.timeout(PATIENCE_S):
        await Patience(db, MemoryBus()).until_over(placed.run_id, 0.05, actor=ADA)

    assert (await run_row(db, placed)).finished_at is None


async def test_it_ends_when_the_console_stops(sqlite_db: Database) -> None:
    placed = await place(sqlite_db, await add_servers(sqlite_db, 1))
    bus = MemoryBus()
    waiting = asyncio.create_task(Patience(sqlite_db, bus).until_over(placed.run_id, LONG_S, actor=ADA))

    async with asyncio.timeout(PATIENCE_S):
        while not waiting.done():
            bus.publish(Subject.STOPPING, Stopping())  # It may not listen yet.
            await asyncio.sleep(0.01)


async def test_nobody_waits_for_a_run_that_is_not_theirs_to_see(sqlite_db: Database) -> None:
    with pytest.raises(NotFound):
        await Patience(sqlite_db, MemoryBus()).until_over("none", LONG_S, actor=ADA)


async def test_whoever_comes_after_too_many_does_not_wait(sqlite_db: Database) -> None:
    placed = await place(sqlite_db, await add_servers(sqlite_db, 1))
    both = Patience(sqlite_db, MemoryBus(), waiting_max=1)
    first = asyncio.create_task(both.until_over(placed.run_id, LONG_S, actor=ADA))
    await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE_S):
        await both.until_over(placed.run_id, LONG_S, actor=ADA)

    assert not first.done()
    first.cancel()


async def test_one_person_does_not_take_all_places(sqlite_db: Database) -> None:
    placed = await place(sqlite_db, await add_servers(sqlite_db, 1))
    all_of_us = Patience(sqlite_db, MemoryBus())
    mine = [asyncio.create_task(all_of_us.until_over(placed.run_id, LONG_S, actor=ADA)) for _ in range(WAITING_EACH)]
    await asyncio.sleep(0)

    async with asyncio.timeout(PATIENCE_S):
        await all_of_us.until_over(placed.run_id, LONG_S, actor=ADA)
    other = asyncio.create_task(all_of_us.until_over(placed.run_id, LONG_S, actor=GRACE))
    done, _ = await asyncio.wait([*mine, other], timeout=0.1)

    assert not done
    for waiting in (*mine, other):
        waiting.cancel()
