"""Accounts."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text

from server_monitor.auth import credentials, sessions, users
from server_monitor.auth.actor import Actor, ActorKind, Role, Scope
from server_monitor.auth.login import Logins, Source
from server_monitor.auth.users import Edit
from server_monitor.db import tables
from server_monitor.errors import AuditUnavailable, Conflict, Denied, Failure, Invalid, NotFound
from tests.auth.conftest import NOON, PASSWORD, ROOT
from tests.auth.test_login import records

HOME = Source("192.0.2.10", "Firefox")
NEW_PASSWORD = "walnut orbit cactus thirty"


def person(user: users.User) -> Actor:
    return Actor(ActorKind.USER, user.id, user.name, user.role)


async def names(db) -> list[str]:
    async with db.reading() as conn:
        return [user.name for user in await users.listing(conn, actor=ROOT)]


async def test_a_new_user_is_listed_and_recorded(db):
    user = await users.create(db, "ada", PASSWORD, Role.OPERATOR, actor=ROOT)

    assert await names(db) == ["ada"]
    (record,) = await records(db, "user.create")
    assert record["target"] == {"id": user.id, "name": "ada", "type": "user"}
    assert record["actor"]["type"] == "os_user"
    assert record["change"]["paths"] == [{"p": "role", "old": None, "new": "operator"}]


@pytest.mark.parametrize(
    "name",
    ["O'Brien", 'Robert "); DROP TABLE users;--', "李小龍", "שרה", "محمد", "zoë", "a", "x" * 64, "<b>bold</b>", "😀"],
)
async def test_people_may_be_called_what_they_are_called(db, make_user, logins, name):
    await make_user(name)

    assert await names(db) == [name]
    assert (await logins.login(name, PASSWORD, HOME, NOON)).started.actor.name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "   ",
        " ada",
        "ada ",
        "ada\nbob",
        "ada\r",
        "ada\x00",
        "ada\x1b[31m",
        "ada\u202egnp.exe",  # right-to-left override
        "ada\u200b",  # zero-width space
        "ada\u2066",
        "ada\u2028",
        "ada\ud800",
        "x" * 65,
        "x" * 10_240,
    ],
)
def test_names_that_would_deceive_a_reader_are_refused(name):
    (problem,) = users.name_problems(name)

    assert problem.field == "name"
    assert len(problem.message) < 200


async def test_all_mistakes_are_told_at_once_and_nothing_is_made(db):
    with pytest.raises(Invalid) as refused:
        await users.create(db, "ada\n", "short", Role.VIEWER, actor=ROOT)

    assert [error.field for error in refused.value.errors] == ["name", "password"]
    assert await names(db) == []


@pytest.mark.parametrize(
    ("first", "second"), [("ada", "ADA"), ("zoë", "ZOË"), ("straße", "STRASSE"), ("ada", "ａｄａ")]
)
async def test_two_users_never_differ_in_capitals_only(db, make_user, first, second):
    await make_user(first)

    with pytest.raises(Conflict):
        await make_user(second)

    assert await names(db) == [first]


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.AUDITOR, Role.VIEWER, None])
async def test_only_an_administrator_changes_accounts(db, make_user, role):
    ada = await make_user("ada", Role.ADMIN)
    actor = person(await make_user("eve", role))

    with pytest.raises(Denied):
        await users.create(db, "new", PASSWORD, Role.VIEWER, actor=actor)
    with pytest.raises(Denied):
        await users.edit(db, ada.id, Edit(disabled=True), actor=actor)
    with pytest.raises(Denied):
        await users.edit(db, str(actor.id), Edit(role=Role.ADMIN), actor=actor)
    with pytest.raises(Denied):
        await users.edit(db, str(actor.id), Edit(password=NEW_PASSWORD), actor=actor)
    with pytest.raises(Denied):
        async with db.transaction() as conn:
            await users.remove(conn, ada.id, actor=actor)
    assert await names(db) == ["ada", "eve"]


async def test_a_role_in_a_group_does_not_reach_accounts(db, make_user):
    eve = await make_user("eve", None)
    actor = Actor(ActorKind.USER, eve.id, "eve", None, {"some-group": Role.ADMIN})

    with pytest.raises(Denied):
        await users.edit(db, eve.id, Edit(role=Role.ADMIN), actor=actor)


async def test_the_last_administrator_stays(db, make_user):
    ada = await make_user("ada", Role.ADMIN)
    bob = await make_user("bob", Role.ADMIN)
    await users.edit(db, bob.id, Edit(disabled=True), actor=ROOT)

    for change in (Edit(role=Role.VIEWER), Edit(role=None), Edit(disabled=True)):
        with pytest.raises(Conflict, match="last administrator"):
            await users.edit(db, ada.id, change, actor=ROOT)
    with pytest.raises(Conflict, match="last administrator"):
        async with db.transaction() as conn:
            await users.remove(conn, ada.id, actor=ROOT)


async def test_nobody_takes_their_own_account_away_or_changes_their_own_role(db, make_user):
    await make_user("ada", Role.ADMIN)
    bob = await make_user("bob", Role.ADMIN)

    for change in (Edit(role=Role.VIEWER), Edit(disabled=True)):
        with pytest.raises(Conflict, match="another administrator can"):
            await users.edit(db, bob.id, change, actor=person(bob))
    with pytest.raises(Conflict, match="another administrator can"):
        async with db.transaction() as conn:
            await users.remove(conn, bob.id, actor=person(bob))


async def test_two_administrators_cannot_demote_each_other_at_the_same_moment(db, make_user):
    ada, bob = await make_user("ada", Role.ADMIN), await make_user("bob", Role.ADMIN)

    outcomes = await asyncio.gather(
        users.edit(db, ada.id, Edit(role=Role.VIEWER), actor=person(bob)),
        users.edit(db, bob.id, Edit(role=Role.VIEWER), actor=person(ada)),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "User"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["disable", "enable", "remove", "admin", "viewer", "none", "add"]),
        st.sampled_from(["ada", "bob", "eve"]),
        st.sampled_from(["ada", "bob", "eve", "root"]),
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
async def test_no_sequence_of_changes_leaves_nobody_to_administrate(db, make_user, steps):
    if not await names(db):
        await make_user("ada", Role.ADMIN)

    for step in steps:
        await take(db, make_user, *step)

        assert await working_admins(db) >= 1


async def take(db, make_user, what: str, name: str, actor_name: str) -> None:
    """One change by somebody as they are now; refusals are as good as changes."""
    try:
        async with db.reading() as conn:
            actor = ROOT if actor_name == "root" else person(await users.find(conn, actor_name, actor=ROOT))
        if what == "add":
            users.require(actor, users.Permission.USER_WRITE)
            await make_user(name, Role.VIEWER)
            return
        async with db.reading() as conn:
            user = await users.find(conn, name, actor=ROOT)
        if what == "remove":
            async with db.transaction() as conn:
                await users.remove(conn, user.id, actor=actor)
            return
        roles = {"admin": Role.ADMIN, "viewer": Role.VIEWER, "none": None}
        change = Edit(role=roles[what]) if what in roles else Edit(disabled=what == "disable")
        await users.edit(db, user.id, change, actor=actor)
    except Failure:
        pass


async def working_admins(db) -> int:
    async with db.reading() as conn:
        everybody = await users.listing(conn, actor=ROOT)
    return sum(user.role is Role.ADMIN and not user.is_disabled for user in everybody)


async def session_and_token(db, logins: Logins, user: users.User) -> tuple[str, str]:
    cookie = (await logins.login(user.name, PASSWORD, HOME, NOON)).started.cookie
    async with db.transaction() as conn:
        token = await credentials.create(conn, user.id, "backup", [Scope.READ], actor=ROOT, now=NOON)
    return cookie, token.secret


async def who(db, cookie: str, token: str) -> tuple[bool, bool]:
    """Does the session still work, and the token?"""
    async with db.reading() as conn:
        return (
            await sessions.authenticate(conn, cookie, NOON) is not None,
            await credentials.authenticate_token(conn, token, NOON) is not None,
        )


async def test_disabling_ends_sessions_and_tokens_at_once_and_for_good(db, logins, make_user):
    ada = await make_user("ada")
    held = await session_and_token(db, logins, ada)
    assert await who(db, *held) == (True, True)

    await users.edit(db, ada.id, Edit(disabled=True), actor=ROOT)
    assert await who(db, *held) == (False, False)

    await users.edit(db, ada.id, Edit(disabled=False), actor=ROOT)
    assert await who(db, *held) == (False, False)
    assert [len(await records(db, action)) for action in ("user.disable", "user.enable")] == [1, 1]


async def test_deleting_ends_sessions_and_tokens_at_once(db, logins, make_user):
    ada = await make_user("ada")
    held = await session_and_token(db, logins, ada)

    async with db.transaction() as conn:
        await users.remove(conn, ada.id, actor=ROOT)

    assert await who(db, *held) == (False, False)
    (record,) = await records(db, "user.delete")
    assert record["target"]["name"] == "ada"


async def test_a_reset_password_ends_every_session(db, logins, make_user):
    ada = await make_user("ada")
    held = await session_and_token(db, logins, ada)

    await users.edit(db, ada.id, Edit(password=NEW_PASSWORD), actor=ROOT)

    assert await who(db, *held) == (False, True)
    (record,) = await records(db, "user.password")
    assert record["change"]["paths"] == [{"p": "password", "old": "[secret]", "new": "[secret]"}]
    assert await logins.login("ada", NEW_PASSWORD, HOME, NOON)


async def test_nobody_makes_an_account_their_own_without_its_password(db, make_user):
    """Neither at a browser that somebody left open, nor with a token that leaked."""
    ada, olga = await make_user("ada", Role.ADMIN), await make_user("olga")
    token = Actor(ActorKind.TOKEN, ada.id, "ada", Role.ADMIN, scopes=frozenset({Scope.ADMIN}), token_id="t")

    with pytest.raises(Conflict, match="with the old one"):
        await users.edit(db, ada.id, Edit(password=NEW_PASSWORD), actor=person(ada))
    for user in (ada, olga):
        with pytest.raises(Denied, match="token"):
            await users.edit(db, user.id, Edit(password=NEW_PASSWORD), actor=token)
    assert await records(db, "user.password") == []

    await users.edit(db, olga.id, Edit(password=NEW_PASSWORD), actor=person(ada))
    assert len(await records(db, "user.password")) == 1


async def test_another_role_begins_with_another_session(db, logins, make_user):
    ada = await make_user("ada", Role.OPERATOR)
    held = await session_and_token(db, logins, ada)

    await users.edit(db, ada.id, Edit(role=Role.VIEWER), actor=ROOT)

    assert await who(db, *held) == (False, True)
    async with db.reading() as conn:
        actor = await credentials.authenticate_token(conn, held[1], NOON)
    assert actor.role is Role.VIEWER


async def test_a_change_that_changes_nothing_is_not_recorded(db, make_user):
    ada = await make_user("ada")

    await users.edit(db, ada.id, Edit(role=Role.VIEWER, disabled=False), actor=ROOT)

    assert await records(db, "user.update") == []
    assert await records(db, "user.enable") == []


async def test_an_edit_happens_whole_or_not_at_all(db, make_user):
    ada = await make_user("ada", Role.ADMIN)

    with pytest.raises(Conflict):
        await users.edit(db, ada.id, Edit(password=NEW_PASSWORD, disabled=True), actor=ROOT)

    assert await records(db, "user.password") == []


async def test_nothing_changes_without_its_record(db, make_user):
    ada = await make_user("ada", Role.VIEWER)
    async with db.transaction() as conn:
        await conn.execute(text("ALTER TABLE audit_head RENAME TO audit_head_gone"))

    with pytest.raises(AuditUnavailable):
        await users.edit(db, ada.id, Edit(disabled=True), actor=ROOT)

    async with db.reading() as conn:
        assert not (await users.get(conn, ada.id, actor=ROOT)).is_disabled


@pytest.mark.parametrize("user_id", ["nope", "", "\x00", "x" * 10_000, "00000000-0000-7000-8000-000000000000"])
async def test_an_id_that_nobody_has_is_not_found(db, user_id):
    with pytest.raises(NotFound):
        await users.edit(db, user_id, Edit(disabled=True), actor=ROOT)


async def test_people_see_themselves_and_not_each_other(db, make_user):
    ada, eve = await make_user("ada"), await make_user("eve")

    async with db.reading() as conn:
        assert (await users.get(conn, eve.id, actor=person(eve))).name == "eve"
        with pytest.raises(Denied):
            await users.get(conn, ada.id, actor=person(eve))
        with pytest.raises(Denied):
            await users.listing(conn, actor=person(eve))


async def test_roles_in_groups_come_with_the_actor(db, logins, make_user):
    ada = await make_user("ada", None)
    async with db.transaction() as conn:
        for number, role in enumerate([Role.OPERATOR, Role.VIEWER]):
            await conn.execute(
                tables.groups.insert().values(
                    id=f"g{number}", name=f"group {number}", description="", labels={}, created_at=NOON
                )
            )
            await conn.execute(tables.grants.insert().values(group_id=f"g{number}", user_id=ada.id, role=role))

    actor = (await logins.login("ada", PASSWORD, HOME, NOON)).started.actor

    assert actor.role is None
    assert actor.group_roles == {"g0": Role.OPERATOR, "g1": Role.VIEWER}


async def test_no_password_can_be_read_out_of_the_database(db, make_user):
    await make_user("ada")

    async with db.reading() as conn:
        row = (await conn.execute(select(tables.users))).mappings().one()

    assert PASSWORD not in str(dict(row))
    assert row["password_hash"].startswith("$argon2id$")
