"""Who is logged in: sessions of people at browsers, by a cookie that is stored hashed.

A session ends 30 minutes after its last request, 12 hours (an administrator's: 8) after its login, at logout, and
whenever its user is disabled, deleted, given another role or another password. A login always begins a new one.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import ColumnElement, RowMapping, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Actor, ActorKind, Permission, Role, audited
from server_monitor.auth.credentials import digest
from server_monitor.auth.users import Holder, actor_columns, actor_source, read_actor, require
from server_monitor.db.ids import is_id, new_id
from server_monitor.db.tables import sessions, users
from server_monitor.errors import NotFound

IDLE = timedelta(minutes=30)
LONGEST = timedelta(hours=12)
LONGEST_FOR_ADMIN = timedelta(hours=8)
USER_AGENT_LIMIT = 256
ADDRESS_LIMIT = 45  # an IPv6 address may carry a long zone
_SECRET_LENGTH = 43  # 256 bits in URL-safe base64


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its user may see it."""

    id: str
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    ip: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class Started:
    """A session that has just begun: whose it is, and the cookie's value, which is never known again."""

    actor: Actor
    expires_at: datetime
    cookie: str = field(repr=False)


def csrf_token(secret: SecretStr, session_id: str) -> str:
    """What a page has to send along with every change: another site can use the cookie and cannot read this."""
    key = secret.get_secret_value().encode()
    return hmac.new(key, b"csrf\x00" + session_id.encode(), hashlib.sha256).hexdigest()


def is_csrf_token(secret: SecretStr, session_id: str, given: str | None) -> bool:
    return given is not None and hmac.compare_digest(csrf_token(secret, session_id).encode(), given.encode())


async def start(
    conn: AsyncConnection, user_id: str, *, ip: str | None, user_agent: str | None, now: datetime
) -> Started:
    """A new session. The caller has checked who it is, in this transaction, and appends `auth.login`."""
    rows = await conn.execute(select(*actor_columns).select_from(actor_source).where(users.c.id == user_id))
    session_id, cookie = new_id(), secrets.token_urlsafe(32)
    actor = read_actor(rows.mappings().all(), ActorKind.USER, session_id=session_id)
    expires_at = now + (LONGEST_FOR_ADMIN if actor.role is Role.ADMIN else LONGEST)
    await conn.execute(delete(sessions).where(sessions.c.expires_at <= now))
    await conn.execute(
        insert(sessions).values(
            id=session_id,
            secret_hash=digest(cookie),
            user_id=user_id,
            created_at=now,
            last_seen_at=now,
            expires_at=expires_at,
            ip=ip[:ADDRESS_LIMIT] if ip else None,
            user_agent=user_agent[:USER_AGENT_LIMIT] if user_agent else None,
        )
    )
    return Started(actor, expires_at, cookie)


async def drop(conn: AsyncConnection, cookie: str | None) -> str | None:
    """End the session that a new one replaces, and return its id. The login's record names it."""
    if cookie is None or not _is_well_formed(cookie):
        return None
    row = sessions.c.secret_hash == digest(cookie)
    session_id: str | None = (await conn.execute(select(sessions.c.id).where(row))).scalar_one_or_none()
    if session_id is not None:
        await conn.execute(delete(sessions).where(row))
    return session_id


async def find(conn: AsyncConnection, cookie: str, now: datetime) -> Holder | None:
    """Whoever this cookie stands for; None when its session has ended."""
    if not _is_well_formed(cookie):
        return None
    return await find_live(conn, sessions.c.secret_hash == digest(cookie), now)


async def find_live(conn: AsyncConnection, which: ColumnElement[bool], now: datetime) -> Holder | None:
    """Whoever holds the live session `which`, with their roles as they are now."""
    rows = await conn.execute(
        select(*actor_columns, sessions.c.id.label("session_id"), sessions.c.last_seen_at)
        .select_from(actor_source.join(sessions, sessions.c.user_id == users.c.id))
        .where(which, *_is_live(now), users.c.disabled_at.is_(None))
    )
    found = rows.mappings().all()
    if not found:
        return None
    return Holder(read_actor(found, ActorKind.USER, session_id=found[0]["session_id"]), found[0]["last_seen_at"])


async def authenticate(conn: AsyncConnection, cookie: str, now: datetime | None = None) -> Actor | None:
    """The actor whom this cookie stands for; None when its session has ended. Does not note the visit."""
    holder = await find(conn, cookie, now or datetime.now(UTC))
    return holder.actor if holder else None


async def note_visit(conn: AsyncConnection, session_id: str, now: datetime) -> None:
    await conn.execute(update(sessions).where(sessions.c.id == session_id).values(last_seen_at=now))


async def has_live_session(conn: AsyncConnection, user_id: str, ip: str | None, now: datetime) -> bool:
    """Whether the user is logged in from this address right now."""
    if ip is None:
        return False
    found = await conn.execute(
        select(sessions.c.id)
        .where(sessions.c.user_id == user_id, sessions.c.ip == ip[:ADDRESS_LIMIT], *_is_live(now))
        .limit(1)
    )
    return found.first() is not None


async def started_at(conn: AsyncConnection, session_id: str) -> datetime:
    """When the user of this session last proved who they are."""
    found = await conn.execute(select(sessions.c.created_at).where(sessions.c.id == session_id))
    at: datetime | None = found.scalar_one_or_none()
    if at is None:
        raise NotFound("session", session_id)
    return at


async def own(conn: AsyncConnection, *, actor: Actor, now: datetime | None = None) -> list[Session]:
    """The live sessions of the actor, newest first."""
    require(actor, Permission.SESSION_OWN)
    rows = await conn.execute(
        select(sessions)
        .where(sessions.c.user_id == actor.id, *_is_live(now or datetime.now(UTC)))
        .order_by(sessions.c.created_at.desc())
    )
    return [_session(row) for row in rows.mappings()]


async def end(conn: AsyncConnection, session_id: str, *, actor: Actor) -> None:
    """End one of one's own sessions, on whatever machine it is. Appends `session.end`. Raises NotFound."""
    require(actor, Permission.SESSION_OWN)
    if not is_id(session_id):
        raise NotFound("session", session_id)
    found = await conn.execute(delete(sessions).where(sessions.c.id == session_id, sessions.c.user_id == actor.id))
    if found.rowcount == 0:
        raise NotFound("session", session_id)
    await log.append(conn, Event("session.end", audited(actor), AuditTarget("session", session_id)))


async def log_out(conn: AsyncConnection, *, actor: Actor) -> None:
    """End the session that the actor is using. Appends `auth.logout`."""
    found = await conn.execute(delete(sessions).where(sessions.c.id == actor.session_id))
    if found.rowcount:
        await log.append(conn, Event("auth.logout", audited(actor), AuditTarget("session", str(actor.session_id))))


def _is_well_formed(cookie: str) -> bool:
    return len(cookie) == _SECRET_LENGTH and cookie.isascii()


def _is_live(now: datetime) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return (sessions.c.expires_at > now, sessions.c.last_seen_at > now - IDLE)


def _session(row: RowMapping) -> Session:
    return Session(
        id=row["id"],
        created_at=row["created_at"],
        last_seen_at=row["last_seen_at"],
        expires_at=row["expires_at"],
        ip=row["ip"],
        user_agent=row["user_agent"],
    )
