"""Who may run what when: claims, their fences, and what is taken over from the dead."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, update

from server_monitor.db.engine import Database
from server_monitor.db.tables import facts, tasks
from server_monitor.tasks import cancelling, claims
from server_monitor.tasks.run import Claimed, Mode, Status
from tests.support.fleet import actions, records
from tests.tasks.runs import (
    ADA,
    add_servers,
    claim,
    counted,
    ended,
    fail,
    finish,
    place,
    place_in,
    run_row,
    statuses,
    succeed,
    task_rows,
)


async def test_a_claim_says_all_that_it_takes_to_run_the_task_and_is_recorded_as_an_intent(db: Database) -> None:
    [server] = await add_servers(db, 1)
    async with db.transaction() as conn:
        await conn.execute(
            insert(facts).values(server_id=server.id, document={"boot_id": "b-1"}, found_at=datetime.now(UTC))
        )
    placed = await place(db, [server], timeout_s=7, store_output=False)

    [claimed] = await claim(db, placed)

    assert (claimed.command, claimed.shell, claimed.timeout_s, claimed.store_output) == ("uptime", "bash", 7, False)
    assert (claimed.server_id, claimed.server_name, claimed.boot_id) == (server.id, server.name, "b-1")
    assert (claimed.fence, claimed.is_taken_over, claimed.mode) == (1, False, None)
    assert await statuses(db, placed) == ["running"]
    start = (await records(db))[-1]
    assert (start["action"], start["phase"], start["meta"]["task_id"]) == ("task.start", "intent", claimed.task_id)
    assert (start["actor"]["name"], start["target"]["name"]) == ("ada", server.name)


async def test_what_was_not_cleared_is_not_claimed(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))

    assert await claim(db, cleared=[]) == []
    assert await claim(db, cleared=["another"]) == []
    assert await claim(db, placed, slots=0) == []
    assert await statuses(db, placed) == ["queued"]


async def test_a_run_has_no_more_than_its_share_at_once(db: Database) -> None:
    placed = await place(db, await add_servers(db, 10), max_parallel=3)

    first = await claim(db, placed)
    none_more = await claim(db, placed)
    await succeed(db, first[0])
    second = await claim(db, placed)

    assert (len(first), len(none_more), len(second)) == (3, 0, 1)
    assert await counted(db, placed) == {"success": 1, "running": 3, "queued": 6}


async def test_a_server_runs_no_more_at_once_than_it_may(db: Database) -> None:
    chosen = await add_servers(db, 2)
    placed = [await place(db, chosen) for _ in range(3)]

    one_each = await claim(db, *placed)
    two_each = await claim(db, *placed, per_server=2)

    assert Counter(task.server_id for task in one_each) == {server.id: 1 for server in chosen}
    assert {task.run_id for task in one_each} == {placed[0].run_id}, "the oldest run goes first"
    assert {task.run_id for task in two_each} == {placed[1].run_id}


async def test_a_busy_server_does_not_hold_the_others_of_its_run(db: Database) -> None:
    chosen = await add_servers(db, 3)
    blocking = await place(db, chosen[:1])
    await claim(db, blocking)
    placed = await place(db, chosen, max_parallel=1)

    [claimed] = await claim(db, placed)

    assert claimed.server_id == chosen[1].id


async def test_behind_its_canaries_a_run_waits_for_all_of_them(db: Database) -> None:
    placed = await place(db, await add_servers(db, 5), canary=2)

    canaries = await claim(db, placed)
    await succeed(db, canaries[0])
    still_waiting = await claim(db, placed)
    await succeed(db, canaries[1])
    rest = await claim(db, placed)

    assert (len(canaries), still_waiting, len(rest)) == (2, [], 3)


async def test_a_canary_that_fails_stops_its_run(db: Database) -> None:
    placed = await place(db, await add_servers(db, 5), canary=2)
    canaries = await claim(db, placed)

    await fail(db, canaries[0])

    assert await statuses(db, placed) == ["failed", "running", "skipped", "skipped", "skipped"]
    assert {row.cause for row in await task_rows(db, placed)} == {"exit_status", None, "canary_failed"}
    await succeed(db, canaries[1])
    assert (await run_row(db, placed)).finished_at is not None
    assert (await records(db))[-2]["meta"] == {"skipped": 3, "why": "canary_failed"}


@pytest.mark.parametrize(("tolerated", "stops_after"), [(0, 1), (1, 1), (2, 2)])
async def test_too_many_failures_stop_a_run(db: Database, tolerated: int, stops_after: int) -> None:
    placed = await place(db, await add_servers(db, 6), max_failures=tolerated, max_parallel=3)
    claimed = await claim(db, placed)

    await fail(db, *claimed[: stops_after - 1])
    assert "skipped" not in await statuses(db, placed)
    await fail(db, claimed[stops_after - 1])

    assert await statuses(db, placed) == ["failed"] * stops_after + ["running"] * (3 - stops_after) + ["skipped"] * 3


async def test_a_thousand_tasks_for_one_server_run_one_after_the_other_in_their_order(db: Database) -> None:
    [server] = await add_servers(db, 1)
    began = datetime.now(UTC)
    async with db.transaction() as conn:
        placed = [await place_in(conn, [server], now=began + timedelta(milliseconds=n)) for n in range(1_000)]
    cleared = [one.run_id for one in placed]

    order = []
    for _ in range(25):
        [claimed] = await claim(db, cleared=cleared)
        assert await claim(db, cleared=cleared) == []
        order.append(claimed.run_id)
        await succeed(db, claimed)

    assert order == cleared[:25]


async def test_only_the_newest_claim_may_say_how_a_task_ended(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))
    [old] = await claim(db, placed, owner="dead")
    async with db.transaction() as conn:
        [new] = await claims.take_over(conn, "alive", dead=["dead"])

    assert await fail(db, old) == []
    assert await statuses(db, placed) == ["running"]
    async with db.transaction() as conn:
        assert not await claims.note_mode(conn, old, Mode.ATTACHED)
        assert not await claims.note_ending(conn, old, "cancelled")
        assert not await claims.requeue(conn, old)
    outcome = ended(new)
    later = (ended(new, Status.FAILED), ended(old, Status.FAILED))
    assert await finish(db, outcome, *later) == [outcome], "the first of this claim, whatever else is said about it"
    assert await finish(db, outcome) == [], "once"

    assert [row.mode for row in await task_rows(db, placed)] == ["wrapped"]
    assert (await actions(db))[-3:] == ["task.start", "task.recover", "task.recover"]


async def test_a_task_that_never_started_goes_back_once_and_not_twice(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))
    [first] = await claim(db, placed)
    async with db.transaction() as conn:
        assert await claims.requeue(conn, first)
    assert await statuses(db, placed) == ["queued"]
    [second] = await claim(db, placed)

    async with db.transaction() as conn:
        assert not await claims.requeue(conn, second)

    assert second.fence == 2
    assert await statuses(db, placed) == ["running"]
    assert await succeed(db, first) == []


async def test_the_tasks_of_the_dead_are_taken_over_and_no_others(db: Database) -> None:
    placed = await place(db, await add_servers(db, 3))
    for owner in ("dead", "alive", "me"):
        await claim(db, placed, owner=owner, slots=1)
        async with db.transaction() as conn:
            await claims.beat(conn, owner, datetime.now(UTC))

    async with db.transaction() as conn:
        meanwhile = await claims.take_over(conn, "me", dead=["dead"])
    async with db.transaction() as conn:
        at_start = await claims.take_over(conn, "me", is_start=True)

    assert [task.fence for task in meanwhile] == [2]
    assert all(task.is_taken_over for task in (*meanwhile, *at_start))
    assert len(at_start) == 2, "at the start also what was ours before"
    owners = Counter(row.owner for row in await task_rows(db, placed))
    assert owners == {"me": 2, "alive": 1}
    assert (await records(db))[-1]["meta"] == {"tasks": 2, "runs": 1, "became": "taken over"}


async def test_whoever_takes_over_knows_what_the_dead_knew(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))
    [old] = await claim(db, placed, owner="dead")
    async with db.transaction() as conn:
        await conn.execute(update(tasks).values(boot_id="b-2"))
        assert await claims.note_mode(conn, old, Mode.ATTACHED)
        assert await claims.note_ending(conn, old, "cancelled")
        [new] = await claims.take_over(conn, "me", is_start=True)

    assert (new.mode, new.boot_id, new.started_at) == (Mode.ATTACHED, "b-2", old.started_at)
    assert new.ending == "cancelled"


async def test_tasks_of_whoever_has_no_heartbeat_are_nobodys(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))
    await claim(db, placed, owner="never heard of")

    async with db.transaction() as conn:
        [task] = await claims.take_over(conn, "me")

    assert task.is_taken_over


async def test_a_claim_whose_answer_got_lost_is_found_again(db: Database) -> None:
    """The database made it durable and the connection broke before it could say so."""
    placed = await place(db, await add_servers(db, 2))
    known, unknown = await claim(db, placed, owner="me")
    async with db.transaction() as conn:
        await claims.beat(conn, "me", datetime.now(UTC))
        strayed = await claims.strayed(conn, "me", [known.task_id])
        [task] = await claims.take_over(conn, "me", strayed=strayed)

    assert (task.task_id, task.fence) == (unknown.task_id, 2)


async def test_only_the_dead_that_hold_nothing_are_forgotten(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1))
    await claim(db, placed, owner="holds")
    now = datetime.now(UTC)
    async with db.transaction() as conn:
        for owner in ("holds", "holds nothing", "alive, with a clock of last week"):
            await claims.beat(conn, owner, now - timedelta(days=7))
        await claims.beat(conn, "died just now", now)

        dead = {"holds", "holds nothing", "died just now"}
        await claims.forget_heartbeats(conn, dead, now - timedelta(days=1))

        left = set(await claims.beats(conn))
    assert left == {"holds", "alive, with a clock of last week", "died just now"}


# --- two at once ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def pair(database_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """A console and a command beside it, each with connections of its own to the same database."""
    databases = [await Database.open(database_url, node=f"node-{number}") for number in range(2)]
    try:
        yield databases[0], databases[1]
    finally:
        for database in databases:
            await database.close()


async def test_a_task_that_goes_back_into_the_queue_cannot_slip_past_a_cancel(pair: tuple[Database, Database]) -> None:
    """Each is cancelled where it waits, or asked to end where it runs; none is left to begin once more."""
    one, two = pair
    chosen = await add_servers(one, 4)
    chance = random.Random(8)
    for round_number in range(40):
        placed = await place(one, chosen)
        claimed = await claim(one, placed)

        async def go_back(task: Claimed) -> None:
            async with one.transaction() as conn:
                await claims.requeue(conn, task)

        async def cancel() -> None:
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            async with two.transaction() as conn:
                await cancelling.cancel_run(conn, placed.run_id, actor=ADA, now=datetime.now(UTC))  # noqa: B023

        await asyncio.gather(*(go_back(task) for task in claimed), cancel())

        rows = await task_rows(one, placed)
        left = {row.id for row in rows if row.status == Status.RUNNING and row.cancel_requested_at is not None}
        assert [row.status for row in rows if row.id not in left] == ["cancelled"] * (4 - len(left)), round_number
        await finish(one, *(ended(task, Status.CANCELLED) for task in claimed if task.task_id in left))


@pytest.fixture
async def second(postgres_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """Two consoles on one PostgreSQL."""
    databases = [await Database.open(postgres_url, node=f"node-{number}") for number in range(2)]
    try:
        yield databases[0], databases[1]
    finally:
        for database in databases:
            await database.close()


async def test_two_consoles_never_claim_the_same_task_nor_too_many_for_a_server_or_run(
    second: tuple[Database, Database],
) -> None:
    one, two = second
    chosen = await add_servers(one, 8)
    chance = random.Random(4)
    for round_number in range(15):
        placed = [await place(one, chosen, max_parallel=5) for _ in range(3)]
        claimed: list[Claimed] = []

        async def work(db: Database, owner: str) -> None:
            for _ in range(6):
                mine = await claim(db, *placed, owner=owner, slots=chance.choice((1, 2, 5)))  # noqa: B023
                claimed.extend(mine)  # noqa: B023
                await asyncio.sleep(0)

        await asyncio.gather(*(work(db, owner) for db, owner in ((one, "a"), (two, "b"), (one, "a"), (two, "b"))))

        assert len({task.task_id for task in claimed}) == len(claimed), (
            f"a task was claimed twice, round {round_number}"
        )
        assert max(Counter(task.server_id for task in claimed).values()) == 1, f"round {round_number}"
        assert max(Counter(task.run_id for task in claimed).values()) <= 5, f"round {round_number}"
        await succeed(one, *claimed)
        async with one.transaction() as conn:
            for run in placed:
                await cancelling.cancel_run(conn, run.run_id, actor=ADA, now=datetime.now(UTC))


async def test_a_task_is_either_claimed_or_cancelled(second: tuple[Database, Database]) -> None:
    one, two = second
    chosen = await add_servers(one, 4)
    for _ in range(25):
        placed = await place(one, chosen)

        async def cancel() -> None:
            async with two.transaction() as conn:
                await cancelling.cancel_run(conn, placed.run_id, actor=ADA, now=datetime.now(UTC))  # noqa: B023

        claimed, _ = await asyncio.gather(claim(one, placed), cancel())

        rows = await task_rows(one, placed)
        running = {row.id for row in rows if row.status == Status.RUNNING}
        assert running == {task.task_id for task in claimed}
        assert all(row.cancel_requested_at is not None for row in rows if row.id in running)
        assert {row.status for row in rows} <= {"running", "cancelled"}
        await succeed(one, *claimed)


async def test_two_consoles_that_bury_a_third_share_its_tasks(second: tuple[Database, Database]) -> None:
    one, two = second
    chosen = await add_servers(one, 10)
    for _ in range(10):
        placed = await place(one, chosen)
        await claim(one, placed, owner="dead")

        async def bury(db: Database, owner: str) -> list[Claimed]:
            async with db.transaction() as conn:
                await claims.beat(conn, owner, datetime.now(UTC))
                return await claims.take_over(conn, owner, dead=["dead"])

        parts = await asyncio.gather(bury(one, "a"), bury(two, "b"))

        taken = [task.task_id for part in parts for task in part]
        assert sorted(taken) == sorted(row.id for row in await task_rows(one, placed))
        await succeed(one, *(task for part in parts for task in part))
        assert await counted(one, placed) == {"success": 10}
