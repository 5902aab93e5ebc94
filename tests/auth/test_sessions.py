"""Sessions of people, and sockets that outlive requests."""

import base64
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import select

from server_monitor.auth import credentials, identity, sessions, users
from server_monitor.auth.actor import SYSTEM, Role, Scope
from server_monitor.auth.login import Source
from server_monitor.auth.sessions import Started
from server_monitor.auth.users import Edit
from server_monitor.db import tables
from server_monitor.errors import Denied, NotFound
from tests.auth.conftest import NOON, ROOT, SECRET
from tests.auth.test_login import records

MINUTE = timedelta(minutes=1)
HOME = Source("192.0.2.10", "Firefox")


async def start(db, user: users.User, at=NOON, ip="192.0.2.10") -> Started:
    async with db.transaction() as conn:
        return await sessions.start(conn, user.id, ip=ip, user_agent="Firefox", now=at)


async def works(db, started: Started, at) -> bool:
    async with db.reading() as conn:
        return await sessions.authenticate(conn, started.cookie, at) is not None


async def test_a_session_ends_half_an_hour_after_the_last_visit(db, make_user):
    started = await start(db, await make_user("ada"))

    assert await identity.by_cookie(db, started.cookie, NOON + 29 * MINUTE)
    assert await works(db, started, NOON + 58 * MINUTE)
    assert not await works(db, started, NOON + 59 * MINUTE)


@pytest.mark.parametrize(("role", "hours"), [(Role.VIEWER, 12), (Role.OPERATOR, 12), (None, 12), (Role.ADMIN, 8)])
async def test_a_session_ends_however_busy_it_is(db, make_user, role, hours):
    started = await start(db, await make_user("ada", role))
    end = NOON + timedelta(hours=hours)
    at = NOON
    while at < end:
        assert await identity.by_cookie(db, started.cookie, at)
        at += 20 * MINUTE

    assert await works(db, started, end - timedelta(seconds=1))
    assert not await works(db, started, end)


async def test_a_visit_is_written_down_at_most_once_a_minute(db, make_user):
    started = await start(db, await make_user("ada"))

    async def last_seen():
        async with db.reading() as conn:
            return (await conn.execute(select(tables.sessions.c.last_seen_at))).scalar_one()

    await identity.by_cookie(db, started.cookie, NOON + timedelta(seconds=59))
    assert await last_seen() == NOON
    await identity.by_cookie(db, started.cookie, NOON + timedelta(seconds=60))
    assert await last_seen() == NOON + MINUTE


async def test_a_copy_of_the_database_does_not_let_anybody_in(db, make_user):
    started = await start(db, await make_user("ada"))
    async with db.reading() as conn:
        row = (await conn.execute(select(tables.sessions))).mappings().one()
        stored = bytes(row["secret_hash"])
        tries = [
            stored.hex(),
            base64.urlsafe_b64encode(stored).decode().rstrip("="),
            base64.b64encode(stored).decode(),
            row["id"],
        ]

        assert started.cookie not in str(dict(row))
        assert [await sessions.authenticate(conn, text, NOON) for text in tries] == [None] * 4


@given(text=st.text(max_size=60))
def test_a_cookie_holds_256_random_bits_of_plain_text(text):
    assert sessions._is_well_formed(text) == (len(text) == 43 and text.isascii())


async def test_no_two_sessions_share_a_secret(db, make_user):
    ada = await make_user("ada")

    cookies = {(await start(db, ada)).cookie for _ in range(20)}

    assert len(cookies) == 20
    assert all(len(base64.urlsafe_b64decode(cookie + "=")) == 32 for cookie in cookies)


async def test_people_see_and_end_their_own_sessions_and_no_others(db, make_user):
    ada, eve = await make_user("ada"), await make_user("eve", Role.ADMIN)
    here, there, hers = await start(db, ada), await start(db, ada, ip="2001:db8::1"), await start(db, eve)

    async with db.reading() as conn:
        mine = await sessions.own(conn, actor=here.actor, now=NOON)
    assert {session.id for session in mine} == {here.actor.session_id, there.actor.session_id}

    with pytest.raises(NotFound):
        async with db.transaction() as conn:
            await sessions.end(conn, hers.actor.session_id, actor=here.actor)
    async with db.transaction() as conn:
        await sessions.end(conn, there.actor.session_id, actor=here.actor)
    assert [await works(db, started, NOON) for started in (here, there, hers)] == [True, False, True]
    assert len(await records(db, "session.end")) == 1


async def test_logging_out_ends_the_session_once(db, make_user):
    started = await start(db, await make_user("ada"))

    for _ in range(2):
        async with db.transaction() as conn:
            await sessions.log_out(conn, actor=started.actor)

    assert not await works(db, started, NOON)
    assert len(await records(db, "auth.logout")) == 1


async def test_a_token_sees_no_sessions(db, make_user):
    ada = await make_user("ada", Role.ADMIN)
    async with db.transaction() as conn:
        token = await credentials.create(conn, ada.id, "all", list(Scope), actor=ROOT, now=NOON)
    actor = await identity.by_token(db, token.secret, NOON)

    async with db.reading() as conn:
        with pytest.raises(Denied):
            await sessions.own(conn, actor=actor, now=NOON)


async def test_ended_sessions_are_cleared_away_by_the_next_login(db, make_user):
    ada = await make_user("ada")
    await start(db, ada)

    await start(db, ada, NOON + timedelta(hours=13))

    async with db.reading() as conn:
        assert len((await conn.execute(select(tables.sessions.c.id))).all()) == 1


async def still_valid(db, actor, at=NOON):
    async with db.reading() as conn:
        return await identity.actor_still_valid(conn, actor, at)


async def test_whoever_holds_a_socket_has_the_roles_of_this_moment(db, make_user):
    ada = await make_user("ada", Role.OPERATOR)
    actor = (await start(db, ada)).actor
    async with db.transaction() as conn:
        await conn.execute(tables.users.update().values(role=Role.VIEWER))

    assert (await still_valid(db, actor)).role is Role.VIEWER


@pytest.mark.parametrize("change", ["disable", "remove", "password", "role", "logout", "idle"])
async def test_whoever_lost_their_session_loses_their_socket(db, make_user, change):
    ada = await make_user("ada")
    actor = (await start(db, ada)).actor
    assert await still_valid(db, actor)
    at = NOON
    edits = {
        "disable": Edit(disabled=True),
        "password": Edit(password="walnut orbit cactus thirty"),
        "role": Edit(role=Role.OPERATOR),
    }

    if change in edits:
        await users.edit(db, ada.id, edits[change], actor=ROOT)
    elif change == "remove":
        async with db.transaction() as conn:
            await users.remove(conn, ada.id, actor=ROOT)
    elif change == "logout":
        async with db.transaction() as conn:
            await sessions.log_out(conn, actor=actor)
    else:
        at = NOON + 30 * MINUTE

    assert await still_valid(db, actor, at) is None


async def test_a_revoked_token_loses_its_socket(db, make_user):
    ada = await make_user("ada")
    async with db.transaction() as conn:
        token = await credentials.create(conn, ada.id, "live", [Scope.READ], actor=ROOT, now=NOON)
    actor = await identity.by_token(db, token.secret, NOON)
    assert (await still_valid(db, actor)).scopes == {Scope.READ}

    async with db.transaction() as conn:
        await credentials.revoke(conn, token.token.id, actor=ROOT, now=NOON)

    assert await still_valid(db, actor) is None


async def test_the_console_itself_is_always_valid(db):
    assert await still_valid(db, SYSTEM) is SYSTEM


def test_a_csrf_token_belongs_to_one_session_and_one_console():
    token = sessions.csrf_token(SECRET, "one")

    assert sessions.is_csrf_token(SECRET, "one", token)
    assert not sessions.is_csrf_token(SECRET, "two", token)
    assert not sessions.is_csrf_token(SecretStr("another secret"), "one", token)
    assert not sessions.is_csrf_token(SECRET, "one", None)
    assert not sessions.is_csrf_token(SECRET, "one", "")
    assert not sessions.is_csrf_token(SECRET, "one", "é" * 64)
