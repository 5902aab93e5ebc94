"""API tokens."""

import re
from datetime import timedelta

import pytest
from sqlalchemy import select

from server_monitor.auth import credentials, identity, users
from server_monitor.auth.actor import Actor, ActorKind, Permission, Role, Scope, allows
from server_monitor.auth.users import Edit
from server_monitor.db import tables
from server_monitor.errors import Denied, Invalid, NotFound
from tests.auth.conftest import NOON, ROOT
from tests.auth.test_login import records

DAY = timedelta(days=1)


async def create(db, user, scopes=(Scope.READ,), days=90, *, actor=ROOT, name="backup"):
    async with db.transaction() as conn:
        return await credentials.create(conn, user.id, name, list(scopes), days, actor=actor, now=NOON)


async def test_a_token_stands_for_its_user_within_its_scopes(db, make_user):
    ada = await make_user("ada", Role.ADMIN)
    new = await create(db, ada, [Scope.READ, Scope.METRICS])

    actor = await identity.by_token(db, new.secret, NOON)

    assert (actor.kind, actor.id, actor.role, actor.token_id) == (ActorKind.TOKEN, ada.id, Role.ADMIN, new.token.id)
    assert allows(actor, Permission.SERVER_READ)
    assert allows(actor, Permission.METRICS_READ)
    assert not allows(actor, Permission.SERVER_WRITE)


async def test_a_token_never_exceeds_the_role_of_its_user(db, make_user):
    ada = await make_user("ada", Role.ADMIN)
    await make_user("bob", Role.ADMIN)
    new = await create(db, ada, list(Scope))

    await users.edit(db, ada.id, Edit(role=Role.VIEWER), actor=ROOT)

    actor = await identity.by_token(db, new.secret, NOON)
    assert {p for p in Permission if allows(actor, p)} == {Permission.SERVER_READ, Permission.GROUP_READ}


def test_a_token_can_be_recognised_and_mistyped_ones_refused_without_the_database():
    token = credentials.new_secret()

    assert re.fullmatch(r"smt_[0-9A-Za-z]{49}", token)
    assert credentials.is_well_formed(token)
    for position in range(len(token)):
        other = "0" if token[position] != "0" else "1"
        assert not credentials.is_well_formed(token[:position] + other + token[position + 1 :])


@pytest.mark.parametrize("text", ["", "smt_", "Bearer", "smt_" + "0" * 49, "é" * 53, "smt_" + "\ud800" * 49])
async def test_other_text_is_no_token(sqlite_db, text):
    assert await identity.by_token(sqlite_db, text, NOON) is None


async def test_a_well_formed_token_that_was_never_made_is_refused(db, make_user):
    await create(db, await make_user("ada"))

    assert await identity.by_token(db, credentials.new_secret(), NOON) is None


async def test_a_copy_of_the_database_does_not_hold_the_token(db, make_user):
    new = await create(db, await make_user("ada"))

    async with db.reading() as conn:
        row = (await conn.execute(select(tables.api_tokens))).mappings().one()

    assert new.secret not in str(dict(row))
    assert new.secret not in repr(new)
    assert await identity.by_token(db, bytes(row["secret_hash"]).hex(), NOON) is None


async def test_a_token_expires(db, make_user):
    new = await create(db, await make_user("ada"), days=30)

    assert await identity.by_token(db, new.secret, NOON + 30 * DAY - timedelta(seconds=1))
    assert await identity.by_token(db, new.secret, NOON + 30 * DAY) is None


@pytest.mark.parametrize(
    ("name", "scopes", "days", "fields"),
    [
        ("backup", [], 90, ["scopes"]),
        ("backup", ["root"], 90, ["scopes"]),
        ("backup", ["read"], 0, ["expires_in_days"]),
        ("backup", ["read"], 366, ["expires_in_days"]),
        ("", ["read"], 90, ["name"]),
        ("x" * 129, ["read"], 90, ["name"]),
        ("a\u202eb", ["root", "king"], -1, ["name", "scopes", "scopes", "expires_in_days"]),
    ],
)
async def test_mistakes_in_a_token_are_all_told(db, make_user, *, name, scopes, days, fields):
    with pytest.raises(Invalid) as refused:
        await create(db, await make_user("ada"), scopes, days, name=name)

    assert [error.field for error in refused.value.errors] == fields


async def test_a_revoked_token_is_dead_at_once(db, make_user):
    new = await create(db, await make_user("ada"))

    for _ in range(2):
        async with db.transaction() as conn:
            await credentials.revoke(conn, new.token.id, actor=ROOT, now=NOON)

    assert await identity.by_token(db, new.secret, NOON) is None
    assert len(await records(db, "token.revoke")) == 1


async def test_a_token_makes_no_token_whatever_its_scopes(db, make_user):
    ada = await make_user("ada", Role.ADMIN)
    actor = await identity.by_token(db, (await create(db, ada, list(Scope))).secret, NOON)

    with pytest.raises(Denied):
        await create(db, ada, actor=actor)
    async with db.reading() as conn:
        with pytest.raises(Denied):
            await credentials.own(conn, actor=actor)


async def test_nobody_makes_a_token_in_the_name_of_another(db, make_user):
    ada = await make_user("ada", Role.ADMIN)
    bob = await make_user("bob", Role.ADMIN)

    with pytest.raises(Denied):
        await create(db, ada, actor=Actor(ActorKind.USER, bob.id, "bob", Role.ADMIN, session_id="s"))


async def test_people_revoke_their_own_tokens_and_administrators_anybodys(db, make_user):
    ada, eve = await make_user("ada", Role.ADMIN), await make_user("eve", Role.OPERATOR)
    first, second = await create(db, ada), await create(db, eve)
    as_ada = Actor(ActorKind.USER, ada.id, "ada", Role.ADMIN)
    as_eve = Actor(ActorKind.USER, eve.id, "eve", Role.OPERATOR)

    with pytest.raises(NotFound):
        async with db.transaction() as conn:
            await credentials.revoke(conn, first.token.id, actor=as_eve)
    async with db.transaction() as conn:
        await credentials.revoke(conn, second.token.id, actor=as_ada)

    async with db.reading() as conn:
        (mine,) = await credentials.own(conn, actor=as_eve)
        assert not mine.works(NOON)
        assert len(await credentials.everybodys(conn, actor=as_ada)) == 2
        with pytest.raises(Denied):
            await credentials.everybodys(conn, actor=as_eve)


async def test_a_disabled_or_unknown_user_gets_no_token(db, make_user):
    ada = await make_user("ada")
    await users.edit(db, ada.id, Edit(disabled=True), actor=ROOT)

    with pytest.raises(NotFound):
        await create(db, ada)


async def test_the_last_use_is_written_down_at_most_once_a_minute(db, make_user):
    new = await create(db, await make_user("ada"))

    async def last_used():
        async with db.reading() as conn:
            return (await conn.execute(select(tables.api_tokens.c.last_used_at))).scalar_one()

    for seconds in (0, 59):
        await identity.by_token(db, new.secret, NOON + timedelta(seconds=seconds))
        assert await last_used() == NOON
    await identity.by_token(db, new.secret, NOON + timedelta(seconds=60))
    assert await last_used() == NOON + timedelta(seconds=60)


async def test_making_a_token_is_recorded_without_its_secret(db, make_user):
    new = await create(db, await make_user("ada"), [Scope.READ])

    (record,) = await records(db, "token.create")
    assert record["target"] == {"type": "token", "id": new.token.id, "name": "backup"}
    assert record["meta"] == {"user": "ada", "scopes": ["read"], "expires_in_days": 90}
    assert new.secret not in str(record)
