"""Carries out an import: all of it in the caller's transaction, or nothing."""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import Actor, Permission, allows, audited
from server_monitor.db.ids import new_id
from server_monitor.db.tables import groups, servers
from server_monitor.errors import Denied, Invalid
from server_monitor.fleet.changes import created_event, key_event
from server_monitor.fleet.groups import NewGroup, insert_group, join
from server_monitor.fleet.groups import created_event as group_created_event
from server_monitor.fleet.inventory.entries import Entry, Parsed
from server_monitor.fleet.inventory.plan import Known, Plan, plan
from server_monitor.fleet.servers import Server, insert_servers
from server_monitor.ssh import vault as secrets
from server_monitor.ssh.vault import Vault

TEXT_MAX_BYTES = 8 * 1024 * 1024
BATCH = 100

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A private key that an IdentityFile names, read on the machine it is on."""

    text: str = field(repr=False)
    passphrase: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    """What an import comes from, for its record."""

    format: str
    text: str = field(repr=False)

    def described(self) -> dict[str, Any]:
        content = self.text.encode(errors="surrogatepass")
        return {"format": self.format, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def require_importing(actor: Actor) -> None:
    """Raise Denied unless the actor may import; to be asked before the work of reading a long text."""
    if not allows(actor, Permission.SERVER_WRITE):
        raise Denied(f"An import takes the permission {Permission.SERVER_WRITE.value} everywhere.")


async def preview(conn: AsyncConnection, parsed: Parsed, default_username: str | None, *, actor: Actor) -> Plan:
    """What the import would add. Raises Invalid with every mistake and its line, Denied."""
    require_importing(actor)
    found = await asyncio.to_thread(plan, parsed, await _existing(conn), default_username)
    if found.errors:
        raise Invalid(found.errors)
    return found


async def carry_out(
    conn: AsyncConnection,
    parsed: Parsed,
    default_username: str | None,
    *,
    source: Source,
    vault: Vault,
    keys: Mapping[str, KeyFile] | None = None,
    actor: Actor,
) -> tuple[Plan, dict[str, str]]:
    """Add every server that the text names, and the groups that do not exist; returns the ids by name.

    `keys` are private keys by the IdentityFile that names them; they are stored, and their servers log in with them.
    Raises as `preview` does, and nothing is added then.
    """
    found = await preview(conn, parsed, default_username, actor=actor)
    events: list[Event] = []
    by_file = await _store_keys(conn, vault, keys or {}, actor, events)
    by_fingerprint = {key.fingerprint: key.id for key in await secrets.list_keys(conn)}
    group_ids = await _groups(conn, found.create, actor, events)
    known = {name: one.id for name, one in (await _existing(conn)).items()}
    ids = {entry.name: new_id() for entry in found.create}
    rows = [_row(entry, {**known, **ids}, by_file, by_fingerprint) for entry in found.create]
    for some in _batches(rows):
        await insert_servers(conn, some)
    await join(conn, [(group_ids[group], ids[entry.name]) for entry in found.create for group in entry.groups])
    for entry, row in zip(found.create, rows, strict=True):
        target = AuditTarget("server", row["id"], entry.name, tuple(group_ids[group] for group in entry.groups))
        events.append(created_event(target, row, actor))
    meta = {**source.described(), "created": len(rows), "skipped": len(found.skipped)}
    events.append(Event("server.import", audited(actor), meta=meta))
    for batch in _batches(events):
        await log.append(conn, *batch)
    return found, ids


def previewed(entry: Entry) -> dict[str, Any]:
    """What a person is shown of a server before and after it is imported."""
    return {
        "line": entry.line,
        "name": entry.name,
        "host": entry.host,
        "port": entry.port,
        "username": entry.username,
        "auth": entry.auth,
        "identity_file": entry.identity_file,
        "jump": entry.jump,
        "labels": entry.labels,
        "groups": entry.groups,
        "capability": entry.capability,
        "notes": entry.notes,
    }


def exported(server: Server) -> dict[str, Any]:
    """A server as `inventory/exported.py` reads it; without any secret."""
    fields = ("name", "host", "port", "username", "auth", "key_fingerprint", "capability")
    document = {name: getattr(server, name) for name in fields}
    groups_named = [group.name for group in server.groups]
    return document | {"jump": server.jump_name, "labels": dict(server.labels), "groups": groups_named}


def _batches(some: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Pieces that are small enough for everything else to go on in between."""
    return (some[start : start + BATCH] for start in range(0, len(some), BATCH))


async def _existing(conn: AsyncConnection) -> dict[str, Known]:
    columns = (servers.c.id, servers.c.name, servers.c.host, servers.c.port, servers.c.username)
    rows = (await conn.execute(select(*columns, servers.c.jump_server_id))).all()
    ways = {row.id: row.jump_server_id for row in rows}
    return {row.name: Known(row.id, row.host, row.port, row.username, _jumps(row.id, ways)) for row in rows}


def _jumps(server_id: str, ways: Mapping[str, str | None]) -> int:
    jumps = 0
    next_id = ways[server_id]
    while next_id is not None:
        jumps += 1
        next_id = ways[next_id]
    return jumps


async def _store_keys(
    conn: AsyncConnection, vault: Vault, keys: Mapping[str, KeyFile], actor: Actor, events: list[Event]
) -> dict[str, str]:
    """The id of the stored key for each file. A key that is stored already is not stored twice."""
    stored = {key.fingerprint: key.id for key in await secrets.list_keys(conn)}
    by_file: dict[str, str] = {}
    for path, file in keys.items():
        made = await secrets.add_key(conn, vault, path.rsplit("/", 1)[-1], file.text, file.passphrase)
        if made.fingerprint in stored:
            await secrets.delete(conn, made.id)
        else:
            events.append(key_event(made, actor))
            stored[made.fingerprint] = made.id
        by_file[path] = stored[made.fingerprint]
    return by_file


async def _groups(conn: AsyncConnection, entries: Sequence[Entry], actor: Actor, events: list[Event]) -> dict[str, str]:
    """The id of every group that the entries name; those that do not exist are made."""
    ids = {name: group_id for group_id, name in await conn.execute(select(groups.c.id, groups.c.name))}
    for name in dict.fromkeys(group for entry in entries for group in entry.groups):
        if name not in ids:
            made = await insert_group(conn, NewGroup(name))
            events.append(group_created_event(made, actor))
            ids[name] = made.id
    return ids


def _row(
    entry: Entry, ids: Mapping[str, str], by_file: Mapping[str, str], by_fingerprint: Mapping[str | None, str]
) -> dict[str, Any]:
    credential_id = by_fingerprint.get(entry.key_fingerprint) if entry.auth == "key" else None
    if entry.identity_file is not None:
        credential_id = by_file.get(entry.identity_file)
    return {
        "id": ids[entry.name],
        "name": entry.name,
        "host": entry.host,
        "port": entry.port,
        "username": entry.username,
        "auth": "key" if credential_id else entry.auth,
        "credential_id": credential_id,
        "jump_server_id": None if entry.jump is None else ids[entry.jump],
        "labels": dict(entry.labels),
        "capability": entry.capability,
    }
