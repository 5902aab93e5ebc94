"""Who sends a request, and whether whoever opened a socket may still use it."""

from datetime import UTC, datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.auth import credentials, sessions
from server_monitor.auth.actor import Actor, ActorKind
from server_monitor.auth.users import Holder
from server_monitor.db.engine import Database
from server_monitor.db.tables import api_tokens
from server_monitor.db.tables import sessions as session_rows
from server_monitor.errors import Unavailable
from server_monitor.telemetry.logs import logger

log = logger(__name__)

NOTE_INTERVAL = timedelta(minutes=1)  # that a session or token is in use is not written down more often


async def by_cookie(db: Database, cookie: str, now: datetime | None = None) -> Actor | None:
    """Whoever this session cookie stands for, noting the visit; None when the session has ended."""
    now = now or datetime.now(UTC)
    async with db.reading() as conn:
        holder = await sessions.find(conn, cookie, now)
    return await _noted(db, holder, now)


async def by_token(db: Database, token: str, now: datetime | None = None) -> Actor | None:
    """Whoever this API token stands for, noting its use; None when it does not work."""
    now = now or datetime.now(UTC)
    async with db.reading() as conn:
        holder = await credentials.find(conn, token, now)
    return await _noted(db, holder, now)


async def actor_still_valid(conn: AsyncConnection, actor: Actor, now: datetime | None = None) -> Actor | None:
    """The actor with the roles they hold now; None when their session or token has ended since.

    For whoever keeps a socket open. It does not count as a visit: a screen nobody sits at goes idle like any other.
    """
    now = now or datetime.now(UTC)
    if actor.kind is ActorKind.USER:
        holder = await sessions.find_live(conn, session_rows.c.id == actor.session_id, now)
    elif actor.kind is ActorKind.TOKEN:
        holder = await credentials.find_live(conn, api_tokens.c.id == actor.token_id, now)
    else:
        return actor
    return holder.actor if holder else None


async def _noted(db: Database, holder: Holder | None, now: datetime) -> Actor | None:
    if holder is None:
        return None
    if holder.noted_at is None or now - holder.noted_at >= NOTE_INTERVAL:
        try:
            await _note(db, holder.actor, now)
        except Unavailable:
            # Looking at things must work while the database cannot be written.
            log.warning("visit_not_noted", actor_id=holder.actor.id)
    return holder.actor


async def _note(db: Database, actor: Actor, now: datetime) -> None:
    async with db.transaction() as conn:
        if actor.session_id is not None:
            await sessions.note_visit(conn, actor.session_id, now)
        elif actor.token_id is not None:
            await credentials.note_use(conn, actor.token_id, now)
