"""Tries to reach a server: what it shows, and whether it lets us in. Logs in only where a person accepted the key."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from server_monitor.auth.actor import Actor, Permission
from server_monitor.db.engine import Database
from server_monitor.errors import Unreachable
from server_monitor.fleet import trust
from server_monitor.fleet.changes import require
from server_monitor.fleet.servers import Server, get, target_of
from server_monitor.ssh import hostkeys
from server_monitor.ssh.hostkeys import HostKey
from server_monitor.ssh.pool import Pool, Target


@dataclass(frozen=True, slots=True)
class Reached:
    """What came of it. `reason` is a code of `reasons.py`, None when all went well.

    `latency_ms` is how long the host took to show its keys; `logged_in` is False when that was not tried.
    """

    offered: tuple[HostKey, ...] = ()
    latency_ms: float | None = None
    logged_in: bool = False
    reason: str | None = None
    detail: str | None = None

    @property
    def reachable(self) -> bool:
        return bool(self.offered)


async def look(pool: Pool, target: Target) -> Reached:
    """Let a host show its keys. Nobody logs in."""
    started_s = time.perf_counter()
    try:
        offered = await pool.scan(target)
    except Unreachable as failure:
        return Reached(reason=failure.reason, detail=str(failure))
    return Reached(tuple(offered), latency_ms=round((time.perf_counter() - started_s) * 1000, 1))


async def attempt(db: Database, pool: Pool, server_id: str, *, actor: Actor) -> tuple[Server, Reached]:
    """Reach a server of ours, keep what keys it shows, and log in when one of them is accepted."""
    async with db.reading() as conn:
        server = await get(conn, server_id, actor=actor)
        require(server, Permission.SERVER_WRITE, actor)
        target = await target_of(conn, server_id)
        pinned = {key.fingerprint for key in await hostkeys.pinned(conn, server_id)}
    if target is None:
        return server, Reached(reason=server.status_reason, detail=server.status_detail)
    seen = await look(pool, target)
    if not seen.reachable:
        return server, seen
    await keep_offers(db, server_id, seen.offered)
    if not pinned:
        return server, Reached(seen.offered, seen.latency_ms, reason="host_key_unknown")
    try:
        await pool.connect(target)
    except Unreachable as failure:
        return server, Reached(seen.offered, seen.latency_ms, reason=failure.reason, detail=str(failure))
    return server, Reached(seen.offered, seen.latency_ms, logged_in=True)


async def trust_what_is_shown(db: Database, pool: Pool, server_id: str, fingerprint: str, *, actor: Actor) -> None:
    """Accept a host key; the host is asked first when nobody has seen it show one.

    Raises Conflict when it shows another key, Unreachable when it cannot be asked, NotFound, Denied.
    """
    async with db.reading() as conn:
        known = await trust.host_keys(conn, server_id, actor=actor)
        require(await get(conn, server_id, actor=actor), Permission.HOST_TRUST, actor)
        target = await target_of(conn, server_id)
    if not known.offered and target is not None:
        await keep_offers(db, server_id, await pool.scan(target))
    async with db.transaction() as conn:
        await trust.trust_host_key(conn, server_id, fingerprint, actor=actor)


async def keep_offers(db: Database, server_id: str, shown: Sequence[HostKey]) -> None:
    """Remember the keys that a host has shown, best first; the best becomes the newest."""
    async with db.transaction() as conn:
        for key in reversed(shown):
            await hostkeys.record_offer(conn, server_id, key)
