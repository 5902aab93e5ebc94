"""The first administrator."""

import asyncio
from datetime import timedelta

import pytest

from server_monitor.auth import sessions, setup
from server_monitor.auth.actor import Role
from server_monitor.auth.login import Source
from server_monitor.errors import Denied, Gone, Invalid
from tests.auth.conftest import NOON, PASSWORD, SECRET
from tests.auth.test_login import records

HOME = Source("127.0.0.1", "Firefox")
HOUR = timedelta(hours=1)


async def issue(db, now=NOON):
    async with db.transaction() as conn:
        return await setup.issue(conn, now)


async def initialize(db, token, name="ada", password=PASSWORD, now=NOON):
    return await setup.initialize(db, SECRET, token, name, password, source=HOME, now=now)


async def test_the_token_makes_the_first_administrator_and_logs_them_in(db):
    user, logged_in = await initialize(db, await issue(db))

    assert (user.name, user.role) == ("ada", Role.ADMIN)
    async with db.reading() as conn:
        assert not await setup.needed(conn)
        assert (await sessions.authenticate(conn, logged_in.started.cookie, NOON)).role is Role.ADMIN
    for action in ("settings.setup", "user.create", "auth.login"):
        assert len(await records(db, action)) == 1


async def test_the_token_works_once(db):
    token = await issue(db)
    await initialize(db, token)

    with pytest.raises(Gone):
        await initialize(db, token, "eve")


async def test_two_at_the_same_moment_make_one_administrator(db):
    token = await issue(db)

    outcomes = await asyncio.gather(initialize(db, token, "ada"), initialize(db, token, "eve"), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Gone", "tuple"]


async def test_the_token_works_for_an_hour(db):
    token = await issue(db)

    with pytest.raises(Gone, match="expired"):
        await initialize(db, token, now=NOON + HOUR)
    await initialize(db, token, now=NOON + HOUR - timedelta(seconds=1))


async def test_each_start_makes_a_token_and_ends_the_one_before(db):
    first = await issue(db)
    second = await issue(db, NOON + timedelta(minutes=1))

    with pytest.raises(Gone):
        await initialize(db, first, now=NOON + timedelta(minutes=2))
    await initialize(db, second, now=NOON + timedelta(minutes=2))


@pytest.mark.parametrize("token", ["", "x" * 43, "\x00", "é", "\ud800", "x" * 10_000])
async def test_another_text_is_no_token(sqlite_db, token):
    await issue(sqlite_db)

    with pytest.raises(Denied):
        await initialize(sqlite_db, token)


async def test_setup_is_over_for_good(db, make_user):
    await make_user("ada", Role.ADMIN)

    assert await issue(db) is None
    with pytest.raises(Gone, match="has been set up already"):
        await initialize(db, "x" * 43)


async def test_a_mistake_leaves_the_token_usable(db):
    token = await issue(db)

    with pytest.raises(Invalid) as refused:
        await initialize(db, token, "a\nb", "too short")
    assert [error.field for error in refused.value.errors] == ["username", "password"]

    await initialize(db, token)


async def test_an_administrator_made_on_the_command_line_ends_setup(db, make_user):
    token = await issue(db)
    await make_user("ada", Role.ADMIN)

    with pytest.raises(Gone):
        await initialize(db, token, "eve")
