"""Tries to reach a server: what it shows, and whether it lets us in. Logs in only where a person accepted the key."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from server_monitor.audit import log
from server_monitor.audit.chain import Change, Event
from server_monitor.auth.actor import Actor, Permission, audited
from server_monitor.db.engine import Database
from server_monitor.errors import Unreachable
from server_monitor.fleet import trust
from server_monitor.fleet.changes import require, target_of_audit
from server_monitor.fleet.reasons import REASONS
from server_monitor.fleet.servers import Server, get, target_of, try_again
from server_monitor.ssh import hostkeys
from server_monitor.ssh.hostkeys import HostKey
from server_monitor.ssh.pool import Pool, Target

# While these hold, the collector is connected, or was told to leave the server alone.
_NO_OBSTACLE = frozenset({"slow", "clock_skew", "disabled"})
_OBSTACLES = tuple(REASONS.keys() - _NO_OBSTACLE)


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
    """Reach a server of ours, keep what keys it shows, and log in when one of them is accepted.

    When whatever kept the console out is mended, the collector tries again at once, and not when its patience ends.
    """
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
        if failure.reason not in trust.WAITING_FOR_A_KEY:
            await _try_again(db, server, trust.WAITING_FOR_A_KEY, actor)
        return server, Reached(seen.offered, seen.latency_ms, reason=failure.reason, detail=str(failure))
    await _try_again(db, server, _OBSTACLES, actor)
    return server, Reached(seen.offered, seen.latency_ms, logged_in=True)


async def trust_what_is_shown(db: Database, pool: Pool, server_id: str, fingerprint: str, *, actor: Actor) -> None:
    """Accept a host key that the host shows when it is asked, or showed last when it cannot be asked now.

    Raises Conflict when it shows another key, Unreachable when it cannot be asked and never was, NotFound, Denied.
    """
    async with db.reading() as conn:
        known = await trust.host_keys(conn, server_id, actor=actor)
        require(await get(conn, server_id, actor=actor), Permission.HOST_TRUST, actor)
        target = await target_of(conn, server_id)
    shown: Sequence[HostKey] = ()
    if target is not None:
        try:
            shown = await pool.scan(target)
        except Unreachable:
            if not known.offered:
                raise
    async with db.transaction() as conn:
        if shown:
            await hostkeys.record_shown(conn, server_id, shown)
        fingerprints = {key.fingerprint for key in shown}
        await trust.trust_host_key(conn, server_id, fingerprint, shown=fingerprints, actor=actor)


async def keep_offers(db: Database, server_id: str, shown: Sequence[HostKey]) -> None:
    """Remember the keys that a host has shown to whoever asked for all of them, best first."""
    async with db.transaction() as conn:
        await hostkeys.record_shown(conn, server_id, shown)


async def _try_again(db: Database, server: Server, mended: Sequence[str], actor: Actor) -> None:
    async with db.transaction() as conn:
        if await try_again(conn, server.id, mended):
            change = [Change("status", server.status, "unknown")]
            await log.append(conn, Event("server.update", audited(actor), target_of_audit(server), change=change))
