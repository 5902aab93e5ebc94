"""Ending tasks before their time."""

from datetime import UTC, datetime

import pytest

from server_monitor.auth.actor import Role
from server_monitor.db.engine import Database
from server_monitor.errors import Conflict, Denied, NotFound
from server_monitor.tasks import cancelling, claims
from server_monitor.tasks.placing import Placed
from server_monitor.tasks.run import Status
from tests.support.fleet import VIEWER, actions, add_group, member, records
from tests.tasks.runs import ADA, add_servers, claim, ended, finish, place, run_row, statuses, succeed, task_rows


async def cancel_run(db: Database, placed: Placed, actor=ADA) -> int:
    async with db.transaction() as conn:
        return await cancelling.cancel_run(conn, placed.run_id, actor=actor, now=datetime.now(UTC))


async def cancel_task(db: Database, task_id: str, actor=ADA) -> Status:
    async with db.transaction() as conn:
        return await cancelling.cancel_task(conn, task_id, actor=actor, now=datetime.now(UTC))


async def to_be_cancelled(db: Database, owner: str) -> set[str]:
    async with db.reading() as conn:
        return await cancelling.to_be_cancelled(conn, owner)


async def test_what_waits_ends_at_once_and_what_runs_is_asked_to_end(db: Database) -> None:
    placed = await place(db, await add_servers(db, 3), max_parallel=1)
    [running] = await claim(db, placed, owner="me")

    assert await cancel_run(db, placed) == 3

    assert await statuses(db, placed) == ["running", "cancelled", "cancelled"]
    assert await to_be_cancelled(db, "me") == {running.task_id}
    assert await to_be_cancelled(db, "another") == set()
    row = await run_row(db, placed)
    assert (row.cancelled_name, row.finished_at) == ("ada", None)
    assert (await records(db))[-1]["meta"] == {"tasks": 3}


async def test_a_cancelled_command_counts_as_ended_only_when_its_host_has_said_so(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))
    [running] = await claim(db, placed)
    await cancel_run(db, placed)

    await finish(db, ended(running, Status.CANCELLED, cause="cancelled", exit_code=143))

    assert await statuses(db, placed) == ["cancelled"]
    assert (await run_row(db, placed)).finished_at is not None
    assert (await actions(db)).count("task.cancel") == 2, "asked for, and confirmed"


async def test_a_command_that_ended_before_its_cancel_arrived_keeps_its_result(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))
    [running] = await claim(db, placed)
    await cancel_run(db, placed)

    await succeed(db, running)

    assert await statuses(db, placed) == ["success"]


async def test_what_is_over_cannot_be_cancelled(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))
    await succeed(db, *await claim(db, placed))

    with pytest.raises(Conflict):
        await cancel_run(db, placed)
    with pytest.raises(Conflict):
        await cancel_task(db, placed.tasks[0][0])
    with pytest.raises(NotFound):
        await cancel_task(db, "no such task")


async def test_a_second_cancel_of_what_still_runs_is_a_conflict(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))
    await claim(db, placed)
    assert await cancel_task(db, placed.tasks[0][0]) is Status.RUNNING

    with pytest.raises(Conflict):
        await cancel_task(db, placed.tasks[0][0])

    assert (await actions(db)).count("task.cancel") == 1


async def test_one_task_of_a_run_ends_and_the_others_do_not(db: Database) -> None:
    placed = await place(db, await add_servers(db, 3))

    assert await cancel_task(db, placed.tasks[1][0]) is Status.CANCELLED

    assert await statuses(db, placed) == ["queued", "cancelled", "queued"]
    assert [row.detail for row in await task_rows(db, placed)] == [None, "by ada", None]


async def test_a_cancelled_canary_stops_its_run_and_no_task_hangs(db: Database) -> None:
    placed = await place(db, await add_servers(db, 3), canary=1)

    await cancel_task(db, placed.tasks[0][0])

    assert await claim(db, placed) == []
    assert "queued" not in await statuses(db, placed)
    assert (await run_row(db, placed)).finished_at is not None


async def test_a_task_whose_end_was_asked_for_is_not_put_back_into_the_queue(db: Database) -> None:
    """It never started, and now nobody wants it to."""
    placed = await place(db, await add_servers(db, 1))
    [running] = await claim(db, placed)
    await cancel_run(db, placed)

    async with db.transaction() as conn:
        assert not await claims.requeue(conn, running)

    assert await statuses(db, placed) == ["running"]


async def test_whoever_may_not_run_may_not_cancel(db: Database) -> None:
    chosen = await add_servers(db, 2)
    group = await add_group(db, "some", chosen[:1])
    placed = await place(db, chosen)

    with pytest.raises(NotFound):
        await cancel_run(db, placed, VIEWER)
    with pytest.raises(Denied):
        await cancel_run(db, placed, member(group, Role.OPERATOR))
    with pytest.raises(NotFound):
        await cancel_task(db, placed.tasks[1][0], member(group, Role.OPERATOR))
    with pytest.raises(Denied):
        await cancel_task(db, placed.tasks[0][0], member(group, Role.AUDITOR))
    assert await cancel_task(db, placed.tasks[0][0], member(group, Role.OPERATOR)) is Status.CANCELLED
