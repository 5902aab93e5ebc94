"""Logging in, and being slowed down."""


import orjson
import pytest
from sqlalchemy import select

from server_monitor.auth import sessions
from server_monitor.auth.actor import Role
from server_monitor.auth.login import LoginFailed, Logins, Source
from server_monitor.db.engine import Database
from server_monitor.db.tables import audit_records
from server_monitor.telemetry import metrics
from tests.auth.conftest import NOON, PASSWORD, MakeUser

HOME = Source("192.0.2.10", "Firefox")
STRANGER = Source("203.0.113.66", "curl")


async def records(db: Database, action: str) -> list[dict]:
    async with db.reading() as conn:
        rows = await conn.execute(
            select(audit_records.c.body).where(audit_records.c.action == action).order_by(audit_records.c.seq)
        )
        return [orjson.loads(body) for body in rows.scalars()]


async def test_the_right_password_begins_a_session_and_is_recorded(db, logins, make_user: MakeUser):
    await make_user("ada", Role.ADMIN)

    logged_in = await logins.login("ADA", PASSWORD, HOME, NOON)

    async with db.reading() as conn:
        actor = await sessions.authenticate(conn, logged_in.started.cookie, NOON)
    assert actor is not None
    assert (actor.name, actor.role) == ("ada", Role.ADMIN)
    (record,) = await records(db, "auth.login")
    assert record["actor"]["name"] == "ada"
    assert record["actor"]["session"] == actor.session_id


@pytest.mark.parametrize("name", ["ada", "nobody", "x" * 10_000, "a\x00b", "\ud800", ""])
async def test_a_wrong_name_and_a_wrong_password_look_the_same(db, logins: Logins, make_user: MakeUser, name: str):
    await make_user("ada")
    hashes_before = metrics.password_hashes._value.get()

    with pytest.raises(LoginFailed) as refused:
        await logins.login(name, "wrong wrong wrong", HOME, NOON)

    assert str(refused.value) == "The name or the password is wrong."
    assert metrics.password_hashes._value.get() == hashes_before + 1
