"""Host keys: what a server has shown, and what a person has accepted.

A key is `offered` when the server showed it and nobody accepted it yet, `pinned` once somebody did. A connection goes
on to log in only with a pinned key. One offer is kept for each type of key, the newest. Why:
docs/decisions/host-keys.md.
"""

import base64
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, and_, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from server_monitor.db.tables import host_keys, servers
from server_monitor.errors import Conflict, Unreachable


@dataclass(frozen=True, slots=True)
class HostKey:
    """One host key. `public_key` is an OpenSSH line without comment; `fingerprint` is `SHA256:…` as ssh prints it."""

    key_type: str
    fingerprint: str
    public_key: str

    @classmethod
    def of(cls, key_type: str, blob: bytes) -> "HostKey":
        """From the key as it travels on the wire (RFC 4253, section 6.6)."""
        digest = base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode()
        return cls(key_type, f"SHA256:{digest}", f"{key_type} {base64.b64encode(blob).decode()}")

    @property
    def blob(self) -> bytes:
        return base64.b64decode(self.public_key.split()[1])


class HostKeyUnknown(Unreachable):
    """The server shows a key and none of its keys has been accepted. Nobody tried to log in."""

    def __init__(self, offered: HostKey) -> None:
        super().__init__(
            "host_key_unknown", f"The host offers the key {offered.fingerprint} ({offered.key_type}), not accepted yet."
        )
        self.offered = offered


class HostKeyChanged(Unreachable):
    """The server shows another key than the accepted one. Nobody tried to log in, and nothing was accepted."""

    def __init__(self, offered: HostKey, pinned: Sequence[HostKey]) -> None:
        accepted = ", ".join(f"{key.fingerprint} ({key.key_type})" for key in pinned)
        super().__init__(
            "host_key_changed",
            f"The host offers the key {offered.fingerprint} ({offered.key_type}); accepted is {accepted}.",
        )
        self.offered = offered
        self.pinned = tuple(pinned)


async def pinned(conn: AsyncConnection, server_id: str) -> list[HostKey]:
    """The keys that were accepted for this server, oldest first."""
    return await _keys(conn, server_id, "pinned")


async def offered(conn: AsyncConnection, server_id: str) -> list[HostKey]:
    """The keys that the server showed last and nobody accepted, newest first."""
    return (await _keys(conn, server_id, "offered"))[::-1]


async def record_offer(conn: AsyncConnection, server_id: str, key: HostKey) -> bool:
    """Remember that the server showed this key. True when that is news.

    It takes the place of an earlier offer of the same type. So does a pinned key, which is no offer itself: whoever
    showed the other one is gone. A server that is gone changes nothing.
    """
    if not await _hold(conn, server_id):
        return False
    known = await _state(conn, server_id, key.fingerprint)
    await conn.execute(delete(host_keys).where(_offers(server_id), host_keys.c.key_type == key.key_type))
    if known == "pinned":
        return False
    await conn.execute(
        insert(host_keys).values(
            server_id=server_id,
            fingerprint=key.fingerprint,
            key_type=key.key_type,
            public_key=key.public_key,
            state="offered",
            seen_at=datetime.now(UTC),
        )
    )
    return known is None


async def record_shown(conn: AsyncConnection, server_id: str, shown: Sequence[HostKey]) -> None:
    """Remember what the server shows to whoever has just asked it for all its keys, best first.

    The best becomes the newest offer; what it does not show any more is forgotten.
    """
    await _hold(conn, server_id)
    types = [key.key_type for key in shown]
    await conn.execute(delete(host_keys).where(_offers(server_id), host_keys.c.key_type.not_in(types)))
    for key in reversed(shown):
        await record_offer(conn, server_id, key)


async def trust(
    conn: AsyncConnection, server_id: str, fingerprint: str, *, pinned_by: str, shown: Collection[str] = ()
) -> HostKey:
    """Accept the offered key with this fingerprint in place of whatever was accepted before.

    `shown` are the fingerprints that the server shows right now, where it has been asked: an accepted one among them
    stays accepted. The caller authorises and records it. Raises Conflict when the server offers another key, or none.
    """
    await _hold(conn, server_id)
    current = await offered(conn, server_id)
    already = [key for key in await pinned(conn, server_id) if key.fingerprint == fingerprint]
    if already and (fingerprint in shown or not current):
        return already[0]
    wanted = [key for key in current if key.fingerprint == fingerprint]
    if not wanted:
        raise Conflict(_why_not(fingerprint, current))
    await conn.execute(
        delete(host_keys).where(host_keys.c.server_id == server_id, host_keys.c.fingerprint != fingerprint)
    )
    await conn.execute(
        update(host_keys)
        .where(host_keys.c.server_id == server_id, host_keys.c.fingerprint == fingerprint)
        .values(state="pinned", pinned_at=datetime.now(UTC), pinned_by=pinned_by)
    )
    return wanted[0]


def _why_not(fingerprint: str, current: Sequence[HostKey]) -> str:
    if not current:
        return f"The host has not offered the key {fingerprint}. Connect to it first, then compare again."
    now = ", ".join(f"{key.fingerprint} ({key.key_type})" for key in current)
    return f"The host now offers {now}, not {fingerprint}. Compare again with the host's own fingerprint."


def _offers(server_id: str) -> ColumnElement[bool]:
    return and_(host_keys.c.server_id == server_id, host_keys.c.state == "offered")


async def _hold(conn: AsyncConnection, server_id: str) -> bool:
    """Keep others from the keys of this server until the transaction ends; False when the server is gone.

    The pool, a test and a person who approves may all write at once. Everybody takes the server's row first, and who
    writes about several servers goes in the order of their ids, so that no two wait for each other.
    """
    row = select(servers.c.id).where(servers.c.id == server_id).with_for_update(key_share=True)
    return (await conn.execute(row)).first() is not None


async def _state(conn: AsyncConnection, server_id: str, fingerprint: str) -> str | None:
    found = await conn.execute(
        select(host_keys.c.state).where(host_keys.c.server_id == server_id, host_keys.c.fingerprint == fingerprint)
    )
    return found.scalar()


async def _keys(conn: AsyncConnection, server_id: str, state: str) -> list[HostKey]:
    found = await conn.execute(
        select(host_keys.c.key_type, host_keys.c.fingerprint, host_keys.c.public_key)
        .where(host_keys.c.server_id == server_id, host_keys.c.state == state)
        .order_by(host_keys.c.seen_at, host_keys.c.fingerprint)
    )
    return [HostKey(*row) for row in found]
