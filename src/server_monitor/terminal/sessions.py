"""The rows of sessions: asked for, opened with a ticket, followed by heads of their recording, and ended once.

A ticket opens one socket, once, within half a minute. Its row holds only a hash, into which go the session, the person
and the purpose: it is of no use to anybody else or for anything else. A session has one ticket at a time; a new one
takes the place of one that was not used.

Who works in a shell may do everything that its account may, so `terminal.connect` is committed before the shell opens,
and says with which hash its recording begins.
"""

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, String, and_, cast, false, func, insert, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditActor, AuditTarget, Event
from server_monitor.auth.actor import (
    SYSTEM,
    Actor,
    ActorKind,
    GroupId,
    Permission,
    allows,
    audited,
    groups_allowing,
    scopes_allow,
)
from server_monitor.db.ids import MENTIONED, is_id, new_id
from server_monitor.db.tables import audit_records, heartbeats, terminal_sessions, users
from server_monitor.errors import Conflict, Denied, Failure, Invalid, NotFound, TooMany
from server_monitor.fleet import servers as fleet
from server_monitor.fleet.servers import Server
from server_monitor.terminal.recording import Progress
from server_monitor.terminal.states import COLS_MAX, ROWS_MAX, Ending, Kept, Purpose, Size, Status

TICKET_LASTS: Final = timedelta(seconds=30)
REASON_MAX: Final = 1_000
TARGET: Final = "terminal_session"

_T = terminal_sessions
_PURPOSES = (Purpose.ATTACH, Purpose.WATCH)


@dataclass(frozen=True, slots=True)
class Rules:
    """What is set for sessions."""

    per_user: int = 10
    needs_reason: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """A session that a ticket opened: whose it is, and where."""

    id: str
    user_id: str
    user_name: str
    login_id: str | None
    token_id: str | None
    server_id: str
    server_name: str
    account: str
    groups: Sequence[GroupId]
    request_id: str
    reason: str | None
    created_at: datetime
    started_at: datetime | None

    @property
    def actor(self) -> AuditActor:
        kind = ActorKind.TOKEN if self.token_id else ActorKind.USER
        return AuditActor(kind.value, self.user_id, self.user_name, (), self.login_id, self.token_id)

    @property
    def target(self) -> AuditTarget:
        return AuditTarget(TARGET, self.id, self.server_name, tuple(self.groups))

    @property
    def where(self) -> dict[str, Any]:
        return {"server_id": self.server_id, "server": self.server_name, "account": self.account}


@dataclass(frozen=True, slots=True)
class Ticket:
    """Known to whoever asked for it, and to nobody afterwards."""

    session_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What a ticket was good for, and whose it was."""

    session: Session
    purpose: Purpose
    actor: Actor


class TicketRefused(Exception):  # noqa: N818  # An answer to whoever shows one.
    """No session is opened by this ticket: it is used, too old, or of another session, person or purpose."""


class Unfit(Exception):  # noqa: N818  # An answer to whoever asks; it is recorded on the way.
    """This person may have no terminal on this server, or nobody may now."""

    def __init__(self, obstacle: str, permission: Permission = Permission.TERMINAL_OPEN) -> None:
        super().__init__(obstacle)
        self.obstacle = obstacle
        self.permission = permission

    @property
    def failure(self) -> Failure:
        kind = Denied if self.obstacle in {"not_permitted", "capability"} else Conflict
        return kind(OBSTACLES[self.obstacle].format(permission=self.permission.value))


# --- asked for ---


async def ask(
    conn: AsyncConnection,
    server_id: str,
    size: Size,
    reason: str | None,
    *,
    rules: Rules,
    request_id: str,
    actor: Actor,
    now: datetime,
) -> Ticket:
    """A new session and the ticket that opens its shell.

    Raises NotFound, Unfit, Invalid and TooMany.
    """
    server = await fleet.get(conn, server_id, actor=actor)
    if (found := obstacle(server, actor)) is not None:
        raise Unfit(found)
    reason = _reason(reason, rules)
    if not size.is_possible:
        raise Invalid.one("cols", f"A terminal has at most {COLS_MAX} columns and {ROWS_MAX} rows, and one of each.")
    await _require_room(conn, actor, rules, now)
    session_id, ticket = new_id(), secrets.token_urlsafe(32)
    await conn.execute(
        insert(_T).values(
            id=session_id,
            user_id=actor.id,
            user_name=actor.name,
            login_id=actor.session_id,
            token_id=actor.token_id,
            server_id=server.id,
            server_name=server.name,
            account=server.username,
            groups=list(server.group_ids),
            request_id=request_id,
            reason=reason,
            status=Status.ACTIVE,
            ticket=_digest(ticket, session_id, actor, Purpose.ATTACH),
            ticket_expires_at=now + TICKET_LASTS,
            created_at=now,
            recording="open",
        )
    )
    return Ticket(session_id, ticket)


async def record_denied(conn: AsyncConnection, server_id: str, code: str, *, actor: Actor) -> None:
    """Note that somebody asked for a terminal on a server that they see, and may not have it."""
    server = await fleet.get(conn, server_id, actor=actor)
    target = AuditTarget("server", server.id, server.name, server.group_ids)
    await log.append(conn, Event("terminal.connect", audited(actor), target, "denied", code))


def obstacle(server: Server, actor: Actor, permission: Permission = Permission.TERMINAL_OPEN) -> str | None:
    """Why `actor` may have no terminal on this server, or do what else takes one, as a code."""
    if not allows(actor, permission, server.group_ids):
        return "not_permitted"
    if server.is_local:
        return "own_machine"
    if server.capability != "terminal":
        return "capability"
    if not server.enabled:
        return "disabled"
    if server.status_reason in {"host_key_unknown", "host_key_changed"}:
        return server.status_reason
    return None


OBSTACLES: Mapping[str, str] = {
    "not_permitted": "This takes the permission {permission} for this server.",
    "own_machine": "The console's own machine never has a terminal: its account can read the console's keys.",
    "capability": "This server is not at capability terminal; an admin can raise it.",
    "disabled": "This server is switched off.",
    "host_key_unknown": "Its host key has not been approved yet.",
    "host_key_changed": "It shows another host key than the approved one.",
}


def _reason(given: str | None, rules: Rules) -> str | None:
    reason = (given or "").strip() or None
    if reason is None and rules.needs_reason:
        raise Invalid.one("reason", "say why, or give the number of a ticket: this console asks for it")
    if reason is not None and len(reason) > REASON_MAX:
        raise Invalid.one("reason", f"at most {REASON_MAX} characters")
    return reason


async def _require_room(conn: AsyncConnection, actor: Actor, rules: Rules, now: datetime) -> None:
    # One after the other for one person, or two who ask at once would both see the last free place.
    await conn.execute(select(users.c.id).where(users.c.id == actor.id).with_for_update())
    is_open = or_(_T.c.started_at.is_not(None), _T.c.ticket_expires_at > now)
    counted = select(func.count()).where(_T.c.user_id == actor.id, _T.c.status == Status.ACTIVE, is_open)
    if (await conn.execute(counted)).scalar_one() >= rules.per_user:
        raise TooMany(f"You have {rules.per_user} terminals open, which is as many as one person may.", 30)


# --- tickets ---


async def issue(conn: AsyncConnection, session_id: str, purpose: Purpose, *, actor: Actor, now: datetime) -> Ticket:
    """A ticket for a session that runs: to attach again for whoever opened it, to watch for who may stop it.

    Raises NotFound, Denied, and Conflict when the session is over or has not begun.
    """
    row = await get(conn, session_id, actor=actor)
    if purpose is Purpose.WATCH and not allows(actor, Permission.TERMINAL_STOP, row.groups):
        raise Denied(_MAY_STOP)
    if purpose is Purpose.ATTACH:
        await _require_typing(conn, row, actor)
    if row.status != Status.ACTIVE or row.started_at is None:
        raise Conflict("This session is over." if row.status != Status.ACTIVE else "This session has not begun.")
    ticket = secrets.token_urlsafe(32)
    values = {
        "ticket": _digest(ticket, session_id, actor, purpose),
        "ticket_expires_at": now + TICKET_LASTS,
    }
    await conn.execute(update(_T).where(_T.c.id == session_id, _T.c.status == Status.ACTIVE).values(**values))
    return Ticket(session_id, ticket)


_MAY_STOP = f"This takes the permission {Permission.TERMINAL_STOP.value} for the server."


async def _require_typing(conn: AsyncConnection, row: Row[Any], actor: Actor) -> None:
    """Raise Denied unless it is their own session and they may still open one there, with what they ask with."""
    if not _is_own(row, actor):
        raise Denied("Only whoever opened a session types in it.")
    if not await _may_open(conn, row, actor):
        raise Denied(OBSTACLES["not_permitted"].format(permission=Permission.TERMINAL_OPEN.value))


async def _may_open(conn: AsyncConnection, row: Row[Any], actor: Actor) -> bool:
    found = await fleet.existing(conn, [row.server_id])
    return allows(actor, Permission.TERMINAL_OPEN, found[0].group_ids if found else row.groups)


async def redeem(
    conn: AsyncConnection, session_id: str, ticket: str, *, actor: Actor | None, now: datetime
) -> Redeemed:
    """Use a ticket up. Raises TicketRefused.

    Who shows neither a login nor a token counts as the token that opened the session, for which it has to be.
    """
    row = (await conn.execute(select(_T).where(_T.c.id == session_id))).one_or_none() if is_id(session_id) else None
    if row is None or row.ticket is None or row.status != Status.ACTIVE:
        raise TicketRefused
    if actor is None and row.token_id is None:
        raise TicketRefused
    who = actor or opener_of(session_of(row))
    shown = {purpose: _digest(ticket, session_id, who, purpose) for purpose in _PURPOSES}
    purpose = next((one for one in _PURPOSES if secrets.compare_digest(shown[one], row.ticket)), None)
    if purpose is None:
        raise TicketRefused
    is_good = and_(_T.c.id == session_id, _T.c.ticket == row.ticket, _T.c.ticket_expires_at > now)
    used = await conn.execute(update(_T).where(is_good, _T.c.status == Status.ACTIVE).values(ticket=None))
    if used.rowcount == 0:
        raise TicketRefused
    return Redeemed(session_of(row), purpose, who)


def opener_of(session: Session) -> Actor:
    """Whoever opened it, as far as it takes to look for their login or token."""
    kind = ActorKind.TOKEN if session.token_id else ActorKind.USER
    return Actor(kind, session.user_id, session.user_name, token_id=session.token_id, session_id=session.login_id)


def _digest(ticket: str, session_id: str, actor: Actor, purpose: Purpose) -> bytes:
    # A token's ticket is for that token: another one of the same person may be good for less.
    parts = (purpose.value, session_id, str(actor.id), actor.token_id or "", ticket)
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


# --- running ---


async def begin(
    conn: AsyncConnection, session: Session, size: Size, progress: Progress, *, owner: str, now: datetime
) -> bool:
    """Note that the shell is about to open. Appends the intent `terminal.connect`. False when it is over."""
    values = {"started_at": now, "owner": owner, **_recorded(progress)}
    mine = and_(_T.c.id == session.id, _T.c.status == Status.ACTIVE, _T.c.started_at.is_(None))
    if (await conn.execute(update(_T).where(mine).values(**values))).rowcount == 0:
        return False
    meta = {
        **session.where,
        "cols": size.cols,
        "rows": size.rows,
        "reason": session.reason,
        **_said(progress),
    }
    await log.append(conn, Event("terminal.connect", session.actor, session.target, None, phase="intent", meta=meta))
    return True


async def note_heads(conn: AsyncConnection, heads: Sequence[tuple[Session, Progress]]) -> None:
    """Write down how far recordings have come. Appends `terminal.head` for each."""
    for session, progress in sorted(heads, key=lambda one: one[0].id):
        await conn.execute(update(_T).where(_T.c.id == session.id, _is_active).values(**_recorded(progress)))
        await log.append(conn, Event("terminal.head", session.actor, session.target, meta=_said(progress)))


_is_active = _T.c.status == Status.ACTIVE


async def end(
    conn: AsyncConnection, session: Session, ending: Ending, progress: Progress | None, *, now: datetime
) -> bool:
    """End a session, once. Appends `terminal.disconnect` when it had begun. False when it had ended already."""
    values: dict[str, Any] = {"status": ending.status, "cause": ending.cause, "finished_at": now, "ticket": None}
    if session.started_at is None:
        progress = None  # Nothing was ever shown.
    if progress is not None:
        values |= {"recording": "unverified", **_recorded(progress)}
    ended = await conn.execute(update(_T).where(_T.c.id == session.id, _is_active).values(**values))
    if ended.rowcount and progress is not None:
        await log.append(conn, await _disconnected(conn, session, ending, progress, now))
    return bool(ended.rowcount)


async def _disconnected(
    conn: AsyncConnection, session: Session, ending: Ending, progress: Progress, now: datetime
) -> Event:
    assert session.started_at is not None
    meta = {
        **session.where,
        **_said(progress),
        "status": ending.status.value,
        "cause": ending.cause,
        "exit_status": ending.exit_status,
        "duration_ms": int((now - session.started_at).total_seconds() * 1_000),
    }
    outcome = "success" if ending.status is Status.CLOSED else "failure"
    parent = await _intent(conn, session.id)
    return Event(
        "terminal.disconnect",
        session.actor,
        session.target,
        outcome,
        ending.cause,
        phase="outcome",
        meta=meta,
        parent_seq=parent,
    )


async def _intent(conn: AsyncConnection, session_id: str) -> int | None:
    c = audit_records.c
    wanted = select(c.seq).where(c.target_type == TARGET, c.target_id == session_id, c.action == "terminal.connect")
    found: int | None = (await conn.execute(wanted.order_by(c.seq).limit(1))).scalar()
    return found


async def record_stop(
    conn: AsyncConnection, session_id: str, reason: str | None, *, actor: Actor
) -> tuple[Session, Ending]:
    """That somebody stops a session: one that they may type in, or as who may stop others'. Appends `terminal.stop`.

    Raises NotFound, Denied, and Conflict when it is over.
    """
    row = await get(conn, session_id, actor=actor)
    is_own = _is_own(row, actor) and await _may_open(conn, row, actor)
    if not is_own and not allows(actor, Permission.TERMINAL_STOP, row.groups):
        raise Denied(_MAY_STOP)
    if row.status != Status.ACTIVE:
        raise Conflict("This session is over.")
    session = session_of(row)
    meta = {**session.where, "reason": (reason or "").strip()[:REASON_MAX] or None, "of": session.user_name}
    await log.append(conn, Event("terminal.stop", audited(actor), session.target, meta=meta))
    return session, Ending(Status.CLOSED, "closed") if is_own else Ending(Status.STOPPED, "stopped")


async def record_attach(conn: AsyncConnection, session: Session, *, actor: Actor) -> None:
    """That whoever opened a session comes back to type in it. Appends `terminal.attach`."""
    await log.append(conn, Event("terminal.attach", audited(actor), session.target, meta=session.where))


async def record_watch(conn: AsyncConnection, session: Session, *, actor: Actor) -> None:
    """That somebody begins to look on. Appends `recording.view`."""
    meta = {**session.where, "live": True, "of": session.user_name}
    await log.append(conn, Event("recording.view", audited(actor), session.target, meta=meta))


def _said(progress: Progress) -> dict[str, Any]:
    """As the records have it; `terminal/ledger.py` reads it there."""
    return {
        "chunks": progress.chunks,
        "head": progress.head.hex(),
        "bytes": progress.size_bytes,
        "output_bytes": progress.output_bytes,
    }


def written(row: Row[Any]) -> Progress:
    """What is recorded of a session, as its row was last told."""
    return Progress(row.chunks, row.head or b"", row.recording_bytes, row.output_bytes)


def _recorded(progress: Progress) -> dict[str, Any]:
    return {
        "chunks": progress.chunks,
        "head": progress.head,
        "recording_bytes": progress.size_bytes,
        "output_bytes": progress.output_bytes,
    }


# --- what nobody ended ---


async def give_up_unused(conn: AsyncConnection, now: datetime) -> int:
    """End sessions whose ticket nobody used; returns how many."""
    unused = and_(_is_active, _T.c.started_at.is_(None), _T.c.ticket_expires_at <= now)
    values = {"status": Status.CLOSED, "cause": "not_opened", "finished_at": now, "ticket": None}
    ended = await conn.execute(update(_T).where(unused).values(**values))
    return int(ended.rowcount)


async def recover(
    conn: AsyncConnection, owner: str, *, now: datetime, dead: Collection[str] = (), is_start: bool = False
) -> list[Session]:
    """Mark the sessions of the dead consoles, at the start those of ours before. Appends `terminal.recover`.

    Whoever else has no heartbeat is dead too; of ourselves we know better. Their shells ended with the connections. The
    recordings are still open, as far as their rows say; see `unsettled`.
    """
    is_silent = and_(_T.c.owner != owner, _T.c.owner.not_in(select(heartbeats.c.owner)))
    is_nobodys = or_(_T.c.owner.is_(None), is_silent)
    is_dead = or_(is_nobodys, _T.c.owner.in_({*dead, owner} if is_start else set(dead) - {owner}))
    left = and_(_is_active, _T.c.started_at.is_not(None), is_dead)
    rows = (await conn.execute(select(_T).where(left).order_by(_T.c.id).with_for_update(skip_locked=True))).all()
    if rows:
        values = {"status": Status.INTERRUPTED, "cause": "console_died", "finished_at": now, "ticket": None}
        await conn.execute(update(_T).where(_T.c.id.in_([row.id for row in rows]), _is_active).values(**values))
        meta = {"sessions": [row.id for row in rows[:100]], "count": len(rows), "became": Status.INTERRUPTED.value}
        await log.append(conn, Event("terminal.recover", audited(SYSTEM), AuditTarget("console", owner), meta=meta))
    return [session_of(row) for row in rows]


async def no_longer_active(conn: AsyncConnection, session_ids: Collection[str]) -> Collection[str]:
    """Those of these sessions that somebody has ended."""
    ended = select(_T.c.id).where(_T.c.id.in_(session_ids), _T.c.status != Status.ACTIVE)
    return list(await conn.scalars(ended))


async def unsettled(conn: AsyncConnection, owner: str) -> list[Session]:
    """Sessions of ours that are over and whose recordings nobody has closed: a console died on the way."""
    over = and_(_T.c.owner == owner, _T.c.status != Status.ACTIVE, _T.c.recording == "open")
    rows = await conn.execute(select(_T).where(over).order_by(_T.c.id).limit(1_000))
    return [session_of(row) for row in rows]


async def settle(conn: AsyncConnection, session: Session, progress: Progress | None) -> None:
    """Close the books on a session that a dead console left: what its file holds, or None when there is no file.

    Appends the `terminal.disconnect` that nobody else will, with outcome `unknown`.
    """
    values: dict[str, Any] = (
        {"recording": "unverified", **_recorded(progress)} if progress else {"recording": "missing"}
    )
    mine = and_(_T.c.id == session.id, _T.c.recording == "open", _T.c.status != Status.ACTIVE)
    if (await conn.execute(update(_T).where(mine).values(**values))).rowcount == 0:
        return
    meta = {**session.where, "cause": "console_died", "recovered": True, **(_said(progress) if progress else {})}
    parent = await _intent(conn, session.id)
    await log.append(
        conn,
        Event(
            "terminal.disconnect",
            session.actor,
            session.target,
            "unknown",
            "console_died",
            phase="outcome",
            meta=meta,
            parent_seq=parent,
        ),
    )


# --- what is seen ---


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list of sessions is narrowed to; None does not narrow. The times are those of their creation."""

    status: str | None = None
    server_id: str | None = None
    user_id: str | None = None
    from_at: datetime | None = None
    to_at: datetime | None = None
    recording: Collection[Kept] | None = None  # any of these; what was never opened has none


def visible_to(actor: Actor) -> ColumnElement[bool]:
    """The condition under which a row may be seen: one's own, and those of servers whose recordings one may read."""
    own = _T.c.user_id == actor.id if actor.id is not None and may_see_own(actor) else false()
    seen = [groups_allowing(actor, one) for one in (Permission.RECORDING_READ, Permission.TERMINAL_STOP)]
    if any(groups is None for groups in seen):
        return true()
    groups = {group for allowed in seen for group in allowed or ()}
    as_text = cast(_T.c.groups, String)
    # A group's id is a UUID: nothing else in that list of strings can hold it.
    return or_(own, *(as_text.contains(f'"{group}"') for group in sorted(groups)))


def may_see_own(actor: Actor) -> bool:
    """A token for metrics says nothing about what its person does in terminals."""
    return scopes_allow(actor, Permission.RECORDING_READ)


async def get(conn: AsyncConnection, session_id: str, *, actor: Actor) -> Row[Any]:
    """The row of a session. Raises NotFound when there is none that the actor may see."""
    found = None
    if is_id(session_id):
        found = (await conn.execute(select(_T).where(_T.c.id == session_id, visible_to(actor)))).one_or_none()
    if found is None:
        raise NotFound("terminal session", session_id[:MENTIONED])
    return found


async def page(
    conn: AsyncConnection, filters: Filters, limit: int, before: tuple[datetime, str] | None, *, actor: Actor
) -> tuple[Sequence[Row[Any]], tuple[datetime, str] | None]:
    """Up to `limit` sessions, newest first, and where the page after begins, if there is one."""
    wanted = select(_T).where(visible_to(actor), *_conditions(filters))
    if before is not None:
        created_at, session_id = before
        same = and_(_T.c.created_at == created_at, _T.c.id < session_id)
        wanted = wanted.where(or_(_T.c.created_at < created_at, same))
    rows = (await conn.execute(wanted.order_by(_T.c.created_at.desc(), _T.c.id.desc()).limit(limit + 1))).all()
    return rows[:limit], (rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None


def _conditions(filters: Filters) -> Collection[ColumnElement[bool]]:
    equal = {_T.c.status: filters.status, _T.c.server_id: filters.server_id, _T.c.user_id: filters.user_id}
    conditions: list[ColumnElement[bool]] = [column == value for column, value in equal.items() if value is not None]
    if filters.from_at is not None:
        conditions.append(_T.c.created_at >= filters.from_at)
    if filters.to_at is not None:
        conditions.append(_T.c.created_at < filters.to_at)
    if filters.recording is not None:
        conditions += [_T.c.recording.in_(filters.recording), _T.c.started_at.is_not(None)]
    return conditions


def session_of(row: Row[Any]) -> Session:
    return Session(
        id=row.id,
        user_id=row.user_id,
        user_name=row.user_name,
        login_id=row.login_id,
        token_id=row.token_id,
        server_id=row.server_id,
        server_name=row.server_name,
        account=row.account,
        groups=tuple(row.groups),
        request_id=row.request_id,
        reason=row.reason,
        created_at=row.created_at,
        started_at=row.started_at,
    )


def _is_own(row: Row[Any], actor: Actor) -> bool:
    return actor.id is not None and row.user_id == actor.id
