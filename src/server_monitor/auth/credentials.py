"""Bearer tokens for programs: made, shown once, stored hashed, checked.

A token is `smt_`, 43 characters that hold 256 random bits, and six that hold a CRC-32 of those before, all base62::

    smt_Zl3x9Jv0…  …4nQ1Rk2w

The prefix lets secret scanners find it, the checksum lets us refuse a mistyped one without asking the database.
"""

import hashlib
import secrets
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Actor, ActorKind, Permission, Scope, allows, audited
from server_monitor.auth.users import Holder, actor_columns, actor_source, read_actor, require, require_text
from server_monitor.db.ids import is_id, new_id
from server_monitor.db.tables import api_tokens, users
from server_monitor.errors import Denied, FieldError, Invalid, NotFound

PREFIX = "smt_"
LONGEST_DAYS = 365
USUAL_DAYS = 90
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_LENGTH = 43  # base62 digits that 256 bits take
_CHECKSUM_LENGTH = 6
_SHOWN_LENGTH = len(PREFIX) + 8


@dataclass(frozen=True, slots=True)
class Token:
    """A token as its user may see it: everything but the secret."""

    id: str
    user_id: str
    user_name: str
    name: str
    prefix: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None

    def works(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token with its secret, which is never shown again."""

    token: Token
    secret: str = field(repr=False)


def digest(secret: str) -> bytes:
    """What is stored of a secret that holds 256 random bits: nobody can guess their way back."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_secret() -> str:
    body = PREFIX + _base62(int.from_bytes(secrets.token_bytes(32)), _SECRET_LENGTH)
    return body + _checksum(body)


def is_well_formed(token: str) -> bool:
    """Whether this can be one of our tokens at all."""
    if len(token) != len(PREFIX) + _SECRET_LENGTH + _CHECKSUM_LENGTH or not token.startswith(PREFIX):
        return False
    return token.isascii() and token[-_CHECKSUM_LENGTH:] == _checksum(token[:-_CHECKSUM_LENGTH])


async def create(
    conn: AsyncConnection,
    user_id: str,
    name: str,
    scopes: Sequence[str],
    expires_in_days: int = USUAL_DAYS,
    *,
    actor: Actor,
    now: datetime | None = None,
) -> NewToken:
    """A new token of this user. People make their own; the command line on the console's machine makes any.

    Appends `token.create`. Raises Denied for a token as actor, whatever its scopes, and for the tokens of others.
    """
    now = now or datetime.now(UTC)
    if actor.kind is not ActorKind.OS_USER and (actor.id != user_id or not allows(actor, Permission.TOKEN_OWN)):
        raise Denied("A token is made by its user, logged in at a browser, or on the console's own machine.")
    chosen = _validated(name, scopes, expires_in_days)
    # Locked, so that a user who is being disabled cannot end up with a token that works.
    owner = await conn.execute(
        select(users.c.name).where(users.c.id == user_id, users.c.disabled_at.is_(None)).with_for_update()
    )
    user_name = owner.scalar_one_or_none()
    if user_name is None:
        raise NotFound("user", user_id)
    secret = new_secret()
    token = Token(
        id=new_id(),
        user_id=user_id,
        user_name=user_name,
        name=name,
        prefix=secret[:_SHOWN_LENGTH],
        scopes=chosen,
        created_at=now,
        expires_at=now + timedelta(days=expires_in_days),
        last_used_at=None,
        revoked_at=None,
    )
    await conn.execute(
        insert(api_tokens).values(
            id=token.id,
            secret_hash=digest(secret),
            user_id=user_id,
            name=name,
            prefix=token.prefix,
            scopes=[scope.value for scope in chosen],
            created_at=now,
            expires_at=token.expires_at,
        )
    )
    meta = {"user": user_name, "scopes": [scope.value for scope in chosen], "expires_in_days": expires_in_days}
    await log.append(conn, Event("token.create", audited(actor), AuditTarget("token", token.id, name), meta=meta))
    return NewToken(token, secret)


async def revoke(conn: AsyncConnection, token_id: str, *, actor: Actor, now: datetime | None = None) -> None:
    """Make a token useless from now on. Appends `token.revoke`. Raises NotFound for tokens the actor may not see."""
    if not is_id(token_id):
        raise NotFound("token", token_id)
    row = (await conn.execute(_select(api_tokens.c.id == token_id, _revocable_by(actor)))).mappings().one_or_none()
    if row is None:
        raise NotFound("token", token_id)
    if row["revoked_at"] is not None:
        return
    await conn.execute(
        update(api_tokens).where(api_tokens.c.id == token_id).values(revoked_at=now or datetime.now(UTC))
    )
    await log.append(
        conn,
        Event(
            "token.revoke",
            audited(actor),
            AuditTarget("token", token_id, row["name"]),
            meta={"user": row["user_name"]},
        ),
    )


async def own(conn: AsyncConnection, *, actor: Actor) -> list[Token]:
    """The tokens of the actor, newest first."""
    require(actor, Permission.TOKEN_OWN)
    return await _read(conn, api_tokens.c.user_id == actor.id)


async def everybodys(conn: AsyncConnection, *, actor: Actor) -> list[Token]:
    """All tokens, newest first."""
    require(actor, Permission.USER_WRITE)
    return await _read(conn)


async def count_working(conn: AsyncConnection, user_id: str, now: datetime | None = None) -> int:
    """How many tokens of this user work."""
    tokens = await _read(conn, api_tokens.c.user_id == user_id)
    return sum(token.works(now or datetime.now(UTC)) for token in tokens)


async def find(conn: AsyncConnection, token: str, now: datetime) -> Holder | None:
    """Whoever this token stands for; None when it is wrong, revoked, expired, or its user is disabled or gone."""
    if not is_well_formed(token):
        return None
    return await find_live(conn, api_tokens.c.secret_hash == digest(token), now)


async def find_live(conn: AsyncConnection, which: ColumnElement[bool], now: datetime) -> Holder | None:
    """Whoever holds the working token `which`, with the roles of its user as they are now."""
    rows = await conn.execute(
        select(*actor_columns, api_tokens.c.id.label("token_id"), api_tokens.c.scopes, api_tokens.c.last_used_at)
        .select_from(actor_source.join(api_tokens, api_tokens.c.user_id == users.c.id))
        .where(
            which,
            api_tokens.c.revoked_at.is_(None),
            (api_tokens.c.expires_at.is_(None)) | (api_tokens.c.expires_at > now),
            users.c.disabled_at.is_(None),
        )
    )
    found = rows.mappings().all()
    if not found:
        return None
    return Holder(read_actor(found, ActorKind.TOKEN, token_id=found[0]["token_id"]), found[0]["last_used_at"])


async def authenticate_token(conn: AsyncConnection, token: str, now: datetime | None = None) -> Actor | None:
    """The actor whom this token stands for, or None. Does not note the use."""
    holder = await find(conn, token, now or datetime.now(UTC))
    return holder.actor if holder else None


async def note_use(conn: AsyncConnection, token_id: str, now: datetime) -> None:
    await conn.execute(update(api_tokens).where(api_tokens.c.id == token_id).values(last_used_at=now))


def _validated(name: str, scopes: Iterable[str], expires_in_days: int) -> tuple[Scope, ...]:
    errors = require_text("name", name, longest=128)
    known = {scope.value for scope in Scope}
    wanted = list(scopes)
    errors += [
        FieldError("scopes", f"{scope!r} is not a scope; take some of {', '.join(sorted(known))}")
        for scope in wanted
        if scope not in known
    ]
    if not wanted:
        errors.append(FieldError("scopes", f"is empty; take some of {', '.join(sorted(known))}"))
    if not 1 <= expires_in_days <= LONGEST_DAYS:
        errors.append(FieldError("expires_in_days", f"must lie between 1 and {LONGEST_DAYS}"))
    if errors:
        raise Invalid(errors)
    return tuple(scope for scope in Scope if scope.value in wanted)


def _revocable_by(actor: Actor) -> ColumnElement[bool]:
    if allows(actor, Permission.USER_WRITE):
        return api_tokens.c.id.is_not(None)
    require(actor, Permission.TOKEN_OWN)
    return api_tokens.c.user_id == actor.id


async def _read(conn: AsyncConnection, *where: ColumnElement[bool]) -> list[Token]:
    rows = await conn.execute(_select(*where).order_by(api_tokens.c.created_at.desc(), api_tokens.c.id.desc()))
    return [_token(row) for row in rows.mappings()]


def _select(*where: ColumnElement[bool]) -> Select[Any]:
    return (
        select(api_tokens, users.c.name.label("user_name"))
        .join_from(api_tokens, users, users.c.id == api_tokens.c.user_id)
        .where(*where)
    )


def _token(row: RowMapping) -> Token:
    return Token(
        id=row["id"],
        user_id=row["user_id"],
        user_name=row["user_name"],
        name=row["name"],
        prefix=row["prefix"],
        scopes=tuple(Scope(scope) for scope in row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
    )


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
