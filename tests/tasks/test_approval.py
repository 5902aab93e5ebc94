"""The second person, and what becomes of runs that wait for one."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from server_monitor.auth.actor import Actor, ActorKind, Role, Scope, os_user
from server_monitor.db.engine import Database
from server_monitor.db.tables import runs
from server_monitor.errors import Conflict, Denied, Gone, NotFound
from server_monitor.tasks import approval, cancelling, listing
from server_monitor.tasks.listing import Filters
from server_monitor.tasks.placing import Placed
from tests.support.fleet import ADMIN, VIEWER, actions, add_group, member, records
from tests.tasks.runs import ADA, GRACE, add_servers, claim, counted, place, run_row, statuses

LATER = timedelta(minutes=31)


async def approve(db: Database, placed: Placed, actor: Actor = GRACE, digest: str | None = None) -> None:
    async with db.transaction() as conn:
        await approval.approve(conn, placed.run_id, digest, actor=actor, now=datetime.now(UTC))


async def reject(db: Database, placed: Placed, actor: Actor = GRACE) -> None:
    async with db.transaction() as conn:
        await approval.reject(conn, placed.run_id, "not on a Friday", actor=actor, now=datetime.now(UTC))


async def expire(db: Database, now: datetime) -> int:
    async with db.transaction() as conn:
        return await approval.expire(conn, now)


@pytest.fixture
async def waiting(db: Database) -> Placed:
    return await place(db, await add_servers(db, 3), ruling="needs_approval")


async def test_nothing_begins_before_it_is_approved_and_then_it_does(db: Database, waiting: Placed) -> None:
    assert await claim(db, waiting) == []

    await approve(db, waiting, digest="sha256:0123")

    assert await statuses(db, waiting) == ["queued"] * 3
    row = await run_row(db, waiting)
    assert (row.decision, row.decided_name, row.finished_at) == ("approve", "grace", None)
    assert len(await claim(db, waiting)) == 3
    record = next(one for one in await records(db) if one["action"] == "task.approve")
    assert (record["actor"]["name"], record["meta"]["asked_by"], record["meta"]["command"]) == (
        "grace",
        "ada",
        "uptime",
    )


async def test_what_was_rejected_never_begins(db: Database, waiting: Placed) -> None:
    await reject(db, waiting)

    assert await statuses(db, waiting) == ["rejected"] * 3
    assert (await run_row(db, waiting)).finished_at is not None
    assert (await records(db))[-1]["meta"]["why"] == "not on a Friday"
    with pytest.raises(Conflict):
        await approve(db, waiting)


@pytest.mark.parametrize("who", [ADA, replace(ADA, name="ada, renamed"), replace(ADA, session_id="another")])
async def test_nobody_approves_what_they_asked_for_themselves(db: Database, waiting: Placed, who: Actor) -> None:
    with pytest.raises(Denied):
        await approve(db, waiting, who)
    with pytest.raises(Denied):
        await reject(db, waiting, who)

    assert await statuses(db, waiting) == ["awaiting_approval"] * 3


async def test_an_account_of_the_machine_does_not_approve_its_own_request_either(db: Database) -> None:
    placed = await place(db, await add_servers(db, 1), ruling="needs_approval", actor=os_user("root"))

    with pytest.raises(Denied):
        await approve(db, placed, os_user("root"))
    await approve(db, placed, os_user("ops"))


@pytest.mark.parametrize("name", ["ada", "Ada", "ADA"])
async def test_an_account_of_the_machine_that_is_called_as_the_asker_is_taken_for_them(
    db: Database, waiting: Placed, name: str
) -> None:
    with pytest.raises(Denied):
        await approve(db, waiting, os_user(name))
    asked_at_the_shell = await place(
        db, await add_servers(db, 1, prefix="other"), ruling="needs_approval", actor=os_user(name)
    )
    with pytest.raises(Denied):
        await approve(db, asked_at_the_shell, ADA)


async def test_an_api_token_approves_nothing(db: Database, waiting: Placed) -> None:
    token = Actor(ActorKind.TOKEN, GRACE.id, "grace", Role.ADMIN, scopes=frozenset({Scope.ADMIN}), token_id="t")

    with pytest.raises(Denied):
        await approve(db, waiting, token)


async def test_a_token_that_asked_is_the_person_behind_it(db: Database) -> None:
    token = Actor(ActorKind.TOKEN, ADA.id, "ada", Role.ADMIN, scopes=frozenset({Scope.ADMIN}), token_id="t")
    placed = await place(db, await add_servers(db, 1), ruling="needs_approval", actor=token)

    with pytest.raises(Denied):
        await approve(db, placed, ADA)
    await approve(db, placed, GRACE)


async def test_whoever_may_approve_for_some_of_the_servers_may_not_for_all(db: Database) -> None:
    chosen = await add_servers(db, 3)
    some, all_of_them = await add_group(db, "some", chosen[:2]), await add_group(db, "all", chosen)
    placed = await place(db, chosen, ruling="needs_approval")

    with pytest.raises(Denied):
        await approve(db, placed, member(some, Role.OPERATOR))
    with pytest.raises(NotFound):
        await approve(db, placed, VIEWER)
    await approve(db, placed, member(all_of_them, Role.OPERATOR))


async def test_one_is_told_of_the_runs_about_which_one_may_decide_and_of_no_other(db: Database) -> None:
    chosen = await add_servers(db, 3)
    some, all_of_them = await add_group(db, "some", chosen[:2]), await add_group(db, "all", chosen)
    of_two, of_three, by_grace = [
        await place(db, servers, ruling="needs_approval", actor=actor)
        for servers, actor in ((chosen[:2], ADA), (chosen, ADA), (chosen, GRACE))
    ]
    await place(db, chosen, now=datetime.now(UTC) - LATER, ruling="needs_approval")
    await place(db, chosen)
    await reject(db, await place(db, chosen, ruling="needs_approval"))
    token = Actor(ActorKind.TOKEN, GRACE.id, "grace", Role.ADMIN, scopes=frozenset({Scope.ADMIN}), token_id="t")

    async def decidable(actor: Actor) -> set[str]:
        async with db.reading() as conn:
            rows, _ = await listing.run_page(conn, Filters(), 10, None, actor=ADA)
            assert len(rows) == 6
            return set(await approval.decidable(conn, rows, actor=actor, now=datetime.now(UTC)))

    assert await decidable(ADA) == {by_grace.run_id}
    assert await decidable(GRACE) == {of_two.run_id, of_three.run_id}
    assert await decidable(member(some, Role.OPERATOR)) == {of_two.run_id}
    assert await decidable(member(all_of_them, Role.OPERATOR)) == {of_two.run_id, of_three.run_id, by_grace.run_id}
    for actor in (member(all_of_them, Role.AUDITOR), VIEWER, token):
        assert await decidable(actor) == set()


async def test_whoever_sees_none_of_the_servers_does_not_learn_of_the_run(db: Database, waiting: Placed) -> None:
    stranger = Actor(ActorKind.USER, "00000000-0000-7000-8000-000000000009", "stranger")

    with pytest.raises(NotFound):
        await approve(db, waiting, stranger)


async def test_another_command_than_the_one_that_was_looked_at_is_a_conflict(db: Database, waiting: Placed) -> None:
    with pytest.raises(Conflict):
        await approve(db, waiting, digest="sha256:4567")

    assert await statuses(db, waiting) == ["awaiting_approval"] * 3


async def test_after_half_an_hour_nobody_can_approve_it_any_more(db: Database) -> None:
    then = datetime.now(UTC) - LATER
    placed = await place(db, await add_servers(db, 2), ruling="needs_approval", now=then)

    with pytest.raises(Gone):
        await approve(db, placed)
    assert await expire(db, then + timedelta(minutes=29)) == 0
    assert await expire(db, datetime.now(UTC)) == 1
    assert await expire(db, datetime.now(UTC)) == 0

    assert await statuses(db, placed) == ["rejected"] * 2
    assert (await actions(db))[-1] == "task.expire"
    with pytest.raises(Conflict):
        await approve(db, placed)


@pytest.mark.parametrize("how", ["approved", "rejected", "cancelled", "each task cancelled"])
async def test_what_was_decided_does_not_expire(db: Database, waiting: Placed, how: str) -> None:
    async with db.transaction() as conn:
        now = datetime.now(UTC)
        if how == "approved":
            await approval.approve(conn, waiting.run_id, None, actor=GRACE, now=now)
        elif how == "rejected":
            await approval.reject(conn, waiting.run_id, None, actor=GRACE, now=now)
        elif how == "cancelled":
            await cancelling.cancel_run(conn, waiting.run_id, actor=ADA, now=now)
        else:
            for task_id, _, _ in waiting.tasks:
                await cancelling.cancel_task(conn, task_id, actor=ADA, now=now)
    before = await counted(db, waiting)

    assert await expire(db, datetime.now(UTC) + LATER) == 0

    assert await counted(db, waiting) == before
    assert "task.expire" not in await actions(db)
    with pytest.raises(Conflict):
        await approve(db, waiting)


async def test_what_does_not_wait_cannot_be_approved(db: Database) -> None:
    for ruling in ("allow", "deny"):
        placed = await place(db, await add_servers(db, 1, prefix=ruling), ruling=ruling)
        with pytest.raises(Conflict):
            await approve(db, placed)


# --- two at once ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def databases(postgres_url: str) -> AsyncIterator[tuple[Database, Database]]:
    opened = [await Database.open(postgres_url, node=f"node-{number}") for number in range(2)]
    try:
        yield opened[0], opened[1]
    finally:
        for database in opened:
            await database.close()


async def test_of_two_who_decide_at_once_one_does(databases: tuple[Database, Database]) -> None:
    one, two = databases
    edith = Actor(ActorKind.USER, "00000000-0000-7000-8000-000000000012", "edith", Role.ADMIN)
    chosen = await add_servers(one, 2)
    for _ in range(20):
        placed = await place(one, chosen, ruling="needs_approval")

        decided = await asyncio.gather(approve(one, placed, GRACE), reject(two, placed, edith), return_exceptions=True)

        assert [type(one) for one in decided if one is not None] == [Conflict]
        assert await statuses(one, placed) == (["queued"] * 2 if decided[0] is None else ["rejected"] * 2)
    made = await actions(one)
    assert made.count("task.approve") + made.count("task.reject") == 20


async def test_what_is_approved_at_the_last_moment_is_approved_or_expired_and_not_both(
    databases: tuple[Database, Database],
) -> None:
    one, two = databases
    chosen = await add_servers(one, 2)
    for _ in range(20):
        placed = await place(one, chosen, ruling="needs_approval")

        async def expire_now() -> None:
            async with two.transaction() as conn:
                await approval.expire(conn, datetime.now(UTC) + LATER)

        await asyncio.gather(approve(one, placed), expire_now(), return_exceptions=True)

        decision = (await run_row(one, placed)).decision
        expected = {"approve": ["queued"] * 2, "expire": ["rejected"] * 2}
        assert await statuses(one, placed) == expected[decision]
    made = await actions(one)
    assert made.count("task.approve") + made.count("task.expire") == 20


async def test_a_run_whose_asker_was_somebody_else_by_the_same_name_can_be_approved(db: Database) -> None:
    """Names can be given again; ids cannot."""
    placed = await place(db, await add_servers(db, 1), ruling="needs_approval")
    async with db.transaction() as conn:
        await conn.execute(update(runs).values(user_name="grace"))

    await approve(db, placed, GRACE)

    assert await statuses(db, placed) == ["queued"]
    assert ADMIN.id != GRACE.id
