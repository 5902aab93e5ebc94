"""Groups of servers."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from server_monitor.auth.actor import Actor, Role
from server_monitor.db.engine import Database
from server_monitor.db.tables import users
from server_monitor.errors import Conflict, Denied, Invalid, NotFound
from server_monitor.fleet import groups, servers
from server_monitor.fleet.groups import Edit, Grant, Group, NewGroup
from tests.support.fleet import ADMIN, NOBODY, VIEWER, actions, add, add_group, member, records

PERSON = "00000000-0000-7000-8000-00000000000a"


async def create(db: Database, name: str, *, actor: Actor = ADMIN, **given: object) -> Group:
    async with db.transaction() as conn:
        return await groups.create(conn, NewGroup(name, **given), actor=actor)


async def set_members(db: Database, group: Group, wanted: Sequence[str], *, actor: Actor = ADMIN) -> list[str]:
    async with db.transaction() as conn:
        return await groups.set_members(conn, group.id, wanted, actor=actor)


async def set_grants(db: Database, group: Group, *wanted: Grant, actor: Actor = ADMIN) -> list[Grant]:
    async with db.transaction() as conn:
        return await groups.set_grants(conn, group.id, wanted, actor=actor)


async def add_user(db: Database, user_id: str = PERSON) -> None:
    async with db.transaction() as conn:
        created_at = datetime(2026, 1, 1, tzinfo=UTC)
        await conn.execute(insert(users).values(id=user_id, name=f"user {user_id}", created_at=created_at))


async def test_a_group_is_made_changed_and_removed_each_with_its_record(db: Database) -> None:
    made = await create(db, " web ", description="the shop", labels={"team": "shop"})
    assert (made.name, made.description, made.labels, made.server_count) == ("web", "the shop", {"team": "shop"}, 0)
    async with db.transaction() as conn:
        changed = await groups.edit(conn, made.id, Edit(name="shop", description=""), actor=ADMIN)
    async with db.reading() as conn:
        assert await groups.get(conn, made.id, actor=ADMIN) == changed
    async with db.transaction() as conn:
        await groups.edit(conn, made.id, Edit(name="shop"), actor=ADMIN)
        await groups.remove(conn, made.id, actor=ADMIN)
    async with db.reading() as conn:
        assert await groups.listing(conn, actor=ADMIN) == []
    assert await actions(db) == ["group.create", "group.update", "group.delete"]


async def test_names_are_checked_and_taken_once(db: Database) -> None:
    first = await create(db, "web")
    other = await create(db, "db")
    with pytest.raises(Conflict):
        await create(db, "web")
    with pytest.raises(Conflict):
        async with db.transaction() as conn:
            await groups.edit(conn, other.id, Edit(name="web"), actor=ADMIN)
    with pytest.raises(Invalid) as refused:
        await create(db, "a\nb", description="x" * 2_000, labels={"": ""})
    assert [mistake.field for mistake in refused.value.errors] == ["name", "description", "labels"]
    async with db.reading() as conn:
        assert [group.id for group in await groups.listing(conn, actor=ADMIN)] == [other.id, first.id]


async def test_the_members_are_exactly_those_given(db: Database) -> None:
    group = await create(db, "web")
    a, b, c = [await add(db, name) for name in "abc"]
    assert await set_members(db, group, [b.id, a.id, b.id]) == [a.id, b.id]
    assert await set_members(db, group, [c.id, b.id]) == [b.id, c.id]
    assert await set_members(db, group, [b.id, c.id]) == [b.id, c.id]
    assert (await actions(db)).count("group.members") == 2, "the same list again changes nothing"
    assert (await records(db))[-1]["meta"] == {"added": ["c"], "removed": ["a"], "members": 2}
    with pytest.raises(Invalid) as refused:
        await set_members(db, group, ["x", a.id, "y"])
    assert len(refused.value.errors) == 2
    async with db.reading() as conn:
        assert await groups.members(conn, group.id, actor=VIEWER) == [b.id, c.id]
        assert (await groups.get(conn, group.id, actor=VIEWER)).server_count == 2


async def test_removing_a_group_or_a_server_leaves_the_other(db: Database) -> None:
    server = await add(db, "web1")
    group = await add_group(db, "web", [server])
    async with db.transaction() as conn:
        await groups.remove(conn, group.id, actor=ADMIN)
    async with db.reading() as conn:
        assert (await servers.get(conn, server.id, actor=ADMIN)).groups == ()


async def test_the_grants_are_exactly_those_given(db: Database) -> None:
    group = await create(db, "web")
    await add_user(db)
    await add_user(db, NOBODY.id or "")
    both = [Grant(NOBODY.id or "", Role.VIEWER), Grant(PERSON, Role.OPERATOR)]
    assert await set_grants(db, group, *reversed(both)) == both
    assert await set_grants(db, group, *both) == both
    assert await set_grants(db, group, Grant(PERSON, Role.ADMIN)) == [Grant(PERSON, Role.ADMIN)]
    assert (await actions(db)).count("group.grant") == 2
    (change,) = (await records(db))[-1]["change"]["paths"]
    assert change["new"] == {PERSON: "admin"}
    for wrong in ([Grant("nobody", Role.VIEWER)], [Grant(PERSON, Role.VIEWER), Grant(PERSON, Role.ADMIN)]):
        with pytest.raises(Invalid):
            await set_grants(db, group, *wrong)


async def test_a_group_is_changed_by_a_global_administrator_only(db: Database) -> None:
    """Whoever administers a group administers its servers; who belongs to it is decided above."""
    group = await create(db, "web")
    server = await add(db, "web1")
    for actor in (VIEWER, member(group, Role.ADMIN)):
        with pytest.raises(Denied):
            await create(db, "other", actor=actor)
        with pytest.raises(Denied):
            await set_members(db, group, [server.id], actor=actor)
        with pytest.raises(Denied):
            await set_grants(db, group, Grant(PERSON, Role.ADMIN), actor=actor)
        with pytest.raises(Denied):
            async with db.transaction() as conn:
                await groups.edit(conn, group.id, Edit(name="x"), actor=actor)
        with pytest.raises(Denied):
            async with db.transaction() as conn:
                await groups.remove(conn, group.id, actor=actor)
    assert await actions(db) == ["group.create", "server.create"]


async def test_two_teams_see_their_own_groups(db: Database) -> None:
    shared = await add(db, "shared")
    own = await add_group(db, "own", [shared])
    foreign = await add_group(db, "foreign", [shared, await add(db, "theirs")])
    actor = member(own, Role.VIEWER)
    async with db.reading() as conn:
        assert [group.name for group in await groups.listing(conn, actor=actor)] == ["own"]
        assert await groups.members(conn, own.id, actor=actor) == [shared.id]
        for question in (groups.get, groups.members, groups.granted):
            with pytest.raises(NotFound):
                await question(conn, foreign.id, actor=actor)
        assert await groups.listing(conn, actor=NOBODY) == []
        with pytest.raises(Denied):
            await groups.granted(conn, own.id, actor=actor)
