"""Which servers are meant: by id, by group, by label."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.auth.actor import Actor, GroupId, Permission, allows
from server_monitor.db.tables import group_members
from server_monitor.errors import FieldError, Invalid
from server_monitor.fleet import groups as group_rows
from server_monitor.fleet import servers as server_rows
from server_monitor.fleet.fields import quoted
from server_monitor.fleet.servers import Server

NAMED_MAX = 10_000
ALL = "all"


@dataclass(frozen=True, slots=True)
class Selector:
    """Servers by id, and those that are in one of the groups, where any are given, and carry all the labels; or all."""

    servers: Sequence[str] = ()
    groups: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    everything: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.servers or self.groups or self.labels or self.everything)

    def document(self) -> dict[str, object]:
        shown: dict[str, object] = {
            "servers": list(self.servers),
            "groups": list(self.groups),
            "labels": dict(self.labels),
        }
        return {**shown, "all": True} if self.everything else shown

    def meets(self, server: Server) -> bool:
        if self.everything or server.id in self.servers:
            return True
        if not (self.groups or self.labels):
            return False
        in_group = not self.groups or any(group in self.groups for group in server.group_ids)
        return in_group and all(server.labels.get(name) == value for name, value in self.labels.items())


@dataclass(frozen=True, slots=True)
class Chosen:
    """A server that is meant. `obstacle` is why no command may run there, as a code, or None."""

    server: Server
    obstacle: str | None


async def named(conn: AsyncConnection, words: Collection[str], *, actor: Actor) -> Selector:
    """The selector that a person writes as words: `all`, names or ids of servers, `group:NAME`, `label:KEY=VALUE`.

    Raises Invalid with every word that means nothing.
    """
    ids = {server.name: server.id for server in await server_rows.listing(conn, actor=actor)}
    ids |= {server_id: server_id for server_id in ids.values()}
    group_ids = {group.name: group.id for group in await group_rows.listing(conn, actor=actor)}
    servers: list[str] = []
    groups: list[str] = []
    labels: dict[str, str] = {}
    mistakes: list[FieldError] = []
    for word in words:
        kind, _, rest = word.partition(":")
        name, equals, value = rest.partition("=")
        if word in ids:
            servers.append(ids[word])
        elif kind == "group" and rest in group_ids:
            groups.append(group_ids[rest])
        elif kind == "label" and equals and labels.get(name, value) == value:
            labels[name] = value
        elif word != ALL:
            mistakes.append(FieldError("selector", _meaningless(kind, rest, word)))
    if mistakes:
        raise Invalid(mistakes)
    return Selector(servers, groups, labels, everything=ALL in words)


def _meaningless(kind: str, rest: str, word: str) -> str:
    if kind == "group":
        return f"There is no group {quoted(rest)}."
    if kind == "label" and "=" in rest:
        return f"{quoted(word)}: another value of this label is asked for too, and no server carries both."
    if kind == "label":
        return f"{quoted(word)}: write label:KEY=VALUE."
    return f"There is no server {quoted(word)}; write all, a name, an id, group:NAME or label:KEY=VALUE."


async def choose(conn: AsyncConnection, selector: Selector, *, actor: Actor) -> list[Chosen]:
    """The servers that are meant and that the actor may see, by name.

    Raises Invalid for an empty selector, and for servers or groups that do not exist as far as the actor may know.
    """
    if selector.is_empty:
        raise Invalid.one("selector", "choose servers, groups or labels")
    seen = await server_rows.listing(conn, actor=actor)
    mistakes = _strangers("servers", "server", selector.servers, {server.id for server in seen})
    if selector.groups:
        known = {group.id for group in await group_rows.listing(conn, actor=actor)}
        mistakes += _strangers("groups", "group", selector.groups, known)
    if mistakes:
        raise Invalid(mistakes)
    return [Chosen(server, obstacle(server, actor)) for server in seen if selector.meets(server)]


def obstacle(server: Server, actor: Actor) -> str | None:
    """Why `actor` may not run a command on this server."""
    if not allows(actor, Permission.TASK_RUN, server.group_ids):
        return "not_permitted"
    if not server.enabled:
        return "disabled"
    if server.capability == "observe":
        return "capability"
    if not server.is_local and server.status_reason in {"host_key_unknown", "host_key_changed"}:
        return server.status_reason
    return None


OBSTACLES: Mapping[str, str] = {
    "not_permitted": "You may look at this server, not run commands on it.",
    "disabled": "This server is switched off.",
    "capability": "This server is at capability observe; an admin can raise it to run.",
    "host_key_unknown": "Its host key has not been approved yet.",
    "host_key_changed": "It shows another host key than the approved one.",
}


def _strangers(field_name: str, kind: str, wanted: Collection[str], known: Collection[str]) -> list[FieldError]:
    if len(wanted) > NAMED_MAX:
        return [FieldError(f"selector.{field_name}", f"At most {NAMED_MAX:,} at once.")]
    strange = [one for one in wanted if one not in known]
    return [FieldError(f"selector.{field_name}", f"There is no {kind} {quoted(one)}.") for one in strange[:100]]


async def groups_of(conn: AsyncConnection, server_ids: Collection[str]) -> dict[str, list[GroupId]]:
    """The groups of each of these servers that is in any."""
    found: dict[str, list[GroupId]] = {}
    for row in await conn.execute(select(group_members).where(group_members.c.server_id.in_(server_ids))):
        found.setdefault(row.server_id, []).append(row.group_id)
    return found
