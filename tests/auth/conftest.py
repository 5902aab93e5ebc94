"""People who really exist in a database, without a tenth of a second of hashing for each."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from server_monitor.audit import log
from server_monitor.auth import passwords, users
from server_monitor.auth.actor import Actor, Role, os_user
from server_monitor.auth.login import Logins
from server_monitor.auth.passwords import PasswordHash
from server_monitor.auth.users import User
from server_monitor.db.engine import Database

PASSWORD = "violet harbour seven lanterns"
SECRET = SecretStr("a secret that signs CSRF tokens in tests")
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ROOT = os_user("root")

MakeUser = Callable[..., Awaitable[User]]


@pytest.fixture(scope="session")
def password_hash() -> PasswordHash:
    """The hash of PASSWORD, made once."""
    return PasswordHash(passwords._hash(PASSWORD))


@pytest.fixture
def make_user(db: Database, password_hash: PasswordHash) -> MakeUser:
    """Write an account whose password is PASSWORD."""

    async def make(name: str, role: Role | None = Role.VIEWER, *, actor: Actor = ROOT) -> User:
        async with db.transaction() as conn:
            user, event = await users.insert_user(conn, name, password_hash, role, actor=actor, now=NOON)
            await log.append(conn, event)
        return user

    return make


@pytest.fixture
def logins(db: Database) -> Logins:
    return Logins(db, SECRET)
