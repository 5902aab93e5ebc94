"""People: who has an account, which global role they hold, and whether they may log in.

Two rules hold whatever is asked and by whomever: there is always an administrator who can log in, and nobody but
another administrator (or the console's own machine) takes an administrator's account away.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from sqlalchemy import ColumnElement, RowMapping, Update, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import SECRET, AuditTarget, Change, Event
from server_monitor.auth import passwords
from server_monitor.auth.actor import Actor, ActorKind, GroupId, Permission, Role, Scope, allows, audited
from server_monitor.auth.passwords import PasswordHash
from server_monitor.db.engine import Database
from server_monitor.db.ids import is_id, new_id
from server_monitor.db.tables import api_tokens, fold_name, grants, sessions, users
from server_monitor.errors import Conflict, Denied, FieldError, Invalid, NotFound

LONGEST_NAME = 64
# Control and format characters (which hold the bidirectional overrides), surrogates, private use, unassigned,
# and the separators of lines and paragraphs: none of them can be seen, and some change how the rest is shown.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class User:
    """An account. `role` is the global one; None: only what grants for groups give."""

    id: str
    name: str
    role: Role | None
    created_at: datetime
    password_changed_at: datetime | None
    disabled_at: datetime | None

    @property
    def is_disabled(self) -> bool:
        return self.disabled_at is not None


class Unchanged(Enum):
    """Says that an edit leaves a value alone, where None already means "none"."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


@dataclass(frozen=True, slots=True)
class Edit:
    """What to change about an account."""

    role: Role | Unchanged | None = UNCHANGED
    disabled: bool | Unchanged = UNCHANGED
    password: str | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True)
class Holder:
    """Whoever a cookie or token stands for, and when it was last noted that it is in use."""

    actor: Actor
    noted_at: datetime | None


def require(actor: Actor, permission: Permission) -> None:
    """Raise Denied unless the actor holds the permission everywhere."""
    if not allows(actor, permission):
        raise Denied(f"This takes the permission {permission.value}.")


def require_text(field: str, value: str, *, longest: int) -> list[FieldError]:
    """What is wrong with a name that people will read in lists and logs; empty when nothing is."""
    if not value.strip():
        return [FieldError(field, "is empty")]
    if len(value) > longest:
        return [FieldError(field, f"has {len(value)} characters; use at most {longest}")]
    unseen = sorted({f"U+{ord(c):04X}" for c in value if unicodedata.category(c) in _UNSEEN})
    if unseen:
        return [FieldError(field, f"holds characters that cannot be seen ({', '.join(unseen[:5])}); leave them out")]
    if value != value.strip():
        return [FieldError(field, "begins or ends with white space; leave it out")]
    return []


def name_problems(name: str, field: str = "name") -> list[FieldError]:
    """What is wrong with this name for a user, with the remedy; empty when it is good."""
    # Before normalising, which is slow for a hostile text of any length.
    return require_text(field, name, longest=LONGEST_NAME) or require_text(
        field, unicodedata.normalize("NFC", name), longest=LONGEST_NAME
    )


def check_new(name: str, password: str, role: Role | None, *, name_field: str = "name") -> None:
    """Raise Invalid with everything that is wrong with name and password of a new account."""
    errors = name_problems(name, name_field)
    errors += passwords.problems(password, name="" if errors else name, role=role)
    if errors:
        raise Invalid(errors)


def lookup_form(name: str) -> str:
    """What to look for in `name_folded`; for a text that cannot be anybody's name, something nobody has."""
    return "" if require_text("name", name, longest=LONGEST_NAME) else fold_name(name)


async def create(
    db: Database, name: str, password: str, role: Role | None, *, actor: Actor, now: datetime | None = None
) -> User:
    """A new account that can log in at once. Raises Invalid, Conflict when the name is taken, Denied."""
    require(actor, Permission.USER_WRITE)
    check_new(name, password, role)
    password_hash = await passwords.hash_password(password)
    async with db.transaction() as conn:
        user, event = await insert_user(conn, name, password_hash, role, actor=actor, now=now or datetime.now(UTC))
        await log.append(conn, event)
    return user


async def edit(db: Database, user_id: str, change: Edit, *, actor: Actor, now: datetime | None = None) -> User:
    """Change role, password, or whether the user may log in; all of it or nothing.

    Appends `user.update`, `user.password`, `user.disable` or `user.enable` for what really changes. A new role, a new
    password and disabling end the user's sessions at once; disabling revokes their tokens too.
    Raises Denied, NotFound, Invalid, and Conflict when it would take away the last administrator or one's own account,
    or is meant to change one's own password, which takes the old one.
    """
    require(actor, Permission.USER_WRITE)
    now = now or datetime.now(UTC)
    password_hash = None
    if change.password is not UNCHANGED:
        _refuse_password_without_the_old_one(user_id, actor)
        async with db.reading() as conn:
            user = await get(conn, user_id, actor=actor)
        role = user.role if change.role is UNCHANGED else change.role
        passwords.check(change.password, name=user.name, role=role)
        password_hash = await passwords.hash_password(change.password)
    async with db.transaction() as conn:
        await lock(conn)
        before = await get(conn, user_id, actor=actor)
        events = [
            *await _set_role(conn, before, change.role, actor),
            *await _set_password(conn, before, password_hash, actor, now),
            *await _set_disabled(conn, before, change.disabled, actor, now),
        ]
        after = await get(conn, user_id, actor=actor)
        if events:
            await log.append(conn, *events)
    return after


async def set_own_password(conn: AsyncConnection, password_hash: PasswordHash, *, actor: Actor, now: datetime) -> None:
    """Give the actor another password, which the caller has checked, and end their other sessions.

    Appends `user.password`.
    """
    user = await get(conn, str(actor.id), actor=actor)
    await log.append(conn, *await _set_password(conn, user, password_hash, actor, now))


async def remove(conn: AsyncConnection, user_id: str, *, actor: Actor) -> None:
    """Delete the account with its sessions, tokens and grants; the audit log keeps its name.

    Appends `user.delete`. Raises Denied, NotFound, Conflict.
    """
    require(actor, Permission.USER_WRITE)
    await lock(conn)
    user = await get(conn, user_id, actor=actor)
    _refuse_own(user, actor, "delete your own account")
    await _keep_an_admin(conn, user)
    await conn.execute(delete(users).where(users.c.id == user_id))
    await log.append(conn, Event("user.delete", audited(actor), _target(user)))


async def listing(conn: AsyncConnection, *, actor: Actor) -> list[User]:
    """Everybody, by name."""
    require(actor, Permission.USER_READ)
    rows = await conn.execute(select(users).order_by(users.c.name_folded))
    return [_user(row) for row in rows.mappings()]


async def get(conn: AsyncConnection, user_id: str, *, actor: Actor) -> User:
    """One account. Everybody may see their own."""
    if actor.id != user_id:
        require(actor, Permission.USER_READ)
    if not is_id(user_id):
        raise NotFound("user", user_id)
    return await _one(conn, users.c.id == user_id, user_id)


async def find(conn: AsyncConnection, name: str, *, actor: Actor) -> User:
    """The account of this name, however it is capitalised."""
    require(actor, Permission.USER_READ)
    return await _one(conn, users.c.name_folded == lookup_form(name), name[:LONGEST_NAME])


async def insert_user(
    conn: AsyncConnection,
    name: str,
    password_hash: PasswordHash,
    role: Role | None,
    *,
    actor: Actor,
    now: datetime,
) -> tuple[User, Event]:
    """Write a new account. The caller has checked name, password and right, and appends the event to the audit log."""
    await lock(conn)
    taken = await conn.execute(select(users.c.id).where(users.c.name_folded == fold_name(name)))
    if taken.first() is not None:
        raise Conflict(f"There is a user named {name!r} already, perhaps in other capitals; choose another name.")
    user = User(new_id(), unicodedata.normalize("NFC", name), role, now, now, None)
    await conn.execute(
        insert(users).values(
            id=user.id,
            name=user.name,
            name_folded=fold_name(user.name),
            password_hash=password_hash,
            role=role,
            created_at=now,
            password_changed_at=now,
        )
    )
    return user, Event("user.create", audited(actor), _target(user), change=[Change("role", None, role)])


async def has_admin(conn: AsyncConnection) -> bool:
    """Whether there has been a first administrator, who then can never be the last to go."""
    return (await conn.execute(select(users.c.id).where(users.c.role == Role.ADMIN).limit(1))).first() is not None


async def lock(conn: AsyncConnection) -> None:
    """Let nobody else change accounts until this transaction ends.

    Two administrators who demote each other at the same moment would otherwise both be right. SQLite has one writer.
    """
    if conn.dialect.name == "postgresql":
        await conn.execute(text("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"))


# --- whoever holds a session or a token -----------------------------------------------------------------------------

actor_columns = (
    users.c.id.label("user_id"),
    users.c.name.label("user_name"),
    users.c.role,
    grants.c.group_id,
    grants.c.role.label("group_role"),
)
actor_source = users.outerjoin(grants, grants.c.user_id == users.c.id)


def read_actor(
    rows: Sequence[RowMapping], kind: ActorKind, *, session_id: str | None = None, token_id: str | None = None
) -> Actor:
    """The actor whom `actor_columns` describe: one row for each group in which they hold a role, at least one row."""
    first = rows[0]
    return Actor(
        kind,
        first["user_id"],
        first["user_name"],
        Role(first["role"]) if first["role"] else None,
        {GroupId(row["group_id"]): Role(row["group_role"]) for row in rows if row["group_id"]},
        None if token_id is None else frozenset(Scope(scope) for scope in first["scopes"]),
        token_id,
        session_id,
    )


async def actor_of(conn: AsyncConnection, user_id: str) -> Actor | None:
    """The person with this account, with their roles as they are now; None when it is disabled or gone."""
    rows = await conn.execute(
        select(*actor_columns).select_from(actor_source).where(users.c.id == user_id, users.c.disabled_at.is_(None))
    )
    found = rows.mappings().all()
    return read_actor(found, ActorKind.USER) if found else None


# --- parts of an edit; each returns what is to be recorded ----------------------------------------------------------


async def _set_role(conn: AsyncConnection, user: User, role: Role | Unchanged | None, actor: Actor) -> list[Event]:
    if role is UNCHANGED or role == user.role:
        return []
    _refuse_own(user, actor, "change your own role")
    if user.role is Role.ADMIN:
        await _keep_an_admin(conn, user)
    await conn.execute(_update(user).values(role=role))
    # A session begins anew with every change of rights; an administrator's is also shorter.
    await conn.execute(delete(sessions).where(sessions.c.user_id == user.id))
    return [Event("user.update", audited(actor), _target(user), change=[Change("role", user.role, role)])]


async def _set_password(
    conn: AsyncConnection, user: User, password_hash: PasswordHash | None, actor: Actor, now: datetime
) -> list[Event]:
    if password_hash is None:
        return []
    await conn.execute(_update(user).values(password_hash=password_hash, password_changed_at=now))
    others = sessions.c.id != actor.session_id if actor.session_id else sessions.c.id.is_not(None)
    await conn.execute(delete(sessions).where(sessions.c.user_id == user.id, others))
    return [Event("user.password", audited(actor), _target(user), change=[Change("password", SECRET, SECRET)])]


async def _set_disabled(
    conn: AsyncConnection, user: User, disabled: bool | Unchanged, actor: Actor, now: datetime
) -> list[Event]:
    if disabled is UNCHANGED or disabled == user.is_disabled:
        return []
    if not disabled:
        await conn.execute(_update(user).values(disabled_at=None))
        return [Event("user.enable", audited(actor), _target(user))]
    _refuse_own(user, actor, "disable your own account")
    await _keep_an_admin(conn, user)
    await conn.execute(_update(user).values(disabled_at=now))
    await conn.execute(delete(sessions).where(sessions.c.user_id == user.id))
    # For good: an account that was disabled because its token leaked must not revive that token later.
    await conn.execute(
        update(api_tokens)
        .where(api_tokens.c.user_id == user.id, api_tokens.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return [Event("user.disable", audited(actor), _target(user))]


def _refuse_own(user: User, actor: Actor, deed: str) -> None:
    if user.id == actor.id:
        raise Conflict(f"You cannot {deed}; another administrator can, or `server-monitor user` on the console.")


def _refuse_password_without_the_old_one(user_id: str, actor: Actor) -> None:
    """Whoever finds a browser left open, or a token, must not be able to make the account their own with it."""
    if actor.kind is ActorKind.TOKEN:
        raise Denied("An API token cannot change passwords; log in, or use `server-monitor user` on the console.")
    if user_id == actor.id:
        raise Conflict("Your own password is changed with the old one, in the settings of your account.")


async def _keep_an_admin(conn: AsyncConnection, without: User) -> None:
    """Raise Conflict when nobody but `without` can administrate. The transaction holds `lock`."""
    others = await conn.execute(
        select(func.count())
        .select_from(users)
        .where(users.c.role == Role.ADMIN, users.c.disabled_at.is_(None), users.c.id != without.id)
    )
    if others.scalar_one() == 0 and without.role is Role.ADMIN and not without.is_disabled:
        raise Conflict(f"{without.name!r} is the last administrator; make another one first.")


async def _one(conn: AsyncConnection, which: ColumnElement[bool], identity: str) -> User:
    row = (await conn.execute(select(users).where(which))).mappings().one_or_none()
    if row is None:
        raise NotFound("user", identity)
    return _user(row)


def _update(user: User) -> Update:
    return update(users).where(users.c.id == user.id)


def _target(user: User) -> AuditTarget:
    return AuditTarget("user", user.id, user.name)


def _user(row: RowMapping) -> User:
    return User(
        id=row["id"],
        name=row["name"],
        role=Role(row["role"]) if row["role"] else None,
        created_at=row["created_at"],
        password_changed_at=row["password_changed_at"],
        disabled_at=row["disabled_at"],
    )
