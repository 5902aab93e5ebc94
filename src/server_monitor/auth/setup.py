"""The first administrator, made with a one-time token that is printed on the console's own terminal.

There is no default account. While there is no administrator, each start makes a token that works once, for an hour;
earlier ones end. Once there is one, setup is over for good.
"""

import secrets
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth import passwords, sessions, throttle, users
from server_monitor.auth.actor import ANONYMOUS, Role, audited
from server_monitor.auth.credentials import digest
from server_monitor.auth.login import LoggedIn, Source, login_event
from server_monitor.auth.users import User
from server_monitor.db.engine import Database
from server_monitor.db.ids import new_id
from server_monitor.db.tables import setup_tokens
from server_monitor.errors import Denied, Gone

LIFE = timedelta(hours=1)


async def needed(conn: AsyncConnection) -> bool:
    """Whether nobody administrates this console yet."""
    return not await users.has_admin(conn)


async def issue(conn: AsyncConnection, now: datetime | None = None) -> str | None:
    """A new token for making the first administrator, instead of all earlier ones; None when there is one already."""
    now = now or datetime.now(UTC)
    await users.lock(conn)
    if not await needed(conn):
        return None
    await conn.execute(
        update(setup_tokens)
        .where(setup_tokens.c.used_at.is_(None), setup_tokens.c.expires_at > now)
        .values(expires_at=now)
    )
    token = secrets.token_urlsafe(32)
    await conn.execute(
        insert(setup_tokens).values(id=new_id(), secret_hash=digest(token), created_at=now, expires_at=now + LIFE)
    )
    return token


async def initialize(
    db: Database,
    secret: SecretStr,
    token: str,
    name: str,
    password: str,
    *,
    source: Source,
    now: datetime | None = None,
) -> tuple[User, LoggedIn]:
    """Make the first administrator and log them in.

    Appends `settings.setup`, `user.create` and `auth.login`. A mistake in name or password leaves the token usable.
    Raises Denied for a token we never made, Gone for one that was used or expired or when setup is over, Invalid.
    """
    now = now or datetime.now(UTC)
    async with db.reading() as conn:
        await _usable_token(conn, token, now)
    users.check_new(name, password, Role.ADMIN, name_field="username")
    password_hash = await passwords.hash_password(password)
    async with db.transaction() as conn:
        await users.lock(conn)
        # Asked again: somebody else may have been first while the password was being hashed.
        token_id = await _usable_token(conn, token, now)
        await conn.execute(update(setup_tokens).where(setup_tokens.c.id == token_id).values(used_at=now))
        user, created = await users.insert_user(conn, name, password_hash, Role.ADMIN, actor=ANONYMOUS, now=now)
        started = await sessions.start(conn, user.id, ip=source.ip, user_agent=source.user_agent, now=now)
        target = AuditTarget("user", user.id, user.name)
        await log.append(
            conn,
            Event("settings.setup", audited(ANONYMOUS), target),
            created,
            login_event(started.actor),
        )
    browser = throttle.browser_cookie(secret, user.id, secrets.token_hex(8), now)
    return user, LoggedIn(started, browser)


async def _usable_token(conn: AsyncConnection, token: str, now: datetime) -> str:
    if not await needed(conn):
        raise Gone("This console has been set up already; log in instead.")
    row = (await conn.execute(select(setup_tokens).where(setup_tokens.c.secret_hash == digest(token)))).one_or_none()
    if row is None:
        raise Denied("This is not the set-up token; use the link that the console printed in its terminal.")
    if row.used_at is not None or row.expires_at <= now:
        raise Gone("This set-up link has expired; restart the console and use the one it prints then.")
    return str(row.id)
