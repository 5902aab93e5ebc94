"""What people decide about host keys, and the alarm when a host shows another one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import orjson
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.audit import log
from server_monitor.audit.chain import AuditTarget, Event
from server_monitor.auth.actor import SYSTEM, Actor, Permission, audited
from server_monitor.db.tables import audit_records, servers
from server_monitor.errors import Failure
from server_monitor.fleet.changes import require, target_of_audit
from server_monitor.fleet.servers import get, try_again
from server_monitor.ssh import hostkeys
from server_monitor.ssh.hostkeys import HostKey

BULK_MAX = 1_000
WAITING_FOR_A_KEY = ("host_key_unknown", "host_key_changed")


@dataclass(frozen=True, slots=True)
class HostKeys:
    """The keys of a host that a person has accepted, and those that it showed and nobody has accepted yet."""

    pinned: Sequence[HostKey]
    offered: Sequence[HostKey]


@dataclass(frozen=True, slots=True)
class NotTrusted:
    """One of many approvals that could not be made."""

    server_id: str
    code: str
    detail: str


async def host_keys(conn: AsyncConnection, server_id: str, *, actor: Actor) -> HostKeys:
    await get(conn, server_id, actor=actor)
    return HostKeys(await hostkeys.pinned(conn, server_id), await hostkeys.offered(conn, server_id))


async def trust_host_key(
    conn: AsyncConnection, server_id: str, fingerprint: str, *, shown: Collection[str] = (), actor: Actor
) -> None:
    """Accept the key that a host has shown; from now on it has to show this one.

    `shown` are the fingerprints that it shows right now, where it has been asked.
    Raises Conflict when the host has shown another key or none, NotFound, Denied.
    """
    await log.append(conn, await _trust(conn, server_id, fingerprint, shown, actor))


async def trust_many(
    conn: AsyncConnection, wanted: Sequence[tuple[str, str]], *, actor: Actor
) -> tuple[list[str], list[NotTrusted]]:
    """Accept many keys, `(server id, fingerprint)` each: those that can be, whatever becomes of the others."""
    trusted: list[str] = []
    failed: list[NotTrusted] = []
    events: list[Event] = []
    for server_id, fingerprint in sorted(wanted):  # in one order, whoever writes; see ssh/hostkeys.py
        try:
            async with conn.begin_nested():
                events.append(await _trust(conn, server_id, fingerprint, (), actor))
        except Failure as failure:
            failed.append(NotTrusted(server_id, failure.code, str(failure)))
        else:
            trusted.append(server_id)
    if events:
        await log.append(conn, *events)
    return trusted, failed


async def record_host_key_changed(conn: AsyncConnection, server_id: str, key: HostKey) -> bool:
    """Raise the alarm: this host shows a key that nobody has accepted, in place of one that somebody has.

    The connection was refused already. False when this key was reported since somebody last decided about the host.
    """
    pinned = [one.fingerprint for one in await hostkeys.pinned(conn, server_id)]
    if not pinned or key.fingerprint in pinned or key.fingerprint in await _reported(conn, server_id):
        return False
    name = await conn.scalar(select(servers.c.name).where(servers.c.id == server_id))
    event = Event(
        "host_key.changed",
        audited(SYSTEM),
        AuditTarget("server", server_id, name),
        outcome="denied",
        reason="host_key_changed",
        meta={"offered": key.fingerprint, "key_type": key.key_type, "pinned": pinned},
    )
    await log.append(conn, event)
    return True


async def _reported(conn: AsyncConnection, server_id: str) -> set[str]:
    """The fingerprints that were reported as changed since somebody last decided about this host."""
    about = (audit_records.c.target_type == "server", audit_records.c.target_id == server_id)
    decided = select(func.max(audit_records.c.seq)).where(*about, audit_records.c.action == "host_key.trust")
    since = func.coalesce(decided.scalar_subquery(), -1)
    bodies = await conn.scalars(
        select(audit_records.c.body).where(
            *about, audit_records.c.action == "host_key.changed", audit_records.c.seq > since
        )
    )
    return {offered for body in bodies if (offered := _offered(body)) is not None}


def _offered(body: bytes) -> str | None:
    """What a record says was offered; None for one that cannot be read any more, so that it is reported anew."""
    try:
        offered = orjson.loads(body)["meta"]["offered"]
    except (ValueError, TypeError, LookupError):
        return None
    return offered if isinstance(offered, str) else None


async def _trust(
    conn: AsyncConnection, server_id: str, fingerprint: str, shown: Collection[str], actor: Actor
) -> Event:
    server = await get(conn, server_id, actor=actor)
    require(server, Permission.HOST_TRUST, actor)
    before = [key.fingerprint for key in await hostkeys.pinned(conn, server_id)]
    await hostkeys.trust(conn, server_id, fingerprint, pinned_by=actor.name, shown=shown)
    await try_again(conn, server_id, WAITING_FOR_A_KEY)
    meta = {"fingerprint": fingerprint, "replaced": [key for key in before if key != fingerprint]}
    return Event("host_key.trust", audited(actor), target_of_audit(server), meta=meta)
