"""Servers as rows: what an actor may see of them, what the collectors work on, and what the collectors find out.

What people change about servers is in `changes.py`, what they decide about host keys in `trust.py`.
"""

import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row, Select, and_, exists, false, func, insert, not_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import SYSTEM, Actor, GroupId, Permission, audited, groups_allowing
from server_monitor.db.ids import is_id, new_id
from server_monitor.db.tables import facts, group_members, groups, host_keys, servers, ssh_credentials
from server_monitor.errors import NotFound
from server_monitor.fleet.fields import LOCAL_HOST, NAME_MAX, name_mistake, tidy, visible
from server_monitor.fleet.reasons import About
from server_monitor.ssh.pool import Target

STATUSES = ("unknown", "online", "degraded", "offline", "host_key_changed", "auth_failed")
DETAIL_MAX = 1_000
FACTS_MAX_BYTES = 16_384
_NEW_STATUS = {"status": "unknown", "status_reason": "host_key_unknown"}

# What separates the groups of a server in one column, and a group's id from its name; names hold neither.
_BETWEEN_GROUPS, _BETWEEN_PARTS = "\x1e", "\x1f"


@dataclass(frozen=True, slots=True)
class GroupRef:
    id: GroupId
    name: str


@dataclass(frozen=True, slots=True)
class Server:
    """A row of `servers` with the names of what it refers to."""

    id: str
    name: str
    host: str
    port: int
    username: str
    auth: str
    credential_id: str | None
    jump_server_id: str | None
    jump_name: str | None
    labels: Mapping[str, str]
    groups: tuple[GroupRef, ...]
    capability: str
    enabled: bool
    status: str
    status_reason: str | None
    status_detail: str | None
    status_at: datetime | None
    created_at: datetime
    updated_at: datetime
    public_key: str | None
    key_fingerprint: str | None

    @property
    def is_local(self) -> bool:
        return self.host == LOCAL_HOST

    @property
    def group_ids(self) -> tuple[GroupId, ...]:
        return tuple(group.id for group in self.groups)

    def about(self, *, with_key: bool) -> About:
        """What the sentences about its reason may mention."""
        return About(
            name=self.name,
            host=self.host,
            port=self.port,
            username=self.username,
            auth=self.auth,
            public_key=self.public_key if with_key else None,
            jump_name=self.jump_name,
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """What the collectors know of a server. `target` is None for the console's own machine."""

    server_id: str
    name: str
    host: str
    target: Target | None
    enabled: bool
    pinned: bool
    updated_at: datetime


async def get(conn: AsyncConnection, server_id: str, *, actor: Actor) -> Server:
    """Raises NotFound when there is no such server, or none that the actor may see."""
    found = None
    if is_id(server_id):
        found = (await conn.execute(_rows(actor).where(servers.c.id == server_id))).one_or_none()
    if found is None:
        raise NotFound("server", server_id)
    return _server(found)


async def find(conn: AsyncConnection, name_or_id: str, *, actor: Actor) -> Server:
    """The server of that name, or else of that id. Raises NotFound."""
    wanted = servers.c.name == tidy(name_or_id), servers.c.id == name_or_id
    for condition in wanted:
        found = (await conn.execute(_rows(actor).where(condition))).one_or_none()
        if found is not None:
            return _server(found)
    raise NotFound("server", visible(name_or_id))


async def listing(conn: AsyncConnection, *, actor: Actor) -> list[Server]:
    """Every server that the actor may see, by name."""
    found = map(_server, await conn.execute(_rows(actor)))
    return sorted(found, key=lambda server: (server.name.casefold(), server.id))


async def existing(conn: AsyncConnection, server_ids: Collection[str]) -> list[Server]:
    """Those of the given servers that exist; for the console itself and no person."""
    return [_server(row) for row in await conn.execute(_rows(SYSTEM).where(servers.c.id.in_(server_ids)))]


async def visible_ids(conn: AsyncConnection, *, actor: Actor) -> frozenset[str] | None:
    """The servers that the actor may see; None when it is all of them, those of tomorrow included."""
    if groups_allowing(actor, Permission.SERVER_READ) is None:
        return None
    return frozenset(await conn.scalars(select(servers.c.id).where(visible_to(actor))))


async def which_visible(conn: AsyncConnection, server_ids: Collection[str], *, actor: Actor) -> frozenset[str]:
    """Those of the given servers that exist and that the actor may see."""
    ids = [one for one in server_ids if is_id(one)]
    wanted = select(servers.c.id).where(servers.c.id.in_(ids), visible_to(actor))
    return frozenset(await conn.scalars(wanted))


async def counts(conn: AsyncConnection, *, actor: Actor) -> Mapping[tuple[str, str | None], int]:
    """How many of the servers that the actor may see are in each status for each reason."""
    columns = (servers.c.status, servers.c.status_reason)
    found = await conn.execute(select(*columns, func.count()).where(visible_to(actor)).group_by(*columns))
    return {(status, reason): count for status, reason, count in found}


async def found_facts(conn: AsyncConnection, server_id: str) -> dict[str, Any] | None:
    """What was found on a server; the caller has made sure that it may be seen."""
    found = (await conn.execute(select(facts.c.document).where(facts.c.server_id == server_id))).scalar_one_or_none()
    return None if found is None else dict(found)


def visible_to(actor: Actor) -> ColumnElement[bool]:
    """The condition under which a row of `servers` may be seen by the actor."""
    allowed = groups_allowing(actor, Permission.SERVER_READ)
    if allowed is None:
        return true()
    if not allowed:
        return false()
    members = select(group_members.c.server_id).where(group_members.c.group_id.in_(allowed))
    return servers.c.id.in_(members)


async def targets(conn: AsyncConnection) -> list[Watch]:
    """Every server, as the collectors need it; for the console itself and no person."""
    pinned = exists().where(host_keys.c.server_id == servers.c.id, host_keys.c.state == "pinned")
    rows = (await conn.execute(select(servers, pinned.label("pinned")).order_by(servers.c.id))).all()
    by_id = {row.id: row for row in rows}
    made: dict[str, Target] = {}
    return [
        Watch(
            server_id=row.id,
            name=row.name,
            host=row.host,
            target=None if row.host == LOCAL_HOST else _target(row.id, by_id, made),
            enabled=row.enabled,
            pinned=row.pinned,
            updated_at=row.updated_at,
        )
        for row in rows
    ]


async def target_of(conn: AsyncConnection, server_id: str) -> Target | None:
    """How to connect to one server, jump servers included; None for the console's own machine."""
    found = await targets_of(conn, [server_id])
    if server_id not in found:
        raise NotFound("server", server_id)
    return found[server_id]


async def targets_of(conn: AsyncConnection, server_ids: Collection[str]) -> dict[str, Target | None]:
    """How to connect to each of these servers that exists, jump servers included; None for the console's machine."""
    by_id: dict[str, Row[Any]] = {}
    wanted = set(server_ids)
    while wanted:
        rows = (await conn.execute(select(servers).where(servers.c.id.in_(wanted)))).all()
        by_id |= {row.id: row for row in rows}
        wanted = {row.jump_server_id for row in rows if row.jump_server_id is not None} - by_id.keys()
    made: dict[str, Target] = {}
    return {
        server_id: None if by_id[server_id].host == LOCAL_HOST else _target(server_id, by_id, made)
        for server_id in server_ids
        if server_id in by_id
    }


def _target(server_id: str, by_id: Mapping[str, Row[Any]], made: dict[str, Target]) -> Target:
    if server_id not in made:
        row = by_id[server_id]
        made[server_id] = Target(
            server_id=row.id,
            name=row.name,
            host=row.host,
            port=row.port,
            username=row.username,
            auth=row.auth,
            credential_id=row.credential_id,
            jump=None if row.jump_server_id is None else _target(row.jump_server_id, by_id, made),
        )
    return made[server_id]


async def set_status(  # noqa: PLR0917  # The collectors' one call, as wiring hands it over.
    conn: AsyncConnection, server_id: str, status: str, reason: str | None, detail: str | None, at: datetime
) -> bool:
    """Note what the collector has learnt; True when it is news. A server that is switched off keeps saying so.

    `detail` may be the words of a hostile host, so what cannot be seen is taken out of it.
    """
    values = {
        "status": status,
        "status_reason": reason,
        "status_detail": None if detail is None else visible(detail, DETAIL_MAX),
    }
    same = and_(*(servers.c[name].is_not_distinct_from(value) for name, value in values.items()))
    changed = await conn.execute(
        update(servers).where(servers.c.id == server_id, servers.c.enabled, not_(same)).values(**values, status_at=at)
    )
    return bool(changed.rowcount)


async def try_again(conn: AsyncConnection, server_id: str, mended: Collection[str]) -> bool:
    """Forget why the server is not online, if it is for one of these reasons: its collector begins anew, at once.

    False when it is in another state. The caller records it, which is what tells a running console.
    """
    now = datetime.now(UTC)
    changed = await conn.execute(
        update(servers)
        .where(servers.c.id == server_id, servers.c.enabled, servers.c.status_reason.in_(mended))
        .values(status="unknown", status_reason=None, status_detail=None, status_at=now, updated_at=now)
    )
    return bool(changed.rowcount)


async def set_facts(conn: AsyncConnection, server_id: str, document: Mapping[str, Any]) -> None:
    """Keep what was found on a server, in place of what was found before. One that is too large is not kept."""
    if len(orjson.dumps(document)) > FACTS_MAX_BYTES:
        return
    # Locked, so that nobody removes the server before its facts refer to it.
    row = select(servers.c.id).where(servers.c.id == server_id).with_for_update(key_share=True)
    if await conn.scalar(row) is None:
        return
    values = {"document": dict(document), "found_at": datetime.now(UTC)}
    changed = await conn.execute(update(facts).where(facts.c.server_id == server_id).values(**values))
    if changed.rowcount == 0:
        await conn.execute(insert(facts).values(server_id=server_id, **values))


async def ensure_local(conn: AsyncConnection) -> str:
    """The id of the console's own machine, which is among the servers from the first start on."""
    known = await conn.scalar(select(servers.c.id).where(servers.c.host == LOCAL_HOST))
    if known is not None:
        return str(known)
    name = await _free_name(conn, local_name(socket.gethostname()))
    server_id = await insert_server(
        conn, name=name, host=LOCAL_HOST, port=22, username="local", auth="local", status="unknown", status_reason=None
    )
    await log.append(conn, Event("server.create", audited(SYSTEM), AuditTarget("server", server_id, name)))
    return server_id


async def insert_server(conn: AsyncConnection, **values: Any) -> str:
    """Store a new server and return its id; what is not given takes the default of a new server."""
    return (await insert_servers(conn, [values]))[0]


async def insert_servers(conn: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Store new servers, jump servers before those behind them, and return their ids."""
    now = datetime.now(UTC)
    defaults: dict[str, Any] = {
        "credential_id": None,
        "jump_server_id": None,
        "labels": {},
        "capability": "observe",
        "enabled": True,
        **_NEW_STATUS,
        "status_detail": None,
        "status_at": now,
        "created_at": now,
        "updated_at": now,
    }
    filled = [{"id": new_id(), **defaults, **row} for row in rows]
    await conn.execute(insert(servers), filled)
    return [row["id"] for row in filled]


def local_name(hostname: str) -> str:
    """A name for the console's own machine, from what it calls itself."""
    name = tidy(hostname)[:NAME_MAX]
    return "this machine" if name_mistake(name) else name


async def _free_name(conn: AsyncConnection, wanted: str) -> str:
    taken = set(await conn.scalars(select(servers.c.name).where(servers.c.name.startswith(wanted, autoescape=True))))
    numbered = (f"{wanted[: NAME_MAX - 6]} ({number})" for number in range(2, len(taken) + 3))
    return next(name for name in (wanted, *numbered) if name not in taken)


def _rows(actor: Actor) -> Select[Any]:
    """Rows for `_server`: all that the actor may see."""
    jump = servers.alias("jump")
    part = groups.c.id + _BETWEEN_PARTS + groups.c.name
    groups_text = (
        select(func.aggregate_strings(part, _BETWEEN_GROUPS))
        .select_from(group_members.join(groups))
        .where(group_members.c.server_id == servers.c.id)
        .scalar_subquery()
    )
    joined = servers.outerjoin(jump, servers.c.jump_server_id == jump.c.id).outerjoin(
        ssh_credentials, servers.c.credential_id == ssh_credentials.c.id
    )
    return (
        select(
            servers,
            jump.c.name.label("jump_name"),
            ssh_credentials.c.public_key,
            ssh_credentials.c.fingerprint.label("key_fingerprint"),
            groups_text.label("groups_text"),
        )
        .select_from(joined)
        .where(visible_to(actor))
    )


def _server(row: Row[Any]) -> Server:
    values = dict(row._mapping)
    return Server(groups=_groups(values.pop("groups_text")), **values)


def _groups(text: str | None) -> tuple[GroupRef, ...]:
    if not text:
        return ()
    parts = (part.split(_BETWEEN_PARTS, 1) for part in text.split(_BETWEEN_GROUPS))
    return tuple(sorted((GroupRef(GroupId(part[0]), part[1]) for part in parts), key=lambda group: group.name))
