"""Groups of servers: who belongs to them, and which role each user holds in them. Every change is recorded."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Change, Event
from server_monitor.auth.actor import Actor, GroupId, Permission, Role, allows, audited, groups_allowing
from server_monitor.auth.users import UNCHANGED, Unchanged
from server_monitor.db.ids import is_id, new_id
from server_monitor.db.tables import grants, group_members, groups, servers, users
from server_monitor.errors import Conflict, Denied, FieldError, Invalid, NotFound
from server_monitor.fleet.fields import group_mistakes, quoted, tidy
from server_monitor.fleet.servers import visible_to

MEMBERS_MAX = 100_000
GRANTS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Group:
    id: GroupId
    name: str
    description: str
    labels: Mapping[str, str]
    created_at: datetime
    server_count: int


@dataclass(frozen=True, slots=True)
class NewGroup:
    name: str
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Edit:
    """What to change about a group; the rest stays."""

    name: str | Unchanged = UNCHANGED
    description: str | Unchanged = UNCHANGED
    labels: Mapping[str, str] | Unchanged = UNCHANGED


@dataclass(frozen=True, slots=True)
class Grant:
    """The role that a user holds in a group."""

    user_id: str
    role: Role


async def listing(conn: AsyncConnection, *, actor: Actor) -> list[Group]:
    """The groups that the actor may see, by name."""
    found = map(_group, await conn.execute(_rows(actor)))
    return sorted(found, key=lambda group: (group.name.casefold(), group.id))


async def get(conn: AsyncConnection, group_id: str, *, actor: Actor) -> Group:
    """Raises NotFound when there is no such group, or none that the actor may see."""
    found = None
    if is_id(group_id):
        found = (await conn.execute(_rows(actor).where(groups.c.id == group_id))).one_or_none()
    if found is None:
        raise NotFound("group", group_id)
    return _group(found)


async def create(conn: AsyncConnection, new: NewGroup, *, actor: Actor) -> Group:
    """Raises Invalid with every mistake, Conflict when the name is taken, Denied."""
    _require(Permission.GROUP_WRITE, actor)
    made = await insert_group(conn, new)
    await log.append(conn, created_event(made, actor))
    return made


async def insert_group(conn: AsyncConnection, new: NewGroup) -> Group:
    """Store a new group; the caller authorises and records it."""
    new = replace(new, name=tidy(new.name), description=tidy(new.description))
    mistakes = group_mistakes(name=new.name, description=new.description, labels=new.labels)
    if mistakes:
        raise Invalid(mistakes)
    await _require_free(conn, new.name)
    made = Group(GroupId(new_id()), new.name, new.description, dict(new.labels), datetime.now(UTC), 0)
    values = {name: getattr(made, name) for name in ("id", "name", "description", "labels", "created_at")}
    try:
        await conn.execute(insert(groups).values(**values))
    except IntegrityError as error:
        raise _taken(new.name) from error
    return made


async def edit(conn: AsyncConnection, group_id: str, change: Edit, *, actor: Actor) -> Group:
    """Raises Invalid with every mistake, Conflict when the name is taken, NotFound, Denied."""
    old = await get(conn, group_id, actor=actor)
    _require(Permission.GROUP_WRITE, actor)
    new = replace(
        old,
        name=old.name if change.name is UNCHANGED else tidy(change.name),
        description=old.description if change.description is UNCHANGED else tidy(change.description),
        labels=old.labels if change.labels is UNCHANGED else dict(change.labels),
    )
    mistakes = group_mistakes(name=new.name, description=new.description, labels=new.labels)
    if mistakes:
        raise Invalid(mistakes)
    changes = _differences(old, new)
    if not changes:
        return old
    if new.name != old.name:
        await _require_free(conn, new.name)
    values = {change.path: change.new for change in changes}
    try:
        await conn.execute(update(groups).where(groups.c.id == group_id).values(**values))
    except IntegrityError as error:
        raise _taken(new.name) from error
    await log.append(conn, Event("group.update", audited(actor), _target(new), change=changes))
    return new


async def remove(conn: AsyncConnection, group_id: str, *, actor: Actor) -> None:
    """Forget a group, its members' membership and its grants; the servers stay."""
    gone = await get(conn, group_id, actor=actor)
    _require(Permission.GROUP_WRITE, actor)
    lost = await granted(conn, group_id, actor=actor)
    await conn.execute(delete(groups).where(groups.c.id == group_id))
    meta = {"servers": gone.server_count, "grants": _recorded(lost)}
    await log.append(conn, Event("group.delete", audited(actor), _target(gone), meta=meta))


async def members(conn: AsyncConnection, group_id: str, *, actor: Actor) -> list[str]:
    """The ids of the servers in a group that the actor may see."""
    await get(conn, group_id, actor=actor)
    found = select(servers.c.id).join(group_members).where(group_members.c.group_id == group_id, visible_to(actor))
    return list(await conn.scalars(found.order_by(servers.c.name)))


async def set_members(conn: AsyncConnection, group_id: str, server_ids: Sequence[str], *, actor: Actor) -> list[str]:
    """Make exactly these servers the members of a group. Raises Invalid for those that do not exist."""
    group = await get(conn, group_id, actor=actor)
    _require(Permission.GROUP_WRITE, actor)
    if len(server_ids) > MEMBERS_MAX:
        raise Invalid.one("servers", f"At most {MEMBERS_MAX:,} servers in a group.")
    wanted = dict.fromkeys(server_ids)
    names = {row.id: row.name for row in await conn.execute(select(servers.c.id, servers.c.name))}
    strangers = [FieldError("servers", f"There is no server {quoted(one)}.") for one in wanted if one not in names]
    if strangers:
        raise Invalid(strangers)
    current = set(await conn.scalars(select(group_members.c.server_id).where(group_members.c.group_id == group_id)))
    added, removed = [one for one in wanted if one not in current], [one for one in current if one not in wanted]
    await _leave(conn, group_id, removed)
    await join(conn, [(group_id, one) for one in added])
    if added or removed:
        meta = {"added": _named(added, names), "removed": _named(removed, names), "members": len(wanted)}
        await log.append(conn, Event("group.members", audited(actor), _target(group), meta=meta))
    return await members(conn, group_id, actor=actor)


async def join(conn: AsyncConnection, pairs: Collection[tuple[str, str]]) -> None:
    """Add members, `(group id, server id)` each; the caller authorises and records it."""
    if pairs:
        rows = [{"group_id": group_id, "server_id": server_id} for group_id, server_id in pairs]
        await conn.execute(insert(group_members), rows)


async def granted(conn: AsyncConnection, group_id: str, *, actor: Actor) -> list[Grant]:
    """Who holds which role in a group. Reading this takes the right to read users."""
    await get(conn, group_id, actor=actor)
    _require(Permission.USER_READ, actor)
    columns = (grants.c.user_id, grants.c.role)
    found = await conn.execute(select(*columns).where(grants.c.group_id == group_id).order_by(grants.c.user_id))
    return [Grant(row.user_id, Role(row.role)) for row in found]


async def set_grants(conn: AsyncConnection, group_id: str, wanted: Sequence[Grant], *, actor: Actor) -> list[Grant]:
    """Make exactly these the grants of a group. Raises Invalid for users that do not exist or are named twice."""
    group = await get(conn, group_id, actor=actor)
    _require(Permission.GROUP_WRITE, actor)
    _require(Permission.USER_WRITE, actor)
    await _require_users(conn, wanted)
    before = await granted(conn, group_id, actor=actor)
    after = sorted(wanted, key=lambda grant: grant.user_id)
    if before == after:
        return before
    await conn.execute(delete(grants).where(grants.c.group_id == group_id))
    if after:
        rows = [{"group_id": group_id, "user_id": grant.user_id, "role": grant.role.value} for grant in after]
        await conn.execute(insert(grants), rows)
    change = Change("grants", _recorded(before), _recorded(after))
    await log.append(conn, Event("group.grant", audited(actor), _target(group), change=[change]))
    return after


def created_event(group: Group, actor: Actor) -> Event:
    """The record of a new group."""
    changes = [Change("name", None, group.name), Change("description", None, group.description)]
    return Event("group.create", audited(actor), _target(group), change=changes)


def _require(permission: Permission, actor: Actor) -> None:
    if not allows(actor, permission):
        raise Denied(f"This takes the permission {permission.value}.")


async def _require_free(conn: AsyncConnection, name: str) -> None:
    if await conn.scalar(select(groups.c.id).where(groups.c.name == name)):
        raise _taken(name)


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a group {quoted(name)} already. Choose another name.")


async def _require_users(conn: AsyncConnection, wanted: Sequence[Grant]) -> None:
    if len(wanted) > GRANTS_MAX:
        raise Invalid.one("grants", f"At most {GRANTS_MAX:,} grants in a group.")
    ids = [grant.user_id for grant in wanted]
    known = set(await conn.scalars(select(users.c.id).where(users.c.id.in_(ids)))) if ids else set()
    mistakes = [FieldError("grants", f"There is no user {quoted(one)}.") for one in ids if one not in known]
    if len(set(ids)) < len(ids):
        mistakes.append(FieldError("grants", "A user holds one role in a group; one of them is named twice."))
    if mistakes:
        raise Invalid(mistakes)


async def _leave(conn: AsyncConnection, group_id: str, server_ids: Collection[str]) -> None:
    for server_id in server_ids:
        await conn.execute(
            delete(group_members).where(group_members.c.group_id == group_id, group_members.c.server_id == server_id)
        )


def _rows(actor: Actor) -> Select[Any]:
    count = (
        select(func.count())
        .select_from(group_members.join(servers))
        .where(group_members.c.group_id == groups.c.id, visible_to(actor))
        .scalar_subquery()
    )
    rows = select(groups, count.label("server_count"))
    allowed = groups_allowing(actor, Permission.GROUP_READ)
    return rows if allowed is None else rows.where(groups.c.id.in_(allowed))


def _group(row: Row[Any]) -> Group:
    return Group(**row._mapping)


def _target(group: Group) -> AuditTarget:
    return AuditTarget("group", group.id, group.name, (group.id,))


def _differences(old: Group, new: Group) -> list[Change]:
    names = ("name", "description", "labels")
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in names)
    return [Change(name, before, after) for name, before, after in pairs if before != after]


def _recorded(some: Sequence[Grant]) -> dict[str, str]:
    return {grant.user_id: grant.role.value for grant in some}


def _named(server_ids: Sequence[str], names: Mapping[str, str], limit: int = 100) -> list[str]:
    """Names for the record, which has a size: the first of them, and how many more there were."""
    shown = sorted(names[one] for one in server_ids)
    return shown if len(shown) <= limit else [*shown[:limit], f"and {len(shown) - limit} more"]
